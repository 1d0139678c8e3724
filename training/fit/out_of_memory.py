"""What a run will hold in memory, and what to change when an allocation fails."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size

from common.devices import GIB
from common.errors import RunError
from intrinsic.base import Bonus
from policy.features import FROZEN_FEATURES, MEAN_HIDDEN
from policy.load import architecture_of, attention_of, resolve
from training.fit.estimate import Work
from training.fit.evaluation import evaluation_batch
from training.fit.savings import savings
from training.micro_batches import update_window
from training.run_options import RunConfig, RunOptions


def work_of(options: RunOptions, config: RunConfig, bonuses: list[Bonus], encoder, prompt: int) -> Work:
    """The shapes of the run whose longest prompt has ``prompt`` tokens, with what bonuses and text encoder hold."""
    encoder_model = getattr(encoder, "model", None)
    width = architecture_of(options.model_name).get_text_config().hidden_size
    if encoder_model is not None:
        width = encoder_model.get_embedding_dimension()
    work = Work(
        **shapes_of(options, config, bonuses),
        prompt=prompt,
        bfloat16=config.bf16 or config.fp16,
        checkpointing=bool(config.activation_checkpointing),
        device=config.device.type,
        attention=attention_of(resolve(options.model_name), options.attn_implementation),
        encoder=sum(value.nbytes for value in encoder_model.parameters()) if encoder_model is not None else 0,
        memories=sum(bonus.capacity_bytes(width) for bonus in bonuses),
    )
    return replace(work, evaluation_batch=evaluation_batch(options, config, work))


def shapes_of(options: RunOptions, config: RunConfig, bonuses: list[Bonus]) -> dict[str, int | bool]:
    """The fields of `Work` that flags and bonuses decide, whatever the policy, its prompts and the device."""
    needs = frozenset().union(*(bonus.needs for bonus in bonuses))
    has_reference = config.beta > 0 and not options.lora
    return {
        "micro_batch": config.per_device_train_batch_size,
        "generation_batch": config.per_device_train_batch_size * config.steps_per_generation,
        "num_generations": config.num_generations,
        "completion": config.L,
        "sampling_batch": config.sampling_batch,
        "reference": has_reference,
        "initial_copy": bool(needs & FROZEN_FEATURES.keys()) and not (has_reference or options.lora),
        "captured_states": int("hidden" in needs),
        "frozen_states": int("frozen_hidden" in needs),
        "whole_groups": config.world_size == 1 and update_window(config) == config.steps_per_generation,
        "mean_states": len(needs & {MEAN_HIDDEN, f"frozen_{MEAN_HIDDEN}"}),
    }


def available_bytes(device: torch.device) -> int:
    """Memory that a run on ``device`` can still take."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def peak_bytes() -> int:
    """Peak memory so far: allocated on the GPU where there is one, else resident, libraries included."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # on Windows
        return psutil.Process().memory_info().peak_wset
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def advice(options: RunOptions, work: Work, limit: int | None = None) -> str:
    """Flags that take less memory, least change to the experiment first, with the estimated peak after each.

    As many as it takes to stay within ``limit`` bytes; without a limit each flag once.
    """
    found = savings(architecture_of(options.model_name), options, work, limit)
    return "; ".join(f"{flag} (about {peak / GIB:.2f} GiB)" for flag, peak in found)


@contextmanager
def out_of_memory_advice(options: RunOptions, work: Callable[[], Work], go_on: Callable[[], str]) -> Iterator[None]:
    """Turn an allocation that fails inside into a `RunError` that names the flags to turn; others pass through.

    ``work`` and ``go_on``, what is left to go on from, are asked for only then.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error)):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(
            f"out of memory at a peak of {peak_bytes() / GIB:.2f} GiB ({reason}); take less by, in this order, each "
            f"on top of those before: {advice(options, work())}. {go_on()}"
        ) from error
