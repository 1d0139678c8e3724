"""What the benchmarks of step times measure: which seconds, of which trainer, under which settings."""

import os
from itertools import count
from types import SimpleNamespace

import pytest
from trl import GRPOConfig

from benchmarks import bonus_overhead, step_split, step_time
from benchmarks.bonus_overhead import StepTimes
from benchmarks.step_split import SECTIONS, StepSplit
from policy.chat import render
from policy.load import load_tokenizer
from training.run_options import RunConfig


def nothing(*args, **kwargs):
    return None


def stub_trainer():
    """The parts of a trainer that the clocks watch, each of which does nothing."""
    bonuses = SimpleNamespace(score=nothing, join=nothing, update=nothing)
    return SimpleNamespace(
        bonuses=bonuses,
        accelerator=SimpleNamespace(backward=nothing),
        compute_loss=nothing,
        _features=nothing,
        _capture=SimpleNamespace(_keep_states=nothing, _keep_statistics=nothing),
        _calculate_rewards=nothing,
        _generate_single_turn=lambda prompt_ids: ([[5, 6]],),
    )


def test_seconds_inside_the_bonus_are_those_of_their_step(monkeypatch):
    moments = iter([0.0, 1.0, 3.0, 10.0, 11.0, 12.0, 15.0])
    monkeypatch.setattr(bonus_overhead, "now", lambda: next(moments))
    times = StepTimes()
    for _ in range(2):
        times.on_step_begin(None, None, None)
        times.timed(nothing)()
        times.on_step_end(None, None, None)
    assert times.seconds == [10.0, 5.0] and times.inside == [2.0, 1.0]


def test_features_their_capture_and_every_method_of_the_bonuses_count_as_the_bonus(monkeypatch):
    ticks = count()
    monkeypatch.setattr(bonus_overhead, "now", lambda: float(next(ticks)))
    times, trainer = StepTimes(), stub_trainer()
    times.watch(trainer)
    times.on_step_begin(None, None, None)
    capture, bonuses = trainer._capture, trainer.bonuses
    for function in (trainer._features, capture._keep_states, capture._keep_statistics):
        function()
    for function in (bonuses.score, bonuses.join, bonuses.update):
        function()
    times.on_step_end(None, None, None)
    assert times.inside == [6.0]


def test_every_part_of_a_step_is_in_its_section(monkeypatch):
    ticks = count()
    monkeypatch.setattr(step_split, "now", lambda: float(next(ticks)))
    split, trainer = StepSplit(), stub_trainer()
    split.watch(trainer)
    split.on_step_begin(None, None, None)
    trainer._generate_single_turn([[1, 2, 3]])
    for function in (trainer._calculate_rewards, trainer.bonuses.join, trainer.bonuses.update):
        function()
    trainer.compute_loss()
    trainer.accelerator.backward()
    split.on_pre_optimizer_step(None, None, None)
    split.on_optimizer_step(None, None, None)
    split.on_step_end(None, None, None)
    (step,) = split.steps
    assert {name: step[name] for name in SECTIONS} == dict.fromkeys(SECTIONS, 1.0) | {"rewards": 3.0}
    assert split.batches == [([3], [2])]


@pytest.fixture
def built(monkeypatch):
    """(kind, settings) of every trainer that a benchmark builds; training takes 9, 9, 1, 2, 6 seconds a step."""
    built = []

    def trainer_class(kind):
        class Trainer:
            def __init__(self, policy, args, callbacks, **others):
                built.append((kind, args))
                self.times = callbacks[0]
                self.state = SimpleNamespace(log_history=[{"num_tokens": 50.0}, {"num_tokens": 120.0}, {"loss": 1.0}])
                self.__dict__ |= vars(stub_trainer())

            def train(self):
                self.times.seconds += [9.0, 9.0, 1.0, 2.0, 6.0]
                self.times.inside += [8.0, 8.0, 0.5, 0.25, 0.75]

        return Trainer

    monkeypatch.setattr(step_time, "GRPOTrainer", trainer_class("trl"))
    for benchmark in (step_time, bonus_overhead):
        monkeypatch.setattr(benchmark, "IntrinsicGRPOTrainer", trainer_class("ours"))
    return built


def test_prompts_are_filled_to_the_tokens_asked_for_and_begin_unlike_each_other():
    options = step_time.Options(prompt_tokens=120)
    tokenizer = load_tokenizer(options.model_name)
    texts = [render(row["prompt"], tokenizer) for row in step_time.problems(options).select(range(8))]
    assert all(120 <= len(tokenizer(text).input_ids) < 160 for text in texts)
    own = {text[len(os.path.commonprefix(texts)) :] for text in texts}
    assert len(own) == 8 and all(text.count("Answer: ") >= 3 for text in own)


def test_the_first_two_steps_do_not_count(built):
    found = step_time.measure(step_time.Options(way="ours", steps=5))
    assert found["seconds"] == [1.0, 2.0, 6.0] and found["tokens"] == 24.0
    found = bonus_overhead.measure(bonus_overhead.Options(steps=5), "no")
    assert (found["seconds"], found["inside"]) == (2.0, 0.5)


def test_trainers_compared_differ_in_precision_where_they_say_so_and_else_in_nothing(built):
    for way in step_time.WAYS:
        step_time.measure(step_time.Options(way=way, prompts=3, length=5, beta=0.1, micro_batch=12))
    (trl, usual), (precise, alike), (own, ours) = built
    assert (trl, precise, own) == ("trl", "trl", "ours")
    assert type(usual) is type(alike) is GRPOConfig and type(ours) is RunConfig
    defaults = GRPOConfig(output_dir=usual.output_dir, use_cpu=ours.use_cpu, report_to="none")
    for name in ("bf16", "gradient_checkpointing", "activation_checkpointing"):
        assert getattr(usual, name) == getattr(defaults, name)
    assert alike.bf16 == ours.bf16 and bool(alike.gradient_checkpointing) == bool(ours.activation_checkpointing)
    for name in ("num_generations", "max_completion_length", "beta", "max_steps", "loss_type", "learning_rate", "seed"):
        assert getattr(usual, name) == getattr(alike, name) == getattr(ours, name)
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        assert getattr(usual, name) == getattr(alike, name) == getattr(ours, name) == {"p": 12, "g": 2}[name[0]]
    assert usual.generation_batch_size == alike.generation_batch_size == ours.generation_batch_size == 24
