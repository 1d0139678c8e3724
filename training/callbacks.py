"""Trainer callbacks: metrics file, one short line of progress per log, and a clean stop on SIGINT or SIGTERM."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from training.run_folder import MetricsFile
from training.watchdogs.callback import print_line

LENGTH_KEY = "completions/mean_length"


class MetricsCallback(TrainerCallback):
    """Appends every log of the trainer to ``metrics.jsonl``, on the main process.

    A record holds step, epoch, seconds of training so far (earlier sessions included) and the logged values. When
    training begins, records beyond the step it begins at are dropped: they belong to an interrupted session.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic):
        self.file = MetricsFile(path)
        self._clock = clock
        self._start = clock()

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            kept = self.file.truncate_after(state.global_step)
            earlier = max((record.get("seconds") or 0.0 for record in kept), default=0.0)
            self._start = self._clock() - (earlier if state.global_step else 0.0)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            seconds = round(self._clock() - self._start, 3)
            self.file.write({"step": state.global_step, "epoch": state.epoch, "seconds": seconds, **(logs or {})})

    def on_train_end(self, args, state, control, **kwargs):
        self.file.close()


class PlainProgress(TrainerCallback):
    """Progress in plain lines, one per log, for log files: step, chosen columns, seconds per step, time left.

    Args:
        keys: label -> name of a logged value; values that a log does not hold are left out of its line.
        out: where a line goes.
        clock: seconds.
    """

    def __init__(
        self,
        keys: dict[str, str],
        out: Callable[[str], object] = lambda line: print(line, flush=True),
        clock: Callable[[], float] = time.monotonic,
    ):
        self.keys = {**keys, "length": LENGTH_KEY} if LENGTH_KEY not in keys.values() else dict(keys)
        self._out = out
        self._clock = clock

    def on_train_begin(self, args, state, control, **kwargs):
        self._first_step = self._last_step = state.global_step
        self._first_time = self._last_time = self._clock()

    def on_log(self, args, state, control, logs=None, **kwargs):
        logs = logs or {}
        if not state.is_world_process_zero or "train_runtime" in logs:
            return
        if any(name.startswith("eval_") for name in logs):
            self._out("  ".join([f"eval at step {state.global_step}", *self._columns(logs, "eval_")]))
        elif state.global_step > self._last_step:
            self._out("  ".join([f"step {self._count(state)}", *self._columns(logs), *self._timing(state)]))

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._out(f"trained to step {self._count(state)} in {_duration(self._clock() - self._first_time)}")

    def _columns(self, logs: dict, prefix: str = "") -> list[str]:
        values = {label: logs.get(prefix + name) for label, name in self.keys.items()}
        return [f"{label} {value:.4g}" for label, value in values.items() if value is not None]

    def _timing(self, state) -> list[str]:
        now = self._clock()
        per_step = (now - self._last_time) / (state.global_step - self._last_step)
        mean = (now - self._first_time) / (state.global_step - self._first_step)
        self._last_step, self._last_time = state.global_step, now
        return [f"{per_step:.2f} s/step", f"ETA {_duration(mean * (state.max_steps - state.global_step))}"]

    @staticmethod
    def _count(state) -> str:
        return f"{state.global_step:>{len(str(state.max_steps))}}/{state.max_steps}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


class BarProgress(ProgressCallback):
    """The Trainer's bar with the lines of `PlainProgress` above it, where the base class prints every logged value."""

    def __init__(self, keys: dict[str, str]):
        super().__init__()
        self._lines = PlainProgress(keys, out=print_line)

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._lines.on_train_begin(args, state, control, **kwargs)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self._lines.on_log(args, state, control, logs=logs, **kwargs)

    def on_train_end(self, args, state, control, **kwargs):
        super().on_train_end(args, state, control, **kwargs)
        self._lines.on_train_end(args, state, control, **kwargs)


def install_progress(trainer: Trainer, keys: dict[str, str], is_tty: bool | None = None) -> None:
    """Put `BarProgress` in the place of the Trainer's bar; off a terminal, or with ``disable_tqdm``, `PlainProgress`.

    A notebook table or TRL's `RichProgressCallback`, which are neither bar nor printer, stay. ``is_tty``: whether
    stderr, where the bar is drawn, is a terminal; None asks it.
    """
    on_terminal = sys.stderr.isatty() if is_tty is None else is_tty
    default = PrinterCallback if trainer.args.disable_tqdm else ProgressCallback
    kind = BarProgress if on_terminal and default is ProgressCallback else PlainProgress
    if trainer.pop_callback(default) is not None:
        trainer.add_callback(kind(keys))


class InterruptCallback(TrainerCallback):
    """Stops cleanly on SIGINT or SIGTERM: the first finishes the step, logs, saves and stops; again exits at once.

    "Again" is the same signal, `REPEAT_SECONDS` or more later: launchers forward one Ctrl-C as SIGINT and SIGTERM,
    and ``timeout`` sends its signal to the process and to its group. On several processes all stop at the same step.

    Args:
        steps_per_generation: optimiser steps fed by one generation batch. Generation buffers are not saved, so only
            a stop on a multiple of it lets a resumed run equal an uninterrupted one.
        clock: seconds.

    Attributes:
        signal: number of the signal that stopped training, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)
    REPEAT_SECONDS = 0.5

    def __init__(self, steps_per_generation: int = 1, clock: Callable[[], float] = time.monotonic):
        self.signal: int | None = None
        self._steps_per_generation = steps_per_generation
        self._clock = clock
        self._received: dict[int, float] = {}
        self._previous: dict[int, object] = {}

    @property
    def exit_code(self) -> int:
        """0 when nothing stopped training, else 128 + signal: 130 for SIGINT, 143 for SIGTERM."""
        return 0 if self.signal is None else 128 + self.signal

    def on_train_begin(self, args, state, control, **kwargs):
        # Python allows handlers in the main thread only; elsewhere the thread that owns the signals decides.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in self.SIGNALS}

    def on_train_end(self, args, state, control, **kwargs):
        self.restore()

    def restore(self) -> None:
        """Give the signals back to the handlers from before training; needed only after training raised."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def on_step_end(self, args, state, control, **kwargs):
        self.signal = self._agree(args)
        if self.signal is not None and state.global_step % self._steps_per_generation == 0:
            control.should_log = True
            control.should_save = True
            control.should_training_stop = True

    def _handle(self, number: int, frame) -> None:
        now = self._clock()
        if number in self._received and now - self._received[number] >= self.REPEAT_SECONDS:
            os._exit(128 + number)
        if not self._received:
            # os.write, because print is not safe inside a signal handler.
            name = signal.Signals(number).name
            os.write(2, f"{name}: finishing the step and saving; once more exits at once\n".encode())
            self.signal = number
        self._received.setdefault(number, now)

    def _agree(self, args) -> int | None:
        """The signal that any process got; a rank that stopped alone would leave the others waiting for it."""
        if args.world_size == 1:
            return self.signal
        number = torch.tensor(self.signal or 0, device=args.device)
        torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
        return int(number) or None
