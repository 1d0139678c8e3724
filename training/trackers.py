"""Trackers (W&B, TensorBoard and their kin) that fail without taking the run with them."""

import logging

from transformers import Trainer, TrainerCallback

TRACKERS = "transformers.integrations"

logger = logging.getLogger(__name__)


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
