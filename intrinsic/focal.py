"""Difficulty-focal weighting (F-GRPO, arXiv 2602.06717): GRPO whose easy problems weigh less.

Plain GRPO gives a problem that is nearly solved nearly as much weight as a hard one; here the advantages of a group are
multiplied by (1 - c / n)^gamma with c of its n answers right. Which answers of a group are pushed, and how they
compare, stays as it is.
"""

from typing import Any

import torch
from torch import Tensor

from common.errors import check_number
from intrinsic.base import Bonus
from intrinsic.parts.count_objective import right_counts
from intrinsic.rollout import Rollout


def focal_factor(n: int, c: int, gamma: float) -> float:
    """(1 - c / n)^gamma, in [0, 1]: what the advantages of a group of ``n`` with ``c`` right ones are multiplied by."""
    return (1.0 - c / n) ** gamma


class Focal(Bonus):
    """``--use_ir=focal``: the group advantage, multiplied by the focal factor of the group.

    `score` is the factor less 1, so that a weight of 1 is the method and one of 0 plain GRPO. Bonuses that are added
    after the normalisation keep their size: they are joined later.

    Args:
        gamma: how fast weight falls with the share of right answers; 0 for not at all.

    Raises `UserError` for a gamma that is negative or not finite.
    """

    name = "focal"
    placement = "advantage"
    needs_verdict = True
    multiplies = True

    def __init__(self, gamma: float = 0.5):
        check_number("focal_gamma", gamma, least=0)
        self.gamma = gamma

    @classmethod
    def from_options(cls, options) -> "Focal":
        return cls(gamma=options.focal_gamma)

    def score(self, rollout: Rollout) -> Tensor:
        """(1 - c / n)^gamma - 1 of the group of each completion, (B,), in [-1, 0]."""
        n = rollout.num_generations
        _, counts = right_counts(rollout)
        factors = torch.tensor([focal_factor(n, c, self.gamma) for c in counts], device=rollout.device)
        return (factors - 1.0).repeat_interleave(n)  # (groups,) -> (B,)

    def combine(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        """``advantages * (1 + scores)``, both (B,) or (B, T); the factor is not below 0: no weight turns them round."""
        return advantages * (1.0 + scores).clamp(min=0.0)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; "factor", the mean over groups that have right and wrong answers, where there are any."""
        n = rollout.num_generations
        mixed = [focal_factor(n, c, self.gamma) for c in right_counts(rollout)[1] if 0 < c < n]
        return {"factor": sum(mixed) / len(mixed)} if mixed else {}

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "focal_gamma": self.gamma}
