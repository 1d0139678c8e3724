"""What bonuses share that judge a response by the texts of the past: a raw value, min-max normalised, a reward."""

from collections.abc import Sequence, Sized
from typing import Any

import torch
from torch import Tensor

from intrinsic.base import Bonus
from intrinsic.parts.normalize import WindowMinMax
from intrinsic.parts.once import OncePerRollout
from intrinsic.rollout import Rollout

RAW_RESOLUTION = 1e-6  # of raws: float32 rounding


class AgainstPastTexts(Bonus):
    """``beta`` times the raw value of each response, min-max normalised over a window of past raws and the batch.

    What is kept of past texts, and the raw value of a response beside them, come from a subclass.

    Args:
        window: past raw values in the min-max range, besides the batch.

    Attributes:
        past: what is kept of the past responses, oldest first.
        beta: weight of the normalised value.
    """

    placement = "reward"
    past: Sized
    beta: float = 1.0

    def __init__(self, window: int):
        self.window = WindowMinMax(window, resolution=RAW_RESOLUTION)
        # For `score` and `update`, and a control's score.
        self._raw = OncePerRollout(self.raw)

    def raw(self, rollout: Rollout) -> Tensor:
        """Raw value (B,) of each response beside the past, float32; NaN for an empty response or without a past."""
        raise NotImplementedError

    def store(self, texts: Sequence[str]) -> None:
        """Add ``texts``, none of them empty, to the past, and forget what is beyond its size."""
        raise NotImplementedError

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: responses that are not empty (`Rollout.reasonings`)."""
        return torch.tensor([bool(text) for text in rollout.reasonings], device=rollout.device)

    def score(self, rollout: Rollout) -> Tensor:
        """Weighted, normalised raw of each completion, (B,); 0 for an empty response, and for all without a past."""
        if not self.past:
            return torch.zeros(len(rollout), device=rollout.device)
        return self.beta * self.window.normalize(self._raw(rollout).to(rollout.device), self.eligible(rollout))

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Append the raws that `score` normalised to the window, then store the responses that are not empty.

        Returns the number of past responses after the update ("texts") and, where there were any before, the mean raw
        value of the batch ("unnormalized").
        """
        raw = self._raw(rollout)
        self._raw.forget()  # the past is another one from here on
        self.window.append(raw)
        self.store([text for text in rollout.reasonings if text])
        metrics = {"texts": float(len(self.past))}
        if raw.isfinite().any():
            metrics["unnormalized"] = raw.nanmean().item()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """The window of raw values; a subclass adds the past."""
        return {"window": self.window.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._raw.forget()
        self.window.load_state_dict(state["window"])
