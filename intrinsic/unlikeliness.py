"""Unlikeliness reward (arXiv 2506.02355): GRPO whose right answers are paid less the likelier the policy finds them.

Plain GRPO pays every right answer 1 and so strengthens most what is sampled most; here the reward of a right answer
falls with its rank by likelihood in the group, 0 for the least likely of n:

    r_i' = r_i (1 - beta rank_i / n)

Differences from the authors' program (each on purpose): completions of equal likelihood share their mean rank, where
theirs are ranked by position; the same text has one likelihood, whatever rounding makes of it.
"""

from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from intrinsic.base import Bonus
from intrinsic.parts.approaches import numbered
from intrinsic.parts.likelihood import mean_feature
from intrinsic.rollout import Rollout


def mean_ranks(values: Tensor, present: Tensor) -> Tensor:
    """Rank of each of ``values`` (groups, n) among the ``present`` ones of its group, ascending from 0.

    Equal values share the mean of their ranks. What is not present has a rank too, which means nothing.
    """
    # (groups, n) -> (groups, n, n): [g, i, j] compares j with i
    lower = (values[:, None, :] < values[:, :, None]) & present[:, None, :]
    equal = (values[:, None, :] == values[:, :, None]) & present[:, None, :]
    return lower.sum(dim=2) + 0.5 * (equal.sum(dim=2) - 1)


class Unlikeliness(Bonus):
    """``--use_ir=unlikely``: minus beta times the rank by likelihood over n, for right answers.

    Args:
        beta: share of the reward that the likeliest answer of a large group loses, in [0, 1].

    Raises `UserError` for a beta out of range.
    """

    name = "unlikely"
    placement = "reward"
    needs_verdict = True
    measured = "unlikely_right"
    needs = frozenset({"logps"})

    def __init__(self, beta: float = 0.25):
        if not 0.0 <= beta <= 1.0:
            raise UserError(f"--unlikely_beta={beta} must be between 0 and 1, or a right answer could cost.")
        self.beta = beta

    @classmethod
    def from_options(cls, options) -> "Unlikeliness":
        return cls(beta=options.unlikely_beta)

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: right answers with tokens."""
        return (rollout.correct > 0.5) & rollout.completion_mask.any(dim=1)

    def _ranks(self, rollout: Rollout) -> Tensor:
        """(B,) mean rank of each completion by mean log-probability in its group; completions without tokens and with
        a value that is not finite have no part in it."""
        logps, present = mean_feature(rollout, "logps")
        shape = (-1, rollout.num_generations)
        twins = self._of_twins(logps, present, rollout)
        return mean_ranks(twins.view(shape), present.view(shape)).flatten()

    @staticmethod
    def _of_twins(logps: Tensor, present: Tensor, rollout: Rollout) -> Tensor:
        """``logps`` (B,), one and the same for the present completions of a group that are the same text."""
        n = rollout.num_generations
        keys = [
            (row // n, text) if known else None
            for row, (text, known) in enumerate(zip(rollout.completions, present.tolist(), strict=True))
        ]
        first: dict[int, float] = {}
        values = [first.setdefault(number, value) for number, value in zip(numbered(keys), logps.tolist(), strict=True)]
        return torch.where(present, torch.tensor(values, device=logps.device), logps)

    def score(self, rollout: Rollout) -> Tensor:
        """-beta rank / n of right answers, (B,), in (-beta, 0]; 0 for others, NaN where a right one's log-probabilities
        are not finite."""
        values = torch.where(self.eligible(rollout), -self.beta * self._ranks(rollout) / rollout.num_generations, 0.0)
        lost = self.eligible(rollout) & ~mean_feature(rollout, "logps")[1]
        return values.masked_fill(lost, torch.nan)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; "unlikely_right", 1 less the mean rank of right answers over n - 1, where there are any.

        0.5: right answers are as likely as others; below, likelier.
        """
        right = self.eligible(rollout) & mean_feature(rollout, "logps")[1]
        if not right.any() or rollout.num_generations < 2:
            return {}
        return {"unlikely_right": 1.0 - (self._ranks(rollout)[right].mean() / (rollout.num_generations - 1)).item()}

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "unlikely_beta": self.beta}
