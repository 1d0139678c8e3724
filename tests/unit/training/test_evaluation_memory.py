"""Evaluations take no more memory than training unless they are told to, and the estimate and its advice know them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from transformers import Qwen2Config

from policy.growing_cache import ROOM
from policy.options import PolicyOptions
from training.fit import evaluation as evaluation_memory
from training.fit.estimate import SAMPLING_COPIES, Work, estimate
from training.fit.evaluation import MOST, evaluation_batch, largest_batch
from training.fit.savings import savings

SHAPE = Qwen2Config(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=96,
)
WORK = Work(
    micro_batch=4,
    generation_batch=8,
    num_generations=4,
    prompt=10,
    completion=22,
    bfloat16=False,
    checkpointing=False,
    device="cuda",
    attention="eager",
    reference=False,
)
OPTIONS = SimpleNamespace(model_name="toy", eval_batch_size=0)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setattr(evaluation_memory, "architecture_of", lambda name: SHAPE)
    monkeypatch.setattr(
        evaluation_memory, "estimate", lambda shape, options, work: estimate(shape, PolicyOptions(), work)
    )


@pytest.mark.parametrize(
    ("flag", "do_eval", "device", "expected"),
    [
        (0, True, "cpu", MOST),
        (24, True, "cpu", 24),
        (24, True, "cuda", 24),
        (24, False, "cuda", 0),
        (0, False, "cpu", 0),
    ],
)
def test_the_flag_decides_and_a_cpu_without_it_takes_as_many_as_ever(flag, do_eval, device, expected):
    options, config = SimpleNamespace(model_name="toy", eval_batch_size=flag), SimpleNamespace(do_eval=do_eval)
    assert evaluation_batch(options, config, replace(WORK, device=device)) == expected


def test_on_a_gpu_it_is_the_largest_batch_that_leaves_the_peak_to_training():
    batch = largest_batch(OPTIONS, WORK)
    peaks = [
        estimate(SHAPE, PolicyOptions(), replace(WORK, evaluation_batch=rows)).peak for rows in (0, batch, 2 * batch)
    ]
    assert peaks[0] == peaks[1] < peaks[2] and 1 < batch < MOST
    assert evaluation_batch(OPTIONS, SimpleNamespace(do_eval=True), WORK) == batch
    assert largest_batch(OPTIONS, replace(WORK, micro_batch=512, generation_batch=512)) == MOST


def test_the_phase_holds_keys_values_and_scores_of_its_batch():
    found = estimate(SHAPE, PolicyOptions(), replace(WORK, evaluation_batch=64)).evaluation
    # 64 rows of 32 tokens and the room behind; 2 layers of 2 heads of 8 numbers, keys and values, float32; one layer
    # more while one grows.
    assert found["keys and values of 64 x 32 tokens"] == 64 * (32 + ROOM) * (2 * 2 * 2 * 8 * 4) * 3 // 2
    assert found["scores of the next token"] == 64 * 96 * SAMPLING_COPIES * 4
    assert estimate(SHAPE, PolicyOptions(), WORK).evaluation == {}


def test_where_evaluation_is_the_peak_its_batch_is_what_the_advice_begins_with():
    work = replace(WORK, evaluation_batch=4096)
    whole = estimate(SHAPE, PolicyOptions(), work)
    assert any(line.startswith("evaluation: keys and values of 4096") for line in whole.lines())
    flags = savings(SHAPE, PolicyOptions(), work, limit=whole.peak - 1)
    assert [flag for flag, _ in flags] == ["--eval_batch_size 2048"]
