"""The generation benchmark at toy size: its bound counts what is read, and its split adds up."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks import generation
from benchmarks.generation import (
    Options,
    bytes_to_decode,
    cache_bytes,
    copy_bandwidth,
    measure,
    run_child,
    sampler_flags,
    summarize,
    table,
    weight_bytes,
)
from benchmarks.shapes import random_policy
from benchmarks.step_split import SECTIONS, StepSplit
from common.errors import UserError
from training.run_options import RunConfig

TOY = {"shape": "toy", "prompts": 1, "generations": 4, "length": 6, "steps": 2, "copy_megabytes": 4}


@pytest.fixture(scope="module")
def full():
    return measure(Options(**TOY), "hf")


@pytest.mark.parametrize(("shape", "published"), [("qwen2.5-0.5b", 494_032_768), ("qwen2.5-1.5b", 1_543_714_304)])
def test_shapes_have_the_published_number_of_weights(shape, published, tokenizer):
    with torch.device("meta"):
        policy = random_policy(shape, tokenizer, torch.bfloat16)
    assert sum(weight.numel() for weight in policy.parameters()) == published
    assert weight_bytes(policy) == 2 * published


def test_an_input_embedding_that_is_not_the_head_is_not_read(tokenizer):
    policy = random_policy("toy", tokenizer, torch.float32)
    tied = weight_bytes(policy)
    policy.lm_head.weight = torch.nn.Parameter(policy.lm_head.weight.clone())
    assert weight_bytes(policy) == tied == sum(weight.nbytes for weight in policy.parameters()) - 1024 * 64 * 4


def test_cache_bytes_are_those_that_a_forward_pass_leaves(tokenizer):
    policy = random_policy("toy", tokenizer, torch.float32)
    cache = policy(torch.ones(1, 5, dtype=torch.long), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert 5 * cache_bytes(policy, itemsize=4) == held


def test_bytes_to_decode_are_those_counted_token_by_token():
    prompts, completions, weights, cache = [3, 5, 4], [2, 6, 1], 1000, 7
    counted = 0
    for step in range(max(completions)):
        counted += weights
        counted += sum(cache * (prompt + step) for prompt, new in zip(prompts, completions, strict=True) if step < new)
    assert bytes_to_decode(prompts, completions, weights, cache) == counted


def test_a_copy_counts_reading_and_writing(monkeypatch):
    moments = iter([0.0, 3.0, 5.0, 9.0, 12.0, 16.0])
    monkeypatch.setattr(generation, "now", lambda: next(moments))
    assert copy_bandwidth(torch.device("cpu"), 1) == 2 * 2**20 / 2.0


def test_a_step_splits_into_sections_that_do_not_overlap(full):
    seconds = full["seconds"]
    assert all(seconds[name] > 0 for name in SECTIONS)
    assert sum(seconds[name] for name in SECTIONS) <= seconds["step"]


def test_speed_and_bound_are_of_the_tokens_generated(full):
    assert 1 <= full["tokens_per_completion"] <= TOY["length"]
    assert full["tokens_per_second"] * full["seconds"]["generation"] == pytest.approx(4 * full["tokens_per_completion"])
    assert full["bound"] > 0 and full["megabytes"] > 0


@pytest.mark.parametrize("half", [False, True])
def test_the_bound_is_the_tokens_over_the_seconds_that_reading_takes(half, tokenizer, monkeypatch):
    policy = random_policy("toy", tokenizer, torch.float32)
    monkeypatch.setattr(generation, "copy_bandwidth", lambda device, megabytes: 1e6)
    accelerator = SimpleNamespace(unwrap_model=lambda model: model, device=torch.device("cpu"))
    args = SimpleNamespace(bf16=half, fp16=False)
    split = StepSplit()
    split.batches = [([9], [9]), ([3, 5], [2, 6]), ([4, 4], [1, 3])]
    split.steps = [dict.fromkeys(("step", *SECTIONS), seconds) for seconds in (100.0, 2.0, 4.0)]
    found = summarize(split, SimpleNamespace(accelerator=accelerator, model=policy, args=args), Options(**TOY))
    read = weight_bytes(policy), cache_bytes(policy, 2 if half else 4)
    seconds = sum(bytes_to_decode(*batch, *read) for batch in split.batches[1:]) / 1e6
    assert found["bound"] == pytest.approx(12 / seconds) and found["tokens_per_second"] == 12 / 6.0
    assert found["tokens_per_completion"] == 3.0 and found["seconds"]["step"] == 3.0


def test_what_no_section_explains_is_the_rest_of_the_step(full):
    run = full | {"seconds": dict.fromkeys(SECTIONS, 1.0) | {"step": 7.5}}
    text = table({"options": vars(Options(**TOY)), "samplers": {"hf": run}})
    cells = text.splitlines()[4].split(" | ")
    assert cells[4:11] == ["7.50", *["1.00"] * 5, "2.50"]


def test_lora_reads_the_adapter_besides_the_weights(full):
    lora = measure(Options(lora=True, **TOY), "hf")
    assert lora["weight_megabytes"] > full["weight_megabytes"]


def test_a_sampler_that_is_not_installed_is_a_row_of_the_table(full, monkeypatch):
    monkeypatch.setattr(generation, "is_vllm_available", lambda: False)
    samplers = {"hf": full, "vllm": run_child("vllm")}
    text = table({"options": vars(Options(**TOY)), "samplers": samplers})
    hf, vllm = text.splitlines()[4:6]
    assert hf.count("|") == vllm.count("|") == 13 and "not installed" in vllm
    assert f"{full['tokens_per_second'] / full['bound']:.1%}" in hf


def test_a_sampler_that_fails_does_not_end_the_others(monkeypatch):
    class Failed:
        returncode, stdout, stderr = 1, "", "Traceback\nValueError: no such cache"

    monkeypatch.setattr("benchmarks.child.subprocess.run", lambda *args, **kwargs: Failed)
    assert run_child("continuous_batching") == {"missing": "failed: ValueError: no such cache"}


@pytest.mark.parametrize("sampler", ["hf", "continuous_batching"])
def test_the_trainer_knows_the_flags_of_a_sampler(sampler, tmp_path):
    config = RunConfig(output_dir=str(tmp_path), **sampler_flags(sampler, 0.2))
    assert config.use_transformers_continuous_batching == (sampler == "continuous_batching")
    assert not config.use_vllm


def test_vllm_and_continuous_batching_get_the_same_share_of_memory():
    assert sampler_flags("vllm", 0.2)["vllm_gpu_memory_utilization"] == 0.2
    config = sampler_flags("continuous_batching", 0.2)["transformers_continuous_batching_config"]
    assert config["max_memory_percent"] == 0.2


def test_main_writes_a_table_per_shape_and_way_of_training(full, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generation, "run_child", lambda sampler: full)
    flags = ["--shape=toy", "--sampler=hf", "--lora", f"--output={tmp_path / 'new' / 'speed'}"]
    monkeypatch.setattr(sys, "argv", ["generation", *flags])
    generation.main()
    assert (tmp_path / "new" / "speed_toy_lora.md").read_text() in capsys.readouterr().out
    assert json.loads((tmp_path / "new" / "speed_toy_lora.json").read_text())["samplers"]["hf"] == full


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"shape": "gpt"}, "--shape='gpt' .* toy"),
        ({"sampler": "hf,sglang"}, "--sampler='sglang' .* vllm"),
        ({"steps": 1}, "--steps=1"),
        ({"length": 0}, "--length=0"),
        ({"memory_share": 1.0}, "--memory_share=1.0"),
    ],
)
def test_bad_flags_are_user_errors(flags, message):
    with pytest.raises(UserError, match=message):
        Options(**flags)
