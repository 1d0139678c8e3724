"""Objectives of the group's count: an advantage that the verdict and the number of right answers in the group decide.

Plain GRPO on verdicts is one of them, `grpo_advantages`; those of `--use_ir` put other numbers in its place. A subclass
says which, by `CountObjective.advantages`; everything else is shared.
"""

import math

import torch
from torch import Tensor

from intrinsic.base import Bonus
from intrinsic.rollout import Rollout

EPSILON = 1e-4  # what TRL 1.16 adds to the standard deviation


def grpo_advantages(n: int, c: int) -> tuple[float, float]:
    """Plain GRPO's advantages of a right and of a wrong completion in a group of ``n`` with ``c`` right ones.

    (r - m) / (s + 1e-4) with m = c / n and s the sample standard deviation of the verdicts r; both 0 where all are
    alike.
    """
    if c in (0, n):
        return 0.0, 0.0
    mean = c / n
    deviation = math.sqrt(mean * (1.0 - mean) * n / (n - 1)) + EPSILON
    return (1.0 - mean) / deviation, -mean / deviation


def right_counts(rollout: Rollout) -> tuple[Tensor, list[int]]:
    """The verdicts as (groups, n) bool, and the number of right completions of each group."""
    right = rollout.correct.view(-1, rollout.num_generations) > 0.5  # (B,) -> (groups, n)
    return right, right.sum(dim=1).tolist()


class CountObjective(Bonus):
    """An advantage in place of GRPO's that is the same for all right, and for all wrong, completions of a group."""

    placement = "advantage"
    needs_verdict = True
    replaces = True

    def advantages(self, n: int, c: int) -> tuple[float, float]:
        """Advantages of a right and of a wrong completion in a group of ``n`` with ``c`` right ones, float64."""
        raise NotImplementedError

    def score(self, rollout: Rollout) -> Tensor:
        """The advantage of each completion, (B,)."""
        right, counts = right_counts(rollout)
        pairs = [self.advantages(rollout.num_generations, c) for c in counts]
        values = torch.tensor(pairs, dtype=torch.float32, device=rollout.device)  # (groups, 2)
        return torch.where(right, values[:, :1], values[:, 1:]).flatten()

    def combine(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        """``scores``: the group's own ``advantages``, and every reward in them, are dropped; the pipeline adds what a
        weight below 1 leaves of them."""
        return scores

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; figures of the batch.

        Returns "groups_with_signal" (share of groups whose advantages are not all 0) and "largest" (size of the
        largest advantage of the batch, before the weight).
        """
        sizes = self.score(rollout).abs().view(-1, rollout.num_generations)
        return {
            "groups_with_signal": (sizes > 0).any(dim=1).float().mean().item(),
            "largest": sizes.max().item(),
        }
