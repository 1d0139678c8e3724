"""Trackers (W&B, TensorBoard and their kin): which, what they get, and that they fail without taking the run along."""

import logging
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from numbers import Real
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK

from common.errors import UserError

TRACKERS = "transformers.integrations"

MODULES = {"azure_ml": "azureml", "flyte": "flytekit"}  # trackers whose package has another name than they

logger = logging.getLogger(__name__)


def chosen_trackers(report_to: str | Sequence[str] | None) -> list[str]:
    """The trackers that ``--report_to`` names, separated by commas or as a list, each once; ["none"] for none.

    Raises `UserError` for a tracker that transformers does not know or whose package is not installed, and for "none"
    or "all" beside others.
    """
    texts = [report_to] if isinstance(report_to, str) else report_to or []
    names = list(dict.fromkeys(name.strip() for text in texts for name in text.split(",") if name.strip()))
    names = ["none"] if names == ["None"] else names
    if not names or names in (["none"], ["all"]):
        return names or ["none"]
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            alone = f"{name} stands alone" if name in ("none", "all") else f"{name!r} is no tracker"
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            raise UserError(f"--report_to={','.join(names)}: {alone}; use none, all, or some of {known}.")
        module = MODULES.get(name, name)
        if find_spec(module) is None:
            raise UserError(f"--report_to={name} needs the package {module}; install it, or use --report_to none.")
    return names


class ShieldedTracker(TrainerCallback):
    """A tracker's callback that is left alone from its first error on; ``metrics.jsonl`` holds every value anyway.

    What is logged before training begins waits for it, because trackers learn only then where they write.
    """

    def __init__(self, tracker: TrainerCallback):
        self.tracker = tracker
        self.failed = self._begun = False
        self._waiting: list[tuple[tuple, dict]] = []

    def on_train_begin(self, *args, **kwargs):
        self._call("on_train_begin", *args, **kwargs)
        self._begun = True
        for early, named in self._waiting:
            self.on_log(*early, **named)
        self._waiting = []

    def on_log(self, *args, logs=None, **kwargs):
        if not self._begun:
            self._waiting.append((args, {"logs": logs, **kwargs}))
            return
        # None: no value at this step, such as the mean over right answers of a batch without any.
        known = {name: value for name, value in (logs or {}).items() if value is not None}
        self._call("on_log", *args, logs=known, **kwargs)

    def _call(self, event: str, *args, **kwargs):
        if self.failed:
            return None
        try:
            return getattr(self.tracker, event)(*args, **kwargs)
        except Exception as error:
            self.failed = True
            logger.warning("%s fails and is left out from now on: %s", type(self.tracker).__name__, error)
            return None


def _shielded(event: str):
    def call(self, *args, **kwargs):
        return self._call(event, *args, **kwargs)

    return call


for _event in [name for name in dir(TrainerCallback) if name.startswith("on_") and name not in vars(ShieldedTracker)]:
    setattr(ShieldedTracker, _event, _shielded(_event))


def shield_trackers(trainer: Trainer) -> None:
    """Put each tracker of ``trainer`` behind a `ShieldedTracker`; W&B, which reads its project from a variable, gets
    that of ``--project`` unless ``WANDB_PROJECT`` is set."""
    os.environ.setdefault("WANDB_PROJECT", trainer.args.project)
    callbacks = trainer.callback_handler.callbacks
    for index, callback in enumerate(callbacks):
        if type(callback).__module__.startswith(TRACKERS):
            callbacks[index] = ShieldedTracker(callback)


def track_evaluation(trainer: Trainer, metrics: Mapping[str, Any]) -> None:
    """Send the ``metrics`` of a held-out evaluation to the trackers alone, as ``eval_<name>``; of intervals the mean.

    Trackers show them apart from the values of training batches, under ``eval/``.
    """
    means = {name: value.get("mean") if isinstance(value, Mapping) else value for name, value in metrics.items()}
    logs = {f"eval_{name}": value for name, value in means.items() if isinstance(value, Real)}
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ShieldedTracker):
            callback.on_log(trainer.args, trainer.state, trainer.control, logs=logs, model=trainer.model)
