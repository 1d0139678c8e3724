"""Trackers (W&B, TensorBoard and their kin) that fail without taking the run with them."""

import logging
from collections.abc import Sequence
from importlib.util import find_spec

from transformers import Trainer, TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK

from training.errors import UserError

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
    """A tracker's callback that is left alone from its first error on; ``metrics.jsonl`` holds every value anyway."""

    def __init__(self, tracker: TrainerCallback):
        self.tracker = tracker
        self.failed = False

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


for _event in [name for name in dir(TrainerCallback) if name.startswith("on_")]:
    setattr(ShieldedTracker, _event, _shielded(_event))


def shield_trackers(trainer: Trainer) -> None:
    """Put each tracker of ``trainer`` behind a `ShieldedTracker`."""
    callbacks = trainer.callback_handler.callbacks
    for index, callback in enumerate(callbacks):
        if type(callback).__module__.startswith(TRACKERS):
            callbacks[index] = ShieldedTracker(callback)
