"""What --dry_run says of memory and time, without the step that it tries: shapes, counts, limits, advice."""

import dataclasses
from datetime import timedelta
from types import SimpleNamespace

import psutil
import pytest
import torch
from datasets import Dataset
from trl import GRPOTrainer

from cli import dry_run
from common.devices import GIB
from common.errors import RunError
from intrinsic.base import Bonus
from training.fit import out_of_memory
from training.fit import report as fit
from training.fit.estimate import Estimate
from training.fit.out_of_memory import available_bytes, out_of_memory_advice, peak_bytes, work_of
from training.fit.report import Measured, correctness, longest_first, report, worst_config, worst_step
from training.run_options import RunConfig, RunOptions, total_steps

BATCH = {"bs": 2, "num_generations": 4, "L": 12, "bf16": False, "use_cpu": True}


@pytest.fixture
def config_factory(tmp_path):
    return lambda **flags: RunConfig(output_dir=str(tmp_path), report_to="none", **BATCH | flags)


class Hungry(Bonus):
    """Asks for ``needs`` and holds as many bytes as an embedding is wide."""

    name = "hungry"

    def __init__(self, *needs):
        self.needs = frozenset(needs)

    def score(self, rollout):
        return torch.zeros(len(rollout))

    def capacity_bytes(self, embedding_width):
        return embedding_width


class Encoder:
    """A text encoder of a hundred float32 weights, with embeddings of width 7."""

    def __init__(self):
        self.model = torch.nn.Linear(100, 1, bias=False)
        self.model.get_embedding_dimension = lambda: 7


def test_shapes_are_those_of_the_flags(config_factory):
    config = config_factory(gc=3, micro_batch=4, gradient_checkpointing=True)
    work = work_of(RunOptions(), config, [], None, prompt=9)
    assert (work.micro_batch, work.generation_batch, work.num_generations) == (4, 24, 4)
    assert (work.prompt, work.completion, work.device) == (9, 12, "cpu")
    assert work.checkpointing and not work.bfloat16 and work.encoder == work.memories == 0


def test_what_bonuses_and_encoder_hold_is_counted(config_factory):
    bonuses = [Hungry(), Hungry()]
    assert work_of(RunOptions(), config_factory(), bonuses, None, 9).memories == 2 * 128  # the width of the policy
    with_encoder = work_of(RunOptions(), config_factory(), bonuses, Encoder(), 9)
    assert (with_encoder.encoder, with_encoder.memories) == (400, 14)


@pytest.mark.parametrize(
    ("lora", "beta", "needs", "reference", "initial_copy"),
    [
        (False, 0.0, (), False, False),
        (False, 0.1, (), True, False),
        (False, 0.0, ("frozen_hidden",), False, True),
        (False, 0.1, ("frozen_hidden",), True, False),
        (False, 0.0, ("hidden",), False, False),
        (True, 0.1, ("frozen_hidden",), False, False),
    ],
)
def test_weights_are_held_twice_for_the_penalty_or_for_frozen_features(
    lora, beta, needs, reference, initial_copy, config_factory
):
    work = work_of(RunOptions(lora=lora), config_factory(beta=beta), [Hungry(*needs)], None, 9)
    assert (work.reference, work.initial_copy) == (reference, initial_copy)


def test_the_batch_has_the_longest_prompts(tokenizer):
    rows = Dataset.from_list([{"prompt": "7 " * count} for count in (2, 30, 1, 9)])
    batch, tokens = longest_first(rows, tokenizer, 2)
    assert batch["prompt"] == ["7 " * 30, "7 " * 9] and tokens == len(tokenizer("7 " * 30)["input_ids"])


def test_half_of_the_answers_are_right_in_every_group():
    assert correctness(["x"] * 4) == [0.0, 1.0, 0.0, 1.0]


def test_the_tried_step_masks_and_weighs_nothing_and_keeps_the_runs_sampling(config_factory):
    sampling = {"forced_bos_token_id": 5}
    config = config_factory(mask_truncated_completions=True, reward_weights=[1.0, 2.0], generation_kwargs=sampling)
    worst = worst_config(config, "elsewhere", 6)
    assert not worst.mask_truncated_completions and worst.reward_weights is None and worst.save_strategy == "no"
    assert worst.generation_kwargs == {"forced_bos_token_id": 5, "min_new_tokens": 12}
    assert worst.max_steps == 6 and worst.output_dir == "elsewhere"
    assert config.mask_truncated_completions and config.reward_weights == [1.0, 2.0]
    assert config.generation_kwargs == sampling and config.output_dir != "elsewhere"


def test_only_the_steps_of_the_second_generation_batch_are_timed(config_factory, monkeypatch):
    moments = iter([0.0, 10.0, 30.0, 31.0, 33.0])
    monkeypatch.setattr(fit, "now", lambda: next(moments))
    monkeypatch.setattr(fit, "load_policy", lambda *args: None)

    class Trainer:
        def __init__(self, config, callbacks):
            self.config, self.clock = config, callbacks[0]

        def pop_callback(self, callback):
            pass

        def train(self):
            self.clock.on_train_begin(None, None, None)
            for _ in range(self.config.max_steps):
                self.clock.on_step_end(None, None, None)

    run = SimpleNamespace(config=config_factory(num_iterations=2), options=RunOptions())
    run.make_trainer = lambda policy, config, *args, callbacks: Trainer(config, callbacks)
    assert worst_step(run, None, None).seconds == 1.5


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"nepochs": 2.5},
        {"bs": 5},
        {"bs": 5, "nepochs": 3},
        {"gc": 3, "micro_batch": 4},
        {"gc": 2, "num_iterations": 2},
        {"steps_per_generation": 4},
        {"gc": 2, "steps_per_generation": 1},
        {"max_steps": 7},
    ],
    ids=str,
)
def test_steps_are_those_that_the_trainer_takes(flags, config_factory, random_policy, tokenizer):
    config = config_factory(save_strategy="no", **flags)
    rows = Dataset.from_list([{"prompt": f"{number}"} for number in range(17)])
    trainer = GRPOTrainer(random_policy, [correctness], args=config, train_dataset=rows, processing_class=tokenizer)
    *_, expected = trainer.set_initial_training_values(config, trainer.get_train_dataloader())
    assert total_steps(len(rows), config) == expected


@pytest.fixture
def lines(config_factory, monkeypatch):
    """Lines of `report` on a policy of 1000 parameters and 8 x 32 tokens, which takes 1 GiB and 2 seconds a step."""
    config = config_factory(max_steps=50)
    work = dataclasses.replace(work_of(RunOptions(), config, [], None, 20), completion=12)
    expected = Estimate({"weights": GIB}, {}, {}, {}, parameters=1000, device="cpu")
    monkeypatch.setattr(fit, "longest_first", lambda *args: (None, 20))
    monkeypatch.setattr(fit, "work_of", lambda *args: work)
    monkeypatch.setattr(fit, "estimate", lambda *args: expected)
    monkeypatch.setattr(fit, "advice", lambda *args: "less")
    monkeypatch.setattr(fit, "worst_step", lambda *args: Measured(2.0, 3 * GIB))
    run = SimpleNamespace(options=RunOptions(), config=config, bonuses=[], encoder=None)

    def lines(free=2 * GIB, most=1e14):
        monkeypatch.setattr(fit, "available_bytes", lambda device: free)
        monkeypatch.setattr(fit, "MOST_CPU_FLOP", most)
        return list(report(run, [None] * 10, None))

    return lines


def test_the_whole_run_takes_the_measured_seconds_times_its_steps(lines):
    found = lines()
    assert found[-2].startswith("2.00 s for a step") and f"50 steps: at most {timedelta(seconds=100)}" in found[-2]
    assert "3.00 GiB" in found[-3]


def test_a_step_is_tried_on_a_cpu_unless_it_takes_too_many_operations(lines):
    operations = 8 * 1000 * 8 * 32  # two per parameter and token forwards, four backwards, two in generation
    assert "no step was tried" in lines(most=operations - 1)[-2]
    assert "s for a step" in lines(most=operations)[-2]


def test_the_last_line_is_a_verdict(lines):
    assert lines()[-1] == "the run fits: the worst batch was trained on"
    assert lines(most=1)[-1] == "by the estimate the run fits"
    assert lines(free=GIB - 1)[-1] == "by the estimate the run does not fit"


def test_a_step_that_should_not_fit_is_not_tried_on_a_cpu(lines):
    assert "should not fit" in lines(free=GIB - 1)[-3] and "no step was tried" in lines(free=GIB - 1)[-2]
    assert not any("should not fit" in line for line in lines(free=GIB))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the peak is the device's")
def test_the_peak_is_in_bytes():
    assert 0.9 * psutil.Process().memory_info().rss < peak_bytes() < psutil.virtual_memory().total


def test_free_memory_is_what_can_still_be_taken(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5, total=9))
    assert available_bytes(torch.device("cpu")) == 5


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), RunError("NaN"), KeyError("x")], ids=repr)
def test_errors_that_are_not_of_memory_pass_through(error):
    with pytest.raises(type(error)) as caught, out_of_memory_advice(RunOptions(), pytest.fail, pytest.fail):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA out of memory. Tried"), MemoryError()]
)
def test_errors_of_memory_become_advice(error, monkeypatch):
    monkeypatch.setattr(out_of_memory, "advice", lambda options, work: "--lora (about 1.00 GiB)")
    said = r"out of memory at a peak of .*--lora \(about 1.00 GiB\). Go on."
    advised = out_of_memory_advice(RunOptions(), lambda: None, lambda: "Go on.")
    with pytest.raises(RunError, match=said), advised:
        raise error


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ({"bf16": False}, "float32"),
        ({"bf16": True}, "bfloat16 autocast"),
        ({"fp16": True}, "float16 autocast with scaled gradients"),
    ],
)
def test_precision_is_that_of_the_flags(flags, precision):
    config = SimpleNamespace(device=torch.device("cpu"), world_size=2, **{"bf16": False, "fp16": False} | flags)
    assert dry_run.device(config).endswith(f", {precision}, processes: 2")
