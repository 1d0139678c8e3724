"""How much memory a training run takes, item by item, from shapes alone: no weight is read and nothing is allocated.

The policy is built and run on fake tensors, which have shapes and no data. What autograd would keep for the backward
pass is counted tensor by tensor, so attention, autocast, adapters and checkpointing need no formulas of their own.
"""

import copy
import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import NamedTuple

import torch
from peft import get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, PretrainedConfig

from policy.decoding import growing_cache, shares_prefill
from policy.frozen import inner_linear_layers
from policy.growing_cache import ROOM
from policy.load import base_of
from policy.options import PolicyOptions
from policy.shared_attention import Block, SharedRow
from policy.shared_prompts import inputs_of, reason_for_rows, share_prompts

ADAMW_MOMENTS = 2
# Output head of TRL: tiles of so many tokens by so many ids, and bytes of one entry, temporaries included.
TILE_TOKENS, TILE_IDS = 4096, 32_768
TILE_ENTRY_BYTES = {"cuda": 2}
TILE_ENTRY_BYTES_OTHER = 26
# Sampling keeps the scores of the next token as logits, warped logits, probabilities and one temporary, in float32.
SAMPLING_COPIES = 4
# What `generate` is asked with, in sampling and in evaluations.
ASKED_OF_GENERATE = {"input_ids": torch.empty(0), "attention_mask": torch.empty(0), "use_cache": True}
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
        initial_copy: whether bonuses hold a copy of the initial policy, see `policy.frozen`.
        encoder: bytes of a text encoder on the same device.
        memories: bytes that bonuses hold in main memory when their memories are full.
        sampling_batch: completions that one call of ``generate`` samples; 0: the whole generation batch.
        captured_states, frozen_states: how many features hold a state of width H of every token, read off the
            generation or of the initial policy.
        mean_states: how many features hold one float32 state of every completion.
        evaluation_batch: completions that held-out evaluations sample at once; 0: there are none.
        whole_groups: whether passes hold completions of a prompt together, which then share it where the policy allows.
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
    sampling_batch: int = 0
    captured_states: int = 0
    frozen_states: int = 0
    mean_states: int = 0
    evaluation_batch: int = 0
    whole_groups: bool = False

    @property
    def prompts(self) -> int:
        """Most distinct prompts of a pass, where each completion does not have its own."""
        if not self.whole_groups:
            return self.micro_batch
        fits = self.micro_batch % self.num_generations == 0 or self.num_generations % self.micro_batch == 0
        return min(self.micro_batch, math.ceil(self.micro_batch / self.num_generations) + (0 if fits else 1))

    @property
    def sampled_at_once(self) -> int:
        return min(self.sampling_batch or self.generation_batch, self.generation_batch)


@dataclass(frozen=True)
class Estimate:
    """Bytes by item: what is always held, what each phase adds to it; and the policy's parameters.

    ``main_memory`` is apart from the device's where there is an accelerator.
    """

    held: dict[str, int]
    training: dict[str, int]
    generation: dict[str, int]
    main_memory: dict[str, int]
    parameters: int
    device: str
    scoring: dict[str, int] = field(default_factory=dict)
    evaluation: dict[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Most bytes of the device at once: training, generation, the bonuses' scores and evaluation take turns."""
        phases = max(sum(phase.values()) for phase in (self.training, self.generation, self.scoring, self.evaluation))
        shared = sum(self.main_memory.values()) if self.device == "cpu" else 0
        return sum(self.held.values()) + phases + shared

    def lines(self) -> Iterator[str]:
        """One line per item, then the peak."""
        phases = {"training": self.training, "generation": self.generation, "scoring": self.scoring}
        phases |= {"evaluation": self.evaluation, "main memory": self.main_memory}
        for phase, items in {"": self.held, **{f"{name}: ": items for name, items in phases.items()}}.items():
            for name, size in items.items():
                yield f"{phase + name:<44} {size / GIB:8.2f} GiB"
        yield f"{'at most at once':<44} {self.peak / GIB:8.2f} GiB"


class _Traced(NamedTuple):
    """Bytes that depend on the shapes of the pass: see `_trace`."""

    kept: int
    recomputed: int
    cache: int
    prefill: int


class _Weights(NamedTuple):
    """Bytes of weights, see `_weights`, whether all layers are alike, and whether sampling and training read a prompt
    once for its completions."""

    all: int
    trained: int
    trained_casts: int
    casts: int
    initial_copy: int
    parameters: int
    layers_alike: bool
    shares_prefill: bool
    shares_prompts: bool


def estimate(architecture: PretrainedConfig, policy: PolicyOptions, work: Work) -> Estimate:
    """Memory of training a policy of that ``architecture``.

    The micro-batch is taken as full: every prompt and every completion as long as they may be. The phases count their
    own temporaries; the allocator's fragmentation is not counted.
    """
    text = architecture.get_text_config()
    width, ids, layers = text.hidden_size, text.vocab_size, text.num_hidden_layers
    key = type(architecture), json.dumps(architecture.to_dict(), sort_keys=True, default=str), _Key(architecture)
    settings = tuple((item.name, getattr(policy, item.name)) for item in fields(PolicyOptions))
    weights = _weights(key, settings, work.attention, work.bfloat16)
    tokens = work.prompt + work.completion
    shared = work.prompts if weights.shares_prompts and work.prompts < work.micro_batch else 0
    shape = work.micro_batch, tokens, work.prompt, shared, work.bfloat16, work.checkpointing
    if weights.layers_alike and layers > 2:
        traced = _extended(*(_trace(key, settings, work.attention, *shape, count) for count in (1, 2)), layers)
    else:
        traced = _trace(key, settings, work.attention, *shape, layers)
    kept = traced.kept
    if work.checkpointing:
        # At the end of the forward pass autocast holds the casts of all weights; later, while one layer is computed
        # again, its own tensors are there, casts included.
        kept = traced.recomputed + max(weights.trained_casts, traced.kept // layers)
    tile = min(TILE_TOKENS, work.micro_batch * work.completion) * min(TILE_IDS, ids)
    head_gradient = 0 if policy.lora else ids * width * torch.float32.itemsize
    state = width * (torch.bfloat16.itemsize if work.bfloat16 else policy.weight_dtype().itemsize)
    states = work.generation_batch * work.completion * state
    on_device = weights.initial_copy if work.initial_copy and work.device != "cpu" else 0
    held = {
        "weights": weights.all,
        "gradients": weights.trained,
        "AdamW": ADAMW_MOMENTS * weights.trained,
        "reference model": work.reference * weights.all,
        "text encoder": work.encoder,
    }

    def sampling(rows: int, completions: int) -> dict[str, int]:
        prompts = math.ceil(rows / completions) if weights.shares_prefill else rows
        return {
            f"keys and values of {rows} x {tokens} tokens": math.ceil(
                rows * (tokens + ROOM) * traced.cache * (1 + 1 / layers)
            ),
            "prompts": prompts * work.prompt * traced.prefill,
            "scores of the next token": rows * ids * SAMPLING_COPIES * torch.float32.itemsize,
            "weights in the compute type": weights.casts,
        }

    generation = sampling(work.sampled_at_once, work.num_generations)
    generation["states for the bonuses"] = work.captured_states * states
    scoring = {
        # What was read off the generation is put together from single steps: twice.
        "states for the bonuses": (2 * work.captured_states + work.frozen_states) * states
        + work.mean_states * work.generation_batch * width * torch.float32.itemsize,
        "copy of the initial policy": on_device,
    }
    main_memory = {
        "memories of the bonuses, when full": work.memories,
        "copy of the initial policy": weights.initial_copy if work.initial_copy else 0,
    }
    return Estimate(
        held=_present(held),
        training={
            f"activations of {_pass_size(work, shared)} tokens": kept,
            "tiles of the output head": tile * TILE_ENTRY_BYTES.get(work.device, TILE_ENTRY_BYTES_OTHER)
            + head_gradient,
        },
        generation=_present(generation),
        main_memory=_present(main_memory),
        parameters=weights.parameters,
        device=work.device,
        scoring=_present(scoring),
        evaluation=_present(sampling(work.evaluation_batch, 1)) if work.evaluation_batch else {},
    )


def _pass_size(work: Work, shared: int) -> str:
    """Rows and tokens of a pass, with ``shared`` prompts of their own or 0."""
    if shared:
        return f"{shared} x {work.prompt} and {work.micro_batch} x {work.completion}"
    return f"{work.micro_batch} x {work.prompt + work.completion}"


def _present(items: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in items.items() if size}


class _Key:
    """An architecture beside its JSON in the key of a cache, itself equal to every other."""

    def __init__(self, architecture: PretrainedConfig):
        self.architecture = architecture

    def __eq__(self, other):
        return isinstance(other, _Key)

    def __hash__(self):
        return 0


@contextmanager
def _fake_mode() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@lru_cache(maxsize=64)
def _weights(key, settings, attention: str | None, bfloat16: bool) -> _Weights:
    """Bytes of the weights: all, trained; casts that autocast makes of trained and of all; the initial copy."""
    policy = PolicyOptions(**dict(settings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = _on_meta(key[-1].architecture, policy, attention)
    linear = {
        id(value): value
        for module in model.modules()
        if isinstance(module, torch.nn.Linear)
        for value in module.parameters(recurse=False)
    }
    cast = [
        value
        for name, value in model.named_parameters()
        if id(value) in linear and value.dtype == torch.float32 and not _is_quantised(name, value, policy)
    ]
    head = model.get_output_embeddings().weight
    if bfloat16 and all(value is not head for value in cast) and head.dtype == torch.float32:
        cast.append(head)
    casts = [(value.numel() * torch.bfloat16.itemsize * bfloat16, value.requires_grad) for value in cast]
    return _Weights(
        all=sum(_weight_bytes(name, value, policy) for name, value in model.named_parameters()),
        trained=sum(value.nbytes for value in model.parameters() if value.requires_grad),
        trained_casts=sum(size for size, is_trained in casts if is_trained),
        casts=sum(size for size, _ in casts),
        initial_copy=_copy_bytes(model, bfloat16),
        parameters=sum(value.numel() for value in model.parameters()),
        layers_alike=_layers_alike(model),
        shares_prefill=shares_prefill(base_of(model), ASKED_OF_GENERATE),
        shares_prompts=reason_for_rows(model) is None,
    )


def _layers_alike(model) -> bool:
    """Whether each layer has the modules and shapes of the first, and attends as the first does."""
    text = model.config.get_text_config()
    layers = getattr(_backbone(model), "layers", None)
    kinds = getattr(text, "layer_types", None) or [None]
    if layers is None or len(layers) != text.num_hidden_layers or len(set(kinds)) > 1:
        return False
    looks = {
        (
            tuple((name, type(module)) for name, module in layer.named_modules()),
            tuple((name, value.shape, value.dtype, value.requires_grad) for name, value in layer.named_parameters()),
        )
        for layer in layers
    }
    return len(looks) == 1


@lru_cache(maxsize=256)
def _trace(key, settings, attention, rows, tokens, prompt, shared, bfloat16, checkpointing, layers: int) -> _Traced:
    """What a pass over the first ``layers`` layers keeps for backward, whole and recomputed, and generation holds."""
    architecture = copy.deepcopy(key[-1].architecture)
    text = architecture.get_text_config()
    if layers != text.num_hidden_layers:
        text.num_hidden_layers = layers
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:layers]
    with _fake_mode():
        model = _build(architecture, PolicyOptions(**dict(settings)), attention)
        inputs = _pass_inputs(model, rows, tokens, prompt, shared, bfloat16)
        kept, recomputed = _kept_for_backward(model, inputs, bfloat16), 0
        if checkpointing:
            _checkpoint(model)
            recomputed = _kept_for_backward(model, inputs, bfloat16)
        return _Traced(kept, recomputed, *_generation(model, prompt, bfloat16))


def _extended(one: _Traced, two: _Traced, layers: int) -> _Traced:
    """What ``layers`` equal layers take, from what one and two of them do."""
    whole = (first + (layers - 1) * (second - first) for first, second in zip(one, two, strict=True))
    return _Traced(*whole)


def _build(architecture: PretrainedConfig, policy: PolicyOptions, attention: str | None):
    """The policy, with its adapter, on fake tensors of the CPU; to be called inside a `FakeTensorMode`."""
    with unset_fake_temporarily():  # PEFT moves its layers between devices, which fake tensors refuse
        model = _on_meta(architecture, policy, attention)
    fake = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is not None:
                    tensors[name] = fake.setdefault(id(value), _fake(value))
    return model.train()


def _on_meta(architecture: PretrainedConfig, policy: PolicyOptions, attention: str | None):
    """The policy, with its adapter, in shapes alone: nothing can be computed with it."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            architecture, dtype=policy.weight_dtype(), attn_implementation=attention
        )
        return get_peft_model(model, policy.lora_config()) if policy.lora else model


def _fake(value: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(value, device="cpu")
    return torch.nn.Parameter(empty, value.requires_grad) if isinstance(value, torch.nn.Parameter) else empty


def _is_quantised(name: str, value: torch.Tensor, policy: PolicyOptions) -> bool:
    is_frozen_matrix = policy.load_in_4bit and value.dim() == 2 and not value.requires_grad
    return is_frozen_matrix and "embed" not in name and "lm_head" not in name


def _weight_bytes(name: str, value: torch.Tensor, policy: PolicyOptions) -> int:
    return math.ceil(value.numel() * FOUR_BITS) if _is_quantised(name, value, policy) else value.nbytes


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


def _pass_inputs(model, rows: int, tokens: int, prompt: int, shared: int, bfloat16: bool) -> dict:
    """Keywords of a forward pass over ``rows`` completions behind ``shared`` prompts; 0: one prompt for each."""
    if not shared:
        ids = torch.zeros(rows, tokens, dtype=torch.long)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    share_prompts(model)
    length = tokens - prompt
    ids = torch.zeros(1, shared * prompt + rows * length, dtype=torch.long)
    owner, last = (torch.zeros(count, dtype=torch.long) for count in (rows, shared))
    mask = torch.zeros(rows, 1, length, tokens, dtype=torch.bfloat16 if bfloat16 else base_of(model).dtype)
    return inputs_of(SharedRow(ids, ids, ids, last, prompt, [Block(list(range(rows)), length, owner, mask)]))


def _kept_for_backward(model, inputs: dict, bfloat16: bool) -> int:
    """Bytes of the tensors that autograd keeps for the backward pass, the weights themselves left out."""
    weights = {value.untyped_storage()._cdata for value in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that no other storage gets its address
        return tensor

    with _autocast(bfloat16), saved_tensors_hooks(keep, lambda tensor: tensor):
        _backbone(model)(**inputs)
    return sum(storage.nbytes() for storage in kept.values())


def _generation(model, prompt: int, bfloat16: bool) -> tuple[int, int]:
    """Bytes per token of the key-value cache, and of what a layer holds while it reads a prompt."""
    architecture = model.config.get_text_config()
    ids = torch.zeros(1, prompt, dtype=torch.long)
    with torch.no_grad(), _autocast(bfloat16):
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": True}
        output = _backbone(model.eval())(**inputs, past_key_values=growing_cache(base_of(model), ASKED_OF_GENERATE))
    layers = output.past_key_values.layers
    cache = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers) / prompt
    linear = torch.bfloat16 if bfloat16 else output.last_hidden_state.dtype
    inner = getattr(architecture, "intermediate_size", None) or 4 * architecture.hidden_size
    hidden = 4 * architecture.hidden_size * output.last_hidden_state.element_size()
    return math.ceil(cache), 3 * inner * linear.itemsize + hidden
