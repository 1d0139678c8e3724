"""What TRL's vLLM backend does not do by itself: end tokens, the run's seed, and an adapter's weights without drift.

A colocated engine and a server get their weights from the trainer before a batch is sampled. With an adapter, TRL 1.16
merges it into the base weights for that, and subtracts it again; each round loses bits of the base for good, and with
them the reference of the KL penalty and the features of the initial policy move. Here each layer is merged into a copy
that exists while the engine reads it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import groupby

import torch
from accelerate.utils import set_seed
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from trl.distributed import DistributedBackend
from trl.generation.vllm_generation import VLLMGeneration

from common.errors import UserError


def prepare_engine(generation: VLLMGeneration, end_tokens: Iterable[int], seed: int) -> None:
    """Make the engine behind ``generation`` stop at each of ``end_tokens``, and undo its own seeding of this process.

    vLLM knows the end tokens of the files that it loads, not those of the chat template. A colocated engine sets the
    random state of the whole process by its rank alone, and samples from it; the processes that share an engine must
    have the same.
    """
    asked = generation.generation_kwargs.get("stop_token_ids") or []
    stops = list(dict.fromkeys([*asked, *end_tokens]))
    generation.generation_kwargs = {**generation.generation_kwargs, "stop_token_ids": stops}
    if generation.mode == "colocate":
        set_seed(seed + generation.accelerator.process_index // generation.tensor_parallel_size)


def adapter_weights(model: PeftModel, sharding: DistributedBackend) -> Callable[[], Iterator[tuple[str, Tensor]]]:
    """What an engine loads of a policy with an adapter: each call gives `merged_weights`.

    Raises `UserError` under FSDP, where no process holds a layer to merge.
    """
    if sharding.is_fsdp:
        raise UserError(
            "--lora with --use_vllm needs whole layers to merge the adapter into, which FSDP shards; launch with "
            "configs/accelerate/ddp.yaml or zero2.yaml, or leave --use_vllm out."
        )
    return partial(merged_weights, model, sharding)


def merged_weights(model: PeftModel, sharding: DistributedBackend) -> Iterator[tuple[str, Tensor]]:
    """(name, weight) of ``model`` as its base architecture names it, adapters merged; leaves every bit of it alone.

    A weight is valid until the next one is asked for: copies exist of one layer at a time.
    """
    layers = {
        id(parameter): layer
        for layer in model.modules()
        if isinstance(layer, BaseTunerLayer)
        for parameter in layer.get_base_layer().parameters(recurse=False)
    }
    with sharding.gather_params(list(model.parameters())):
        for layer, group in groupby(model.named_parameters(), key=lambda item: layers.get(id(item[1]))):
            with nullcontext() if layer is None else _merged(layer):
                for name, parameter in group:
                    if model.prefix in name:  # the adapter's own
                        continue
                    if layer is not None:
                        parameter = layer.get_base_layer().get_parameter(name.rpartition(".")[2])
                    yield name.removeprefix("base_model.model.").replace(".base_layer", ""), parameter.data


@contextmanager
def _merged(layer: BaseTunerLayer) -> Iterator[None]:
    """While open, the weights of the layer under the adapter are merged copies; then they are the old ones again."""
    base = layer.get_base_layer()
    kept = [(name, parameter, parameter.data) for name, parameter in base.named_parameters(recurse=False)]
    for _, parameter, data in kept:
        parameter.data = data.clone()
    try:
        with torch.no_grad():
            layer.merge()
        yield
    finally:
        for name, parameter, data in kept:
            parameter.data = data
            setattr(base, name, parameter)  # a layer in 4 bits replaces it
        layer.merged_adapters.clear()
