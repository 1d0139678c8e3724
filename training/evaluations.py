"""Held-out evaluations of a training run: before, during and after it, and what each leads to."""

from pathlib import Path

from accelerate.utils import broadcast_object_list

from evaluation.evaluate import BASE, HeldOut, HeldOutCallback
from evaluation.table import format_metric
from training.best import BestPolicy
from training.trackers import track_evaluation
from training.trainer import IntrinsicGRPOTrainer
from training.watchdogs.callback import WatchdogCallback, print_line

SHOWN = ("accuracy", "false_claims", "mean_length")


class Evaluations:
    """Those of one run with the problems of ``held_out``.

    Args:
        chooses: whether the best policy so far is kept in ``best/`` of ``folder``; not where problems are a test split.
        watchdogs: see every report, as trackers and standard output do.
    """

    def __init__(
        self,
        trainer: IntrinsicGRPOTrainer,
        held_out: HeldOut,
        folder: Path,
        chooses: bool,
        watchdogs: WatchdogCallback,
    ):
        self._trainer, self._held_out, self._watchdogs = trainer, held_out, watchdogs
        self._is_main = trainer.accelerator.is_main_process
        wait = trainer.accelerator.wait_for_everyone
        self._best = BestPolicy(folder / "best", trainer.save_model, self._is_main, wait) if chooses else None

    def before(self, resumes: bool, reuse: bool) -> dict | None:
        """The report before training: that of the run that is resumed, if it has one, else a new one.

        With ``reuse``, what a run beside this one has made of the same is taken for the new one.
        """
        if resumes:
            return self._held_out.load(BASE)
        found = self._taken() if reuse else None
        if found is None:
            return self._evaluate(BASE)
        if self._is_main:
            print(f"held-out evaluation before training: that of {found['taken_from']}", flush=True)
        self._take(found)
        return found

    def _taken(self) -> dict | None:
        """What the main process finds beside this run: a file that appears meanwhile must not divide the processes."""
        found = [self._held_out.take_from(self._held_out.folder.parent.parent) if self._is_main else None]
        broadcast_object_list(found)
        return found[0]

    def every(self, steps: int) -> HeldOutCallback:
        """The callback that evaluates every ``steps`` optimiser steps."""
        trainer = self._trainer
        return HeldOutCallback(self._held_out, trainer.processing_class, steps, trainer.accelerator, self._take)

    def after(self) -> dict:
        """The report of the policy after training."""
        return self._evaluate("after")

    def _evaluate(self, name: str) -> dict:
        trainer = self._trainer
        step = trainer.state.global_step
        report = self._held_out.evaluate(trainer.model, trainer.processing_class, name, step, trainer.accelerator)
        self._take(report)
        return report

    def _take(self, report: dict) -> None:
        if self._best is not None:
            self._best.offer(report)
        self._watchdogs.add_evaluation(report)
        if self._is_main:
            track_evaluation(self._trainer, report["metrics"])
            values = (f"{name} {format_metric(name, report['metrics'][name])}" for name in SHOWN)
            print_line(f"held-out problems at step {report['step']}: {', '.join(values)}")
