"""The memory estimate against what the same policy really holds and keeps."""

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from training.frozen_policy import FrozenPolicy
from training.memory_estimate import FOUR_BITS, GIB, SAMPLING_COPIES, Work, estimate, savings
from training.policy import EMBEDDED, PolicyOptions, load_policy

WORK = Work(
    micro_batch=4,
    generation_batch=8,
    num_generations=4,
    prompt=10,
    completion=22,
    bfloat16=False,
    checkpointing=False,
    device="cpu",
    attention="eager",
    reference=True,
)


@pytest.fixture(scope="module")
def architecture():
    return AutoConfig.from_pretrained(EMBEDDED)


def kept_bytes(model, rows, tokens, bfloat16):
    """What autograd really keeps of a real forward pass of the backbone, weights left out."""
    weights, kept = {value.data_ptr() for value in model.parameters()}, {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    ids = torch.zeros(rows, tokens, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16), saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    size = sum(storage.nbytes() for storage in kept.values())
    del output
    return size


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_activations_are_those_that_autograd_keeps(architecture, bfloat16, attention):
    model = load_policy("tiny", PolicyOptions(attn_implementation=attention)).train()
    work = replace(WORK, bfloat16=bfloat16, attention=attention)
    found = estimate(architecture, PolicyOptions(), work).training["activations of 4 x 32 tokens"]
    assert found == pytest.approx(kept_bytes(model, 4, 32, bfloat16), rel=0.02)


def test_state_is_counted_by_what_is_trained(architecture):
    parameters = load_policy("tiny").num_parameters()
    held = estimate(architecture, PolicyOptions(), WORK).held
    size = 4 * parameters
    copies = {"weights": size, "gradients": size, "AdamW": 2 * size, "reference model": size}
    assert held == copies
    adapter = estimate(architecture, PolicyOptions(lora=True, lora_r=4), replace(WORK, reference=False)).held
    assert adapter["AdamW"] == 2 * adapter["gradients"] < 0.2 * size
    assert adapter["weights"] == size + adapter["gradients"]


def test_cache_of_generation_is_that_of_the_model(architecture):
    model = load_policy("tiny").eval()
    ids = torch.zeros(8, 32, dtype=torch.long)
    layers = model(input_ids=ids, use_cache=True).past_key_values.layers
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    found = estimate(architecture, PolicyOptions(), WORK).generation["keys and values of 8 x 32 tokens"]
    # One layer is copied while it grows.
    assert found == pytest.approx(real * (1 + 1 / len(layers)), rel=0.01)


def test_weights_in_four_bits_are_the_frozen_ones_of_the_layers_alone(architecture, monkeypatch):
    monkeypatch.setattr(PolicyOptions, "_check_4bit", lambda self: None)
    options = PolicyOptions(lora=True, dtype="float32"), PolicyOptions(lora=True, dtype="float32", load_in_4bit=True)
    whole, quantised = (estimate(architecture, policy, WORK).held["weights"] for policy in options)
    layers = load_policy("tiny").model.layers
    matrices = sum(module.weight.numel() for module in layers.modules() if isinstance(module, torch.nn.Linear))
    assert whole - quantised == pytest.approx(matrices * (4 - FOUR_BITS), rel=1e-3)


def test_the_output_head_takes_tiles_of_a_micro_batch_and_when_trained_its_gradient(architecture):
    def head(policy, **changes):
        return estimate(architecture, policy, replace(WORK, **changes)).training["tiles of the output head"]

    adapter = PolicyOptions(lora=True)
    assert head(PolicyOptions()) - head(adapter) == 4 * architecture.vocab_size * architecture.hidden_size
    assert head(adapter, micro_batch=2) == head(adapter) / 2
    assert head(adapter, device="cuda") < head(adapter)


def test_scores_of_the_next_token_are_float32_of_every_completion(architecture):
    scores = torch.empty(SAMPLING_COPIES, WORK.generation_batch, architecture.vocab_size)
    assert estimate(architecture, PolicyOptions(), WORK).generation["scores of the next token"] == scores.nbytes


def test_the_text_encoder_counts_on_every_device_and_is_printed_in_gib(architecture):
    for device in ("cpu", "cuda"):
        without, found = (
            estimate(architecture, PolicyOptions(), replace(WORK, device=device, encoder=size)) for size in (0, 3 * GIB)
        )
        assert found.peak == without.peak + 3 * GIB
        assert [line.split()[-2:] for line in found.lines() if "text encoder" in line] == [["3.00", "GiB"]]


def test_less_is_kept_with_checkpointing_and_smaller_micro_batches(architecture):
    def activations(**changes):
        return next(iter(estimate(architecture, PolicyOptions(), replace(WORK, **changes)).training.values()))

    # Recomputing a layer brings back its own activations.
    assert activations() / architecture.num_hidden_layers < activations(checkpointing=True) < 0.5 * activations()
    assert activations(micro_batch=2) == pytest.approx(0.5 * activations(), rel=0.05)


def test_main_memory_counts_where_it_is_the_device(architecture):
    with_memory = estimate(architecture, PolicyOptions(), replace(WORK, memories=10**6))
    assert with_memory.peak == estimate(architecture, PolicyOptions(), WORK).peak + 10**6
    on_gpu = [estimate(architecture, PolicyOptions(), replace(WORK, device="cuda", memories=n)) for n in (0, 10**6)]
    assert on_gpu[0].peak == on_gpu[1].peak < with_memory.peak
    assert any("memories of the bonuses" in line for line in with_memory.lines())


@pytest.mark.parametrize("bfloat16", [False, True])
def test_copy_of_the_initial_policy_is_counted_in_main_memory_as_it_is_held(architecture, bfloat16):
    policy = load_policy("tiny")
    cast = torch.bfloat16 if bfloat16 else torch.float32
    frozen = FrozenPolicy(policy, has_reference=False, uses_adapter=False, cast=cast)
    frozen.attach(policy, None, 1.0, 4, "cpu", lambda: torch.autocast("cpu", torch.bfloat16, enabled=bfloat16))
    real = sum(value.nbytes for value in frozen._copy.parameters())
    work = replace(WORK, bfloat16=bfloat16, initial_copy=True)
    on_cpu, on_gpu = (estimate(architecture, PolicyOptions(), replace(work, device=name)) for name in ("cpu", "cuda"))
    assert on_cpu.main_memory == on_gpu.main_memory == {"copy of the initial policy": real}
    without = replace(work, initial_copy=False)
    assert on_cpu.peak == estimate(architecture, PolicyOptions(), without).peak + real
    assert on_gpu.peak == estimate(architecture, PolicyOptions(), replace(without, device="cuda")).peak


def test_advice_comes_in_order_and_each_flag_takes_less(architecture):
    found = savings(architecture, PolicyOptions(), WORK)
    first = ["--micro_batch 2", "--gradient_checkpointing true", "--steps_per_generation 2"]
    assert [flag for flag, _ in found] == [*first, "--lora", "--L 11"]
    peaks = [estimate(architecture, PolicyOptions(), WORK).peak, *[peak for _, peak in found]]
    assert peaks == sorted(set(peaks), reverse=True)
    adapter = replace(WORK, micro_batch=2, checkpointing=True, generation_batch=4, reference=False)
    assert dict(found)["--lora"] == estimate(architecture, PolicyOptions(lora=True), adapter).peak
    with_all = replace(WORK, micro_batch=1, checkpointing=True)
    left = [flag for flag, _ in savings(architecture, PolicyOptions(lora=True), with_all)]
    assert left == ["--steps_per_generation 4", "--L 11"]


def test_where_generation_is_the_peak_it_is_what_the_advice_is_about(architecture):
    work = replace(WORK, micro_batch=1, generation_batch=64, checkpointing=True)
    flags = [flag for flag, _ in savings(architecture, PolicyOptions(), work)]
    assert flags[0] == "--steps_per_generation 32"
    odd_groups = replace(work, generation_batch=6, num_generations=6)
    assert not any("per_generation" in flag for flag, _ in savings(architecture, PolicyOptions(), odd_groups))


def test_no_weight_is_allocated_for_a_large_policy():
    shape = Qwen2Config(
        vocab_size=152_064,
        hidden_size=8192,
        intermediate_size=29_568,
        num_hidden_layers=4,
        num_attention_heads=64,
        num_key_value_heads=8,
    )
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(shape).num_parameters()
    found = estimate(shape, PolicyOptions(), replace(WORK, attention=None))
    assert found.parameters == parameters and found.held["weights"] == 4 * parameters > 16 * 2**30
