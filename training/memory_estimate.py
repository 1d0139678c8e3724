"""How much memory a training run takes, item by item, from shapes alone: no weight is read and nothing is allocated.

The policy is built and run on fake tensors, which have shapes and no data. What autograd would keep for the backward
pass is counted tensor by tensor, so attention, autocast, adapters and checkpointing need no formulas of their own.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from peft import get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, PretrainedConfig

from training.decoding import compute_type_cache
from training.frozen_policy import inner_linear_layers
from training.policy import PolicyOptions, base_of

ADAMW_MOMENTS = 2
# Output head of TRL: tiles of so many tokens by so many ids, and bytes of one entry, temporaries included.
TILE_TOKENS, TILE_IDS = 4096, 32_768
TILE_ENTRY_BYTES = {"cuda": 2}
TILE_ENTRY_BYTES_OTHER = 26
# Sampling keeps the scores of the next token as logits, warped logits, probabilities and one temporary, in float32.
SAMPLING_COPIES = 4
FOUR_BITS = 0.52  # bytes of a weight in NF4, its share of the scales included
GIB = 2**30


@dataclass(frozen=True)
class Work:
    """The shapes of a run, and what it holds besides the policy.

    Attributes:
        micro_batch: completions per forward and backward pass.
        generation_batch: completions sampled at once, in groups of ``num_generations``.
        prompt, completion: tokens of the longest prompt and completion.
        bfloat16: whether passes run under bfloat16 autocast.
        checkpointing: whether activations are computed again in the backward pass.
        device: type of the device, "cuda" or "cpu".
        attention: implementation of transformers; None for its default.
        reference: whether TRL holds a reference model.
        initial_copy: whether bonuses hold a copy of the initial policy, see `training.frozen_policy`.
        encoder: bytes of a text encoder on the same device.
        memories: bytes that bonuses hold in main memory when their memories are full.
    """

    micro_batch: int
    generation_batch: int
    num_generations: int
    prompt: int
    completion: int
    bfloat16: bool
    checkpointing: bool
    device: str
    attention: str | None
    reference: bool
    initial_copy: bool = False
    encoder: int = 0
    memories: int = 0


@dataclass(frozen=True)
class Estimate:
    """Bytes by item: what is always held, what training adds, what generation adds; and the policy's parameters.

    ``main_memory`` is apart from the device's where there is an accelerator.
    """

    held: dict[str, int]
    training: dict[str, int]
    generation: dict[str, int]
    main_memory: dict[str, int]
    parameters: int
    device: str

    @property
    def peak(self) -> int:
        """Most bytes of the device at once: training and generation take turns."""
        phases = max(sum(self.training.values()), sum(self.generation.values()))
        shared = sum(self.main_memory.values()) if self.device == "cpu" else 0
        return sum(self.held.values()) + phases + shared

    def lines(self) -> Iterator[str]:
        """One line per item, then the peak."""
        phases = {"training: ": self.training, "generation: ": self.generation, "main memory: ": self.main_memory}
        for phase, items in {"": self.held, **phases}.items():
            for name, size in items.items():
                yield f"{phase + name:<44} {size / GIB:8.2f} GiB"
        yield f"{'at most at once':<44} {self.peak / GIB:8.2f} GiB"


def estimate(architecture: PretrainedConfig, policy: PolicyOptions, work: Work) -> Estimate:
    """Memory of training a policy of that ``architecture``.

    The micro-batch is taken as full: every prompt and every completion as long as they may be. The two phases count
    their own temporaries; the allocator's fragmentation is not counted.
    """
    width, ids = architecture.get_text_config().hidden_size, architecture.get_text_config().vocab_size
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = _build(architecture, policy, work.attention)
        weights = sum(_weight_bytes(name, value, policy) for name, value in model.named_parameters())
        parameters = sum(value.numel() for value in model.parameters())
        trained = sum(value.nbytes for value in model.parameters() if value.requires_grad)
        copy_bytes = _copy_bytes(model, work.bfloat16) if work.initial_copy else 0
        tokens = work.prompt + work.completion
        kept = _kept_for_backward(model, work.micro_batch, tokens, work.bfloat16)
        layers = architecture.get_text_config().num_hidden_layers
        if work.checkpointing:
            _checkpoint(model)
            # While one layer is computed again, its own tensors are there too.
            kept = _kept_for_backward(model, work.micro_batch, tokens, work.bfloat16) + kept // layers
        cache, prefill = _generation(model, work.prompt, work.bfloat16)
    tile = min(TILE_TOKENS, work.micro_batch * work.completion) * min(TILE_IDS, ids)
    head_gradient = 0 if policy.lora else ids * width * torch.float32.itemsize
    held = {
        "weights": weights,
        "gradients": trained,
        "AdamW": ADAMW_MOMENTS * trained,
        "reference model": work.reference * weights,
        "text encoder": work.encoder,
    }
    main_memory = {"memories of the bonuses, when full": work.memories, "copy of the initial policy": copy_bytes}
    rows = work.generation_batch
    return Estimate(
        held={name: size for name, size in held.items() if size},
        training={
            f"activations of {work.micro_batch} x {tokens} tokens": kept,
            "tiles of the output head": tile * TILE_ENTRY_BYTES.get(work.device, TILE_ENTRY_BYTES_OTHER)
            + head_gradient,
        },
        generation={
            f"keys and values of {rows} x {tokens} tokens": math.ceil(rows * tokens * cache * (1 + 1 / layers)),
            "prompts": rows * work.prompt * prefill,
            "scores of the next token": rows * ids * SAMPLING_COPIES * torch.float32.itemsize,
        },
        main_memory={name: size for name, size in main_memory.items() if size},
        parameters=parameters,
        device=work.device,
    )


def savings(architecture: PretrainedConfig, policy: PolicyOptions, work: Work) -> list[tuple[str, int]]:
    """(flag, peak bytes with it and those before it), what changes the experiment least first; none that saves nothing.

    The first three leave the update as it is; the third lets bonuses see half as many completions at a time.
    """
    found, peak = [], estimate(architecture, policy, work).peak
    for choose in (_smaller_micro_batch, _checkpointing, _smaller_generation, _adapter, _shorter):
        choice = choose(policy, work)
        if choice is None:
            continue
        flag, *changed = choice
        after = estimate(architecture, *changed).peak
        if after < peak:
            found.append((flag, after))
            policy, work = changed
            peak = after
    return found


def _smaller_micro_batch(policy: PolicyOptions, work: Work):
    smaller = _half(work.micro_batch)
    return (f"--micro_batch {smaller}", policy, replace(work, micro_batch=smaller)) if smaller else None


def _checkpointing(policy: PolicyOptions, work: Work):
    if work.checkpointing:
        return None
    return "--gradient_checkpointing true", policy, replace(work, checkpointing=True)


def _smaller_generation(policy: PolicyOptions, work: Work):
    smaller = work.generation_batch // 2
    if smaller % work.micro_batch or smaller % work.num_generations:
        return None
    steps = smaller // work.micro_batch
    return f"--steps_per_generation {steps}", policy, replace(work, generation_batch=smaller)


def _adapter(policy: PolicyOptions, work: Work):
    return (
        None
        if policy.lora
        else ("--lora", replace(policy, lora=True), replace(work, reference=False, initial_copy=False))
    )


def _shorter(policy: PolicyOptions, work: Work):
    shorter = work.completion // 2
    return (f"--L {shorter}", policy, replace(work, completion=shorter)) if shorter else None


def _half(count: int) -> int:
    """The largest divisor of ``count`` that is at most half of it; 0 for 1."""
    return next((part for part in range(count // 2, 0, -1) if count % part == 0), 0)


def _build(architecture: PretrainedConfig, policy: PolicyOptions, attention: str | None):
    """The policy, with its adapter, on fake tensors of the CPU; to be called inside a `FakeTensorMode`."""
    with unset_fake_temporarily(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            architecture, dtype=policy.weight_dtype(), attn_implementation=attention
        )
        if policy.lora:  # PEFT moves its layers between devices, which fake tensors refuse
            model = get_peft_model(model, policy.lora_config())
    fake = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is not None:
                    tensors[name] = fake.setdefault(id(value), _fake(value))
    return model.train()


def _fake(value: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(value, device="cpu")
    return torch.nn.Parameter(empty, value.requires_grad) if isinstance(value, torch.nn.Parameter) else empty


def _weight_bytes(name: str, value: torch.Tensor, policy: PolicyOptions) -> int:
    is_quantised = policy.load_in_4bit and value.dim() == 2 and not value.requires_grad
    if is_quantised and "embed" not in name and "lm_head" not in name:
        return math.ceil(value.numel() * FOUR_BITS)
    return value.nbytes


def _copy_bytes(model, bfloat16: bool) -> int:
    whole = sum(value.nbytes for value in model.parameters())
    if not bfloat16:
        return whole
    cast = [value for layer in inner_linear_layers(model) for value in layer.parameters()]
    return whole - sum(value.nbytes - value.numel() * torch.bfloat16.itemsize for value in cast)


def _checkpoint(model) -> None:
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})


def _backbone(model):
    return base_of(model).base_model


@contextmanager
def _autocast(bfloat16: bool) -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        yield


def _kept_for_backward(model, rows: int, tokens: int, bfloat16: bool) -> int:
    """Bytes of the tensors that autograd keeps for the backward pass, the weights themselves left out."""
    weights = {value.untyped_storage()._cdata for value in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that no other storage gets its address
        return tensor

    ids = torch.zeros(rows, tokens, dtype=torch.long)
    with _autocast(bfloat16), saved_tensors_hooks(keep, lambda tensor: tensor):
        _backbone(model)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


def _generation(model, prompt: int, bfloat16: bool) -> tuple[int, int]:
    """Bytes per token of the key-value cache, and of what a layer holds while it reads a prompt."""
    architecture = model.config.get_text_config()
    ids = torch.zeros(1, prompt, dtype=torch.long)
    with torch.no_grad(), _autocast(bfloat16):
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": True}
        output = _backbone(model.eval())(**inputs, past_key_values=compute_type_cache(base_of(model), {}))
    layers = output.past_key_values.layers
    cache = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers) / prompt
    linear = torch.bfloat16 if bfloat16 else output.last_hidden_state.dtype
    inner = getattr(architecture, "intermediate_size", None) or 4 * architecture.hidden_size
    hidden = 4 * architecture.hidden_size * output.last_hidden_state.element_size()
    return math.ceil(cache), 3 * inner * linear.itemsize + hidden
