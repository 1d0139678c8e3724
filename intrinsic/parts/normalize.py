"""Sliding-window min-max normalisation of a bonus (Memory-R+, arXiv 2504.02273, equation 6), once per batch."""

from typing import Any

import torch
from torch import Tensor

EPS = 1e-8  # added to the range


class WindowMinMax:
    """Scales raw values to [0, 1] with one minimum and maximum over the history and the present batch.

    The paper's window slides sample by sample, so equal raw values of one batch are paid differently by position;
    here the whole batch shares one range, and enters the history afterwards, through `append`.

    Args:
        window: past raw values that are kept.
        resolution: a range up to this is taken for rounding noise and yields 0; set it to the noise of the raws.
    """

    def __init__(self, window: int, resolution: float = 0.0):
        self.window = window
        self.resolution = resolution
        self.history = torch.empty(0)

    def normalize(self, raw: Tensor, present: Tensor) -> Tensor:
        """Normalised copy of ``raw`` (B,), 0 where ``present`` (B,) bool is false; changes nothing.

        Non-finite values are kept out of the range and stay non-finite, so that the finite guard sees them.
        """
        seen = torch.cat([self.history.to(raw), raw[present & raw.isfinite()]])
        low, high = seen.aminmax() if len(seen) else (raw.new_zeros(()), raw.new_zeros(()))
        scale = 1.0 / (high - low + EPS) if high - low > self.resolution else 0.0
        return torch.where(present, (raw - low) * scale, torch.zeros_like(raw))

    def append(self, raws: Tensor) -> None:
        """Add the finite values of ``raws`` (n,) to the history and forget all but the last ``window``."""
        new = raws[raws.isfinite()].detach().to(self.history)
        self.history = torch.cat([self.history, new])[-self.window :]

    def state_dict(self) -> dict[str, Any]:
        """The history, oldest first."""
        return {"history": self.history.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the history."""
        self.history = state["history"].detach().to("cpu", torch.float32).clone()
