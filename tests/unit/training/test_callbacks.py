"""Callbacks, driven by a real Trainer on a one-parameter model."""

import json
import os
import signal

import pytest
import torch
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState
from trl import RichProgressCallback

from training.callbacks import BarProgress, InterruptCallback, MetricsCallback, PlainProgress, install_progress


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, labels):
        return {"loss": ((self.slope * x - labels) ** 2).mean()}


def build_trainer(folder, *callbacks, **arguments) -> Trainer:
    settings = {"max_steps": 6, "logging_steps": 2, "save_strategy": "no", "report_to": [], "use_cpu": True}
    settings |= {"learning_rate": 0.1, "per_device_train_batch_size": 2}
    rows = [{"x": float(x), "labels": 2.0 * x} for x in range(8)]
    args = TrainingArguments(output_dir=str(folder), **settings | arguments)
    return Trainer(Line(), args, train_dataset=rows, callbacks=list(callbacks))


class Ticks:
    """A clock that moves by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Tick(TrainerCallback):
    """Each optimiser step takes two seconds."""

    def __init__(self, clock):
        self.clock = clock

    def on_step_begin(self, args, state, control, **kwargs):
        self.clock.now += 2.0


class SendSignal(TrainerCallback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)


def records(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_hold_step_epoch_seconds_and_the_logs(tmp_path):
    clock = Ticks()
    build_trainer(tmp_path, Tick(clock), MetricsCallback(tmp_path / "metrics.jsonl", clock)).train()
    *lines, summary = records(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert [line["seconds"] for line in lines] == [4.0, 8.0, 12.0]
    assert lines[1]["epoch"] == 1.0 and lines[0]["loss"] > lines[2]["loss"]
    assert "train_runtime" in summary


def test_metrics_of_a_resumed_run_have_each_step_once_and_the_clock_goes_on(tmp_path):
    first = Ticks()
    callbacks = (Tick(first), MetricsCallback(tmp_path / "metrics.jsonl", first))
    build_trainer(tmp_path, *callbacks, save_strategy="steps", save_steps=3, logging_steps=1).train()
    second = Ticks()
    callbacks = (Tick(second), MetricsCallback(tmp_path / "metrics.jsonl", second))
    resumed = build_trainer(tmp_path, *callbacks, logging_steps=1)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    lines = [line for line in records(tmp_path) if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["seconds"] for line in lines] == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert sum("train_runtime" in line for line in records(tmp_path)) == 1


def test_a_run_that_starts_again_from_nothing_drops_the_metrics_of_the_lost_session(tmp_path):
    for _ in range(2):
        build_trainer(tmp_path, MetricsCallback(tmp_path / "metrics.jsonl")).train()
    assert [line["step"] for line in records(tmp_path) if "loss" in line] == [2, 4, 6]


def test_other_processes_write_neither_metrics_nor_progress(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    state = TrainerState(global_step=2, max_steps=6, is_world_process_zero=False)
    lines = []
    for callback in (MetricsCallback(tmp_path / "metrics.jsonl"), PlainProgress({}, lines.append)):
        callback.on_train_begin(args, state, TrainerControl())
        callback.on_log(args, state, TrainerControl(), logs={"loss": 1.0})
        callback.on_train_end(args, state, TrainerControl())
    assert not (tmp_path / "metrics.jsonl").exists() and lines == []


def test_progress_lines_show_step_columns_speed_and_time_left(tmp_path):
    clock, lines = Ticks(), []
    progress = PlainProgress({"loss": "loss", "reward": "rewards/correctness/mean"}, lines.append, clock)
    build_trainer(tmp_path, Tick(clock), progress, max_steps=12, logging_steps=6).train()
    assert len(lines) == 3
    assert lines[0].startswith("step  6/12  loss ") and lines[0].endswith("  2.00 s/step  ETA 0:00:12")
    assert "reward" not in lines[0]
    assert lines[1].endswith("ETA 0:00:00")
    assert lines[2] == "trained to step 12/12 in 0:00:24"


def test_progress_shows_mean_length_and_evaluation_columns():
    lines = []
    progress = PlainProgress({"reward": "rewards/correctness/mean"}, lines.append, Ticks())
    args, state, control = None, TrainerState(global_step=0, max_steps=100), TrainerControl()
    progress.on_log(args, state, control, logs={"eval_rewards/correctness/mean": 0.25, "eval_loss": 1.0})
    progress.on_train_begin(args, state, control)
    state.global_step = 10
    logs = {"rewards/correctness/mean": 0.123456, "completions/mean_length": 118.25, "loss": 0.0}
    progress.on_log(args, state, control, logs=logs)
    assert lines[0] == "eval at step 0  reward 0.25"
    assert lines[1].startswith("step  10/100  reward 0.1235  length 118.2  ")


def test_time_left_counts_only_steps_of_this_session():
    lines, clock = [], Ticks()
    progress = PlainProgress({}, lines.append, clock)
    state = TrainerState(global_step=90, max_steps=100)
    progress.on_train_begin(None, state, TrainerControl())
    clock.now, state.global_step = 10.0, 95
    progress.on_log(None, state, TrainerControl(), logs={"loss": 1.0})
    assert lines == ["step  95/100  2.00 s/step  ETA 0:00:10"]


def callback_types(trainer) -> set[type]:
    return {type(callback) for callback in trainer.callback_handler.callbacks}


@pytest.mark.fault("F28")
@pytest.mark.parametrize(
    ("is_tty", "disable_tqdm", "present", "absent"),
    [
        (True, False, BarProgress, ProgressCallback),
        (False, False, PlainProgress, ProgressCallback),
        (True, True, PlainProgress, PrinterCallback),
        (False, True, PlainProgress, PrinterCallback),
    ],
)
def test_a_terminal_keeps_its_bar_and_a_log_file_gets_lines(tmp_path, is_tty, disable_tqdm, present, absent):
    trainer = build_trainer(tmp_path, disable_tqdm=disable_tqdm)
    install_progress(trainer, {"loss": "loss"}, is_tty=is_tty)
    assert present in callback_types(trainer) and absent not in callback_types(trainer)


def test_a_terminal_gets_one_short_line_per_log_above_its_bar(tmp_path, capfd):
    trainer = build_trainer(tmp_path, disable_tqdm=False)
    install_progress(trainer, {"loss": "loss"}, is_tty=True)
    trainer.train()
    captured = capfd.readouterr()
    lines = [line.split("\r")[-1] for line in captured.out.splitlines()]
    assert [line.split("  loss")[0] for line in lines] == ["step 2/6", "step 4/6", "step 6/6", lines[3]]
    assert lines[3].startswith("trained to step 6/6 in") and "6/6" in captured.err and "{" not in captured.out


def test_a_display_of_another_kind_is_left_alone(tmp_path):
    trainer = build_trainer(tmp_path, RichProgressCallback())
    trainer.pop_callback(ProgressCallback)
    install_progress(trainer, {}, is_tty=False)
    assert PlainProgress not in callback_types(trainer)


def test_whether_stderr_is_a_terminal_is_asked_when_not_told(tmp_path, monkeypatch):
    for is_tty, expected in ((True, BarProgress), (False, PlainProgress)):
        trainer = build_trainer(tmp_path, disable_tqdm=False)
        monkeypatch.setattr("sys.stderr.isatty", lambda answer=is_tty: answer)
        install_progress(trainer, {})
        assert expected in callback_types(trainer)


@pytest.mark.fault("F23")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_finishes_the_step_saves_and_stops(tmp_path, number, code, capfd):
    before = signal.getsignal(number)
    interrupt = InterruptCallback()
    metrics = MetricsCallback(tmp_path / "metrics.jsonl")
    trainer = build_trainer(tmp_path, interrupt, metrics, SendSignal(number, step=3))
    trainer.train()
    assert trainer.state.global_step == 3
    assert (tmp_path / "checkpoint-3" / "trainer_state.json").is_file()
    assert [line["step"] for line in records(tmp_path)] == [2, 3, 3]
    assert (interrupt.signal, interrupt.exit_code) == (number, code)
    assert signal.getsignal(number) == before
    assert "once more exits at once" in capfd.readouterr().err


def test_a_run_stopped_by_a_signal_ends_where_an_uninterrupted_one_does(tmp_path):
    whole = build_trainer(tmp_path / "whole")
    whole.train()
    build_trainer(tmp_path / "cut", InterruptCallback(), SendSignal(signal.SIGTERM, step=3)).train()
    resumed = build_trainer(tmp_path / "cut", InterruptCallback())
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    assert torch.equal(resumed.model.slope, whole.model.slope)


@pytest.mark.fault("F23")
def test_the_stop_waits_for_the_end_of_a_generation_batch(tmp_path):
    trainer = build_trainer(tmp_path, InterruptCallback(steps_per_generation=4), SendSignal(signal.SIGTERM, step=1))
    trainer.train()
    assert trainer.state.global_step == 4


def test_without_a_signal_the_run_goes_to_its_end_with_exit_code_0(tmp_path):
    interrupt = InterruptCallback()
    trainer = build_trainer(tmp_path, interrupt)
    trainer.train()
    assert trainer.state.global_step == 6 and interrupt.exit_code == 0


@pytest.fixture
def interrupt(monkeypatch):
    """A callback whose handler is called by hand; `exits` collects what would end the process."""
    callback = InterruptCallback(clock=Ticks())
    callback.exits = []
    monkeypatch.setattr(os, "_exit", callback.exits.append)
    return callback


@pytest.mark.fault("F23")
def test_the_same_signal_again_exits_at_once(interrupt):
    interrupt._handle(signal.SIGTERM, None)
    assert interrupt.exits == []
    interrupt._clock.now = 1.0
    interrupt._handle(signal.SIGTERM, None)
    assert interrupt.exits == [143]


def test_one_stop_that_a_launcher_delivers_twice_is_not_taken_for_a_second(interrupt):
    interrupt._handle(signal.SIGTERM, None)
    interrupt._handle(signal.SIGTERM, None)
    interrupt._clock.now = 5.0
    interrupt._handle(signal.SIGINT, None)
    assert interrupt.exits == [] and interrupt.signal == signal.SIGTERM


def test_all_processes_stop_when_one_of_them_got_the_signal(tmp_path, monkeypatch):
    class Args:
        world_size, device = 2, torch.device("cpu")

    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, op: tensor.fill_(signal.SIGTERM))
    callback, control = InterruptCallback(), TrainerControl()
    callback.on_step_end(Args(), TrainerState(global_step=1, max_steps=9), control)
    assert control.should_save and control.should_training_stop and callback.signal == signal.SIGTERM
