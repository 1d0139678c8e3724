"""The memory estimate against what the same policy really holds and keeps."""

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from common.devices import GIB
from policy.frozen import FrozenPolicy
from policy.growing_cache import ROOM
from policy.load import EMBEDDED, load_policy
from policy.options import PolicyOptions
from policy.shared_prompts import inputs_of, share_prompts, shared_row
from training.fit import traced
from training.fit.estimate import SAMPLING_COPIES, Work, estimate
from training.fit.savings import savings
from training.fit.traced import FOUR_BITS

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
    # There is room behind the last token, and one layer is copied while it grows.
    assert found == pytest.approx(real * (32 + ROOM) / 32 * (1 + 1 / len(layers)), rel=0.01)


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
    work = replace(WORK, generation_batch=12)
    found = savings(architecture, PolicyOptions(), work)
    first = ["--micro_batch 2", "--gradient_checkpointing true", "--sampling_batch 6"]
    assert [flag for flag, _ in found] == [*first, "--lora", "--L 11"]
    peaks = [estimate(architecture, PolicyOptions(), work).peak, *[peak for _, peak in found]]
    assert peaks == sorted(set(peaks), reverse=True)
    adapter = replace(work, micro_batch=2, checkpointing=True, sampling_batch=6, reference=False)
    assert dict(found)["--lora"] == estimate(architecture, PolicyOptions(lora=True), adapter).peak
    with_all = replace(WORK, micro_batch=1, checkpointing=True)
    left = [flag for flag, _ in savings(architecture, PolicyOptions(lora=True), with_all)]
    assert left == ["--sampling_batch 4", "--L 11"]


def test_where_generation_is_the_peak_it_is_what_the_advice_is_about(architecture):
    work = replace(WORK, micro_batch=1, generation_batch=64, checkpointing=True)
    flags = [flag for flag, _ in savings(architecture, PolicyOptions(), work)]
    assert flags[0] == "--sampling_batch 32"
    states = replace(work, captured_states=1)
    assert "--steps_per_generation 32" in [flag for flag, _ in savings(architecture, PolicyOptions(), states)]
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


def test_advice_goes_on_until_the_peak_is_within_the_limit(architecture):
    work = replace(WORK, generation_batch=64, completion=118, checkpointing=False)
    least = replace(work, micro_batch=1, checkpointing=True, sampling_batch=1)
    limit = estimate(architecture, PolicyOptions(), least).peak
    found = savings(architecture, PolicyOptions(), work, limit)
    flags = [flag.split()[0] for flag, _ in found]
    assert found[-1][1] <= limit < found[-2][1]
    assert flags.count("--sampling_batch") > 1 and not {"--lora", "--L", "--steps_per_generation"} & set(flags)
    once = savings(architecture, PolicyOptions(), work)
    assert savings(architecture, PolicyOptions(), work, once[0][1]) == once[:1]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_one_and_two_layers_take_is_extended_to_what_all_of_them_do(lora, checkpointing, monkeypatch):
    shape = Qwen2Config(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    work = replace(WORK, bfloat16=True, checkpointing=checkpointing, attention="sdpa")
    extended = estimate(shape, PolicyOptions(lora=lora), work)
    weights = traced.weights_of
    monkeypatch.setattr(traced, "weights_of", lambda *key: weights(*key)._replace(layers_alike=False))
    assert estimate(shape, PolicyOptions(lora=lora), work) == extended


def test_layers_that_differ_are_traced_one_by_one():
    shape = Qwen2Config(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["full_attention", "full_attention", "full_attention", "sliding_attention"],
        use_sliding_window=True,
        sliding_window=8,
    )
    with torch.device("meta"):
        assert not traced._layers_alike(AutoModelForCausalLM.from_config(shape))


def test_casts_of_autocast_count_in_generation_and_with_recomputation(architecture):
    policy = load_policy("tiny")
    linear = [module.weight for module in policy.modules() if isinstance(module, torch.nn.Linear)]
    work = replace(WORK, bfloat16=True)
    found = estimate(architecture, PolicyOptions(), work)
    assert found.generation["weights in the compute type"] == 2 * sum(weight.numel() for weight in linear)
    assert "weights in the compute type" not in estimate(architecture, PolicyOptions(), WORK).generation
    short = replace(work, checkpointing=True, micro_batch=1, prompt=1, completion=1)
    assert next(iter(estimate(architecture, PolicyOptions(), short).training.values())) > 2 * sum(
        weight.numel() for weight in linear
    )


@pytest.mark.parametrize("bfloat16", [False, True])
def test_states_and_the_copy_of_the_initial_policy_count_while_bonuses_are_scored(architecture, bfloat16):
    work = replace(WORK, device="cuda", bfloat16=bfloat16, frozen_states=1, mean_states=1, initial_copy=True)
    found = estimate(architecture, PolicyOptions(), work)
    states = torch.empty(8, 22, architecture.hidden_size, dtype=torch.bfloat16 if bfloat16 else torch.float32)
    assert found.scoring == {
        "states for the bonuses": states.nbytes + 4 * 8 * architecture.hidden_size,
        "copy of the initial policy": found.main_memory["copy of the initial policy"],
    }
    read_off = estimate(architecture, PolicyOptions(), replace(WORK, bfloat16=bfloat16, captured_states=1))
    assert read_off.generation["states for the bonuses"] == states.nbytes


def test_keys_values_and_scores_are_those_of_the_completions_sampled_at_once(architecture):
    work = replace(WORK, num_generations=2)
    whole, sliced = (
        estimate(architecture, PolicyOptions(), replace(work, sampling_batch=n)).generation for n in (0, 2)
    )
    assert list(whole.values()) == pytest.approx([4 * size for size in sliced.values()], rel=1e-3)


def test_a_prompt_is_read_once_for_all_its_completions_and_counted_so(architecture):
    work = replace(WORK, evaluation_batch=8)
    found = estimate(architecture, PolicyOptions(), work)
    one = estimate(architecture, PolicyOptions(), replace(work, num_generations=8)).generation["prompts"]
    assert (found.generation["prompts"], found.evaluation["prompts"]) == (2 * one, 8 * one)
    windows = Qwen2Config(**architecture.to_diff_dict() | {"use_sliding_window": True, "max_window_layers": 1})
    assert estimate(windows, PolicyOptions(), work).generation["prompts"] == 8 * one


@pytest.mark.parametrize(("bfloat16", "checkpointing"), [(False, False), (True, True)])
def test_prompts_that_completions_share_are_counted_once_in_training(architecture, bfloat16, checkpointing):
    """Two groups of two: against what autograd really keeps of the pass; recomputed, against rows of their own."""
    work = replace(WORK, num_generations=2, whole_groups=True, bfloat16=bfloat16, checkpointing=checkpointing)
    key = "activations of 2 x 10 and 4 x 22 tokens"
    found = estimate(architecture, PolicyOptions(), work).training[key]
    rows = estimate(architecture, PolicyOptions(), replace(work, whole_groups=False))
    assert found < rows.training["activations of 4 x 32 tokens"]
    if checkpointing:
        return
    model, kept = load_policy("tiny", PolicyOptions(attn_implementation="eager")).train(), {}
    share_prompts(model)
    prompts = torch.arange(10, 30).view(2, 10).repeat_interleave(2, dim=0)
    completions = torch.arange(88).view(4, 22)
    row = shared_row(prompts, torch.ones_like(prompts), completions, torch.ones_like(completions), torch.float32)
    weights = {value.data_ptr() for value in model.parameters()}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.base_model(**inputs_of(row))
    assert found == pytest.approx(sum(storage.nbytes() for storage in kept.values()), rel=0.02)
    del output


def test_a_micro_batch_that_cuts_groups_may_meet_one_prompt_more():
    work = replace(WORK, whole_groups=True)
    sizes = {1: 1, 2: 1, 4: 1, 6: 3, 8: 2}
    assert {size: replace(work, micro_batch=size).prompts for size in sizes} == sizes
    assert WORK.prompts == WORK.micro_batch
