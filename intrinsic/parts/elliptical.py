"""Pseudo-counts of hidden states without training (MERCI, --cfn_mode=linear): the elliptical form that a coin-flip
network with a linear head computes in expectation. Plain GRPO counts nothing.
"""

from typing import Any

import torch
from torch import Tensor

from intrinsic.parts.states import TokenStates, chunks


class EllipticalCounts:
    """v(x) = x' (lambda I + sum of past x x')^-1 x, in [0, 1]: the variance that a coin-flip network with a linear
    head, ridge ``ridge`` and a Gaussian prior of variance 1/ridge has in expectation. A state seen n times on its own
    has |x|^2 / (ridge + n |x|^2).

    Args:
        size: H, width of the states.
        device: where they live.
        ridge: lambda, in the units of |x|^2.
    """

    def __init__(self, size: int, device, ridge: float = 1.0):
        # In float64, because the smallest eigenvalue is the ridge and the largest grows with every visit.
        self.precision = ridge * torch.eye(size, dtype=torch.float64, device=device)
        self._whiten()

    @property
    def device(self) -> torch.device:
        return self.precision.device

    def _whiten(self) -> None:
        root = torch.linalg.cholesky(self.precision)
        identity = torch.eye(len(root), dtype=root.dtype, device=root.device)
        self._whitener = torch.linalg.solve_triangular(root, identity, upper=False).float()

    @torch.no_grad()
    def variance(self, states: Tensor | TokenStates) -> Tensor:
        """v (N,) of ``states`` (N, H)."""
        values = [(piece @ self._whitener.T).square().sum(dim=1) for piece in chunks(states)]
        return torch.cat(values).clamp(0.0, 1.0)

    @torch.no_grad()
    def learn(self, states: Tensor | TokenStates) -> tuple[Tensor, dict[str, float]]:
        """Count one visit of each of ``states`` (N, H); returns v (N,) before it, and no further scalars."""
        before = self.variance(states)
        for piece in chunks(states):
            self.precision += (piece.T @ piece).double()
        self._whiten()
        return before, {}

    def state_dict(self) -> dict[str, Any]:
        return {"precision": self.precision.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.precision = state["precision"].to(self.device, torch.float64, copy=True)
        self._whiten()
