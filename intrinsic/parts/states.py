"""The states that MERCI counts: standardised hidden states of response tokens, made a piece at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from intrinsic.parts.networks import cloned

CLAMP = 10.0  # standard deviations
CHUNK = 8192  # states in work at once
SAMPLE = 16_384  # states that the moments are taken from


class StateScale:
    """Standardises hidden states with the moments of the first batch, which then stay: what the counts see of a state
    must not move while they count it.

    Hidden dimensions of language models differ in scale by orders of magnitude; without this the few largest ones,
    nearly constant, would be all that the counts see.
    """

    def __init__(self, mean: Tensor, scale: Tensor):
        self.mean, self.scale = mean, scale

    @classmethod
    def fit(cls, hidden: Tensor, present: Tensor) -> "StateScale":
        """Mean and deviation (H,) of the ``present`` (B, T) tokens' states in ``hidden`` (B, T, H).

        Of more than `SAMPLE` tokens it takes evenly spaced ones; the deviation is raised by a hundredth of its average.
        """
        rows, positions = present.nonzero(as_tuple=True)
        every = -(-len(rows) // SAMPLE)
        states = hidden[rows[::every], positions[::every]].float()
        spread = states.std(dim=0, correction=0)
        floor = 0.01 * spread.mean()
        return cls(states.mean(dim=0), spread + torch.where(floor > 0, floor, torch.ones_like(floor)))

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "StateScale":
        """What `state_dict` returned."""
        return cls(**cloned(state))

    def state_dict(self) -> dict[str, Tensor]:
        """Both moments, (H,) each."""
        return cloned({"mean": self.mean, "scale": self.scale})

    def to(self, device: torch.device) -> "StateScale":
        """This on ``device``."""
        return StateScale(self.mean.to(device), self.scale.to(device))

    def __call__(self, states: Tensor) -> Tensor:
        """Standardised float32 copy of ``states`` (n, H), within `CLAMP` deviations."""
        return ((states.float() - self.mean) / self.scale).clamp(-CLAMP, CLAMP)


class TokenStates:
    """The standardised hidden states of a rollout's finite response tokens, made only for the rows asked for.

    Args:
        hidden: (B, T, H) hidden states.
        present: (B, T) bool, the N tokens to read.
        scale: their standardisation.
    """

    def __init__(self, hidden: Tensor, present: Tensor, scale: StateScale):
        self._flat = hidden.reshape(-1, hidden.size(-1))
        self._positions = present.flatten().nonzero().squeeze(1)
        self._scale = scale
        self.device = hidden.device

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """The states (n, H) of ``rows`` among the N tokens."""
        return self._scale(self._flat[self._positions[rows]])


def chunks(states: Tensor | TokenStates) -> Iterator[Tensor]:
    """``states`` in pieces of at most `CHUNK` rows."""
    for start in range(0, len(states), CHUNK):
        yield states[start : start + CHUNK]
