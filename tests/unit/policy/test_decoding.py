"""One autocast around a call of ``generate``, and a cache in its type: the same tokens and logits, cast once."""

import copy
import functools
import logging
from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    set_seed,
)

from policy import decoding
from policy.decoding import cast_once, growing_cache
from policy.growing_cache import GrowingCache
from policy.padding import pad_tokens
from policy.precision import Precision

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "phi": (PhiForCausalLM, PhiConfig),
}
BFLOAT16 = Precision(torch.bfloat16, "cpu").autocast
NEW = 8


def build(name="qwen2", attention="sdpa", **settings):
    model_class, config = MODELS[name]
    set_seed(0)
    return model_class(config(**SIZES | settings, attn_implementation=attention)).eval()


def forward_in_autocast(model):
    """As accelerate does it: autocast around each forward pass."""
    usual = model.forward

    @functools.wraps(usual)
    def forward(*args, **kwargs):
        with BFLOAT16():
            return usual(*args, **kwargs)

    model.forward = forward
    return model


def sample(model, around):
    """Tokens, logits of every step, and the cache of one call of ``generate`` on prompts of different length."""
    ids, mask = pad_tokens([[5, 6, 7], [8], [9, 10]], "left", 0, "cpu")
    set_seed(1)
    with around, torch.no_grad():
        found = model.generate(
            input_ids=ids,
            attention_mask=mask.long(),
            do_sample=True,
            top_k=0,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return found.sequences, torch.stack(found.logits), found.past_key_values


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_tokens_and_logits_are_bit_for_bit_those_of_autocast_around_each_pass(name, attention):
    usual = sample(forward_in_autocast(build(name, attention)), nullcontext())
    model = build(name, attention)
    wrapped = forward_in_autocast(build(name, attention))
    for found in (sample(model, cast_once(model, BFLOAT16)), sample(wrapped, cast_once(wrapped, BFLOAT16))):
        assert torch.equal(found[0], usual[0]) and torch.equal(found[1], usual[1])
        assert type(found[2]) is GrowingCache
        for layer, before in zip(found[2].layers, usual[2].layers, strict=True):
            assert layer.keys.dtype == layer.values.dtype == torch.bfloat16
            assert torch.equal(layer.keys, before.keys.bfloat16())
            assert torch.equal(layer.values, before.values.bfloat16())
    assert usual[2].layers[0].keys.dtype == torch.float32  # what the rotary embedding makes of them


def test_float32_has_the_same_logits():
    model = build()
    found = sample(model, cast_once(model, Precision(torch.float32, "cpu").autocast))
    usual = sample(build(), nullcontext())
    assert torch.equal(found[1], usual[1]) and found[2].layers[0].keys.dtype == torch.float32


class CountCasts(TorchDispatchMode):
    """How often a tensor of each shape was cast from float32 to bfloat16."""

    def __init__(self):
        super().__init__()
        self.of = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].dtype is torch.float32 and found.dtype is torch.bfloat16:
            self.of[tuple(found.shape)] += 1
        return found


@pytest.mark.parametrize("adapter", [False, True])
def test_every_weight_is_cast_once_per_call_and_again_in_the_next(adapter):
    model = build(intermediate_size=72)
    if adapter:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    trains = {name: weight.requires_grad for name, weight in model.named_parameters()}
    casts = []
    for _ in range(2):
        with CountCasts() as counted:
            sample(model, cast_once(model, BFLOAT16))
        casts.append(counted.of[(72, 32)])  # up_proj and gate_proj of the two layers
    assert casts == [4, 4]
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == trains
    assert "generate" not in vars(model.get_base_model() if adapter else model)


def test_no_cast_of_a_weight_outlives_an_optimiser_step():
    model, around = build(), cast_once
    before = sample(model, around(model, BFLOAT16))
    optimiser = torch.optim.SGD(model.parameters(), lr=5.0)
    with BFLOAT16():
        model(torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    optimiser.step()
    after = sample(model, around(model, BFLOAT16))
    fresh = build()
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    expected = sample(forward_in_autocast(fresh), nullcontext())
    assert torch.equal(after[1], expected[1]) and not torch.equal(after[1], before[1])


def test_the_context_ends_with_an_error_inside():
    model = build()
    with pytest.raises(KeyError), cast_once(model, BFLOAT16):
        raise KeyError("a sampler that fails")
    assert "generate" not in vars(model) and not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("settings", "asked", "reason"),
    [
        ({}, {"use_cache": False}, "without a cache"),
        ({}, {"cache_implementation": "static"}, "cache_implementation is static"),
        ({}, {"generation_config": GenerationConfig(cache_implementation="offloaded")}, "offloaded"),
        ({}, {"num_beams": 2}, "beam search"),
        ({"attention": "flex_attention"}, {}, "attention flex_attention"),
        ({"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}, {}, "DynamicSlidingWindowLayer"),
    ],
)
def test_other_caches_are_left_alone_and_the_reason_said_once(settings, asked, reason, caplog):
    decoding._say_once.cache_clear()
    model = build(**settings)
    with BFLOAT16(), caplog.at_level(logging.WARNING):
        assert growing_cache(model, asked) is growing_cache(model, asked) is None
    assert len(caplog.records) == 1 and reason in caplog.text


def test_a_sliding_window_model_samples_with_its_own_cache():
    set_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, sliding_window=4)).eval()
    usual = sample(forward_in_autocast(copy.deepcopy(model)), nullcontext())
    found = sample(model, cast_once(model, BFLOAT16))
    assert torch.equal(found[0], usual[0]) and torch.equal(found[1], usual[1])
    assert type(found[2]) is type(usual[2])


def test_a_cache_of_the_caller_is_his_own():
    model = build()
    with BFLOAT16():
        assert growing_cache(model, {"past_key_values": object()}) is None
