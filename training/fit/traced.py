"""What weights and passes of a policy hold, traced on fake tensors: they have shapes, and nothing is allocated.

What autograd would keep for the backward pass is counted tensor by tensor, so attention, autocast, adapters and
checkpointing need no formulas of their own.
"""

import copy
import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from typing import NamedTuple

import torch
from peft import get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, PretrainedConfig

from policy.decoding import growing_cache, shares_prefill
from policy.frozen import inner_linear_layers
from policy.load import base_of
from policy.options import PolicyOptions
from policy.shared_attention import Block, SharedRow
from policy.shared_prompts import inputs_of, reason_for_rows, share_prompts

# What `generate` is asked with, in sampling and in evaluations.
ASKED_OF_GENERATE = {"input_ids": torch.empty(0), "attention_mask": torch.empty(0), "use_cache": True}
FOUR_BITS = 0.52  # bytes of a weight in NF4, its share of the scales included


class Pass(NamedTuple):
    """Bytes of a pass: what it keeps for backward, whole and at most when recomputed; of generation, keys and values of
    a token, and what a layer holds of each while it reads a prompt."""

    kept: int
    recomputed: int
    cache: int
    prefill: int


class Weights(NamedTuple):
    """Bytes of weights: all, trained, the casts that autocast makes of trained and of all, the initial copy; whether
    all layers are alike, and whether sampling and training read a prompt once for its completions."""

    all: int
    trained: int
    trained_casts: int
    casts: int
    initial_copy: int
    parameters: int
    layers_alike: bool
    shares_prefill: bool
    shares_prompts: bool


class Key:
    """An architecture and the settings of its policy; keys are equal where these are."""

    def __init__(self, architecture: PretrainedConfig, policy: PolicyOptions):
        self.architecture, self.policy = architecture, policy
        shape = json.dumps(architecture.to_dict(), sort_keys=True, default=str)
        settings = tuple((item.name, getattr(policy, item.name)) for item in fields(PolicyOptions))
        self._identity = type(architecture), shape, settings

    def __eq__(self, other):
        return self._identity == other._identity

    def __hash__(self):
        return hash(self._identity)


def pass_of(
    key: Key,
    attention: str | None,
    bfloat16: bool,
    checkpointing: bool,
    rows: int,
    prompt: int,
    completion: int,
    shared: int,
) -> Pass:
    """Bytes of a pass over ``rows`` completions of so many tokens behind ``shared`` prompts; 0: one prompt for each.

    Equal layers take equally much: then one and two of them are traced instead of all.
    """
    layers = key.architecture.get_text_config().num_hidden_layers
    shape = key, attention, rows, prompt + completion, prompt, shared, bfloat16, checkpointing
    if weights_of(key, attention, bfloat16).layers_alike and layers > 2:
        return _extended(_trace(*shape, 1), _trace(*shape, 2), layers)
    return _trace(*shape, layers)


@lru_cache(maxsize=64)
def weights_of(key: Key, attention: str | None, bfloat16: bool) -> Weights:
    """Bytes of the weights of the policy that ``key`` names."""
    policy = key.policy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = _on_meta(key.architecture, policy, attention)
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
    return Weights(
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


@lru_cache(maxsize=256)
def _trace(key: Key, attention, rows, tokens, prompt, shared, bfloat16, checkpointing, layers: int) -> Pass:
    """What a pass over the first ``layers`` layers keeps for backward, whole and recomputed, and generation holds."""
    architecture = copy.deepcopy(key.architecture)
    text = architecture.get_text_config()
    if layers != text.num_hidden_layers:
        text.num_hidden_layers = layers
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:layers]
    with _fake_mode():
        model = _build(architecture, key.policy, attention)
        inputs = _pass_inputs(model, rows, tokens, prompt, shared, bfloat16)
        kept, recomputed = _kept_for_backward(model, inputs, bfloat16), 0
        if checkpointing:
            _checkpoint(model)
            recomputed = _kept_for_backward(model, inputs, bfloat16)
        return Pass(kept, recomputed, *_generation(model, prompt, bfloat16))


@contextmanager
def _fake_mode() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


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


def _extended(one: Pass, two: Pass, layers: int) -> Pass:
    """What ``layers`` equal layers take, from what one and two of them do."""
    whole = (first + (layers - 1) * (second - first) for first, second in zip(one, two, strict=True))
    return Pass(*whole)


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
