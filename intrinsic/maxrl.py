"""Maximum-likelihood training (MaxRL, arXiv 2602.02710): GRPO that climbs the logarithm of the chance of being right.

Plain GRPO divides r - m by the deviation of a group's verdicts, MaxRL by their mean m, so that a problem weighs by one
over its success rate: hard ones count as under maximum likelihood, of which the objective is a truncated series,
log p = -(1 - p) - (1 - p)^2 / 2 - ... to the order of the group.

Differences from the authors' program (each on purpose): the verdict is taken, whatever the rewards; of its estimators
there are two, the one that its experiments run and the series without baselines for any order (`series_advantages`).
"""

from typing import Any

from common.errors import UserError
from intrinsic.parts.count_objective import CountObjective

MEAN = 0  # the order that stands for (r - m) / m


def maxrl_advantages(n: int, c: int) -> tuple[float, float]:
    """(r - m) / m of a right and of a wrong completion, in a group of ``n`` with ``c`` right ones; 0 if all are alike.

    Its expected gradient is that of the series to order n - 1, weight (1 - (1 - p)^(n-1)) / p on the gradient of p: the
    mean that is subtracted costs the last term, as all-wrong groups, where it cannot be, are left out.
    """
    if c in (0, n):
        return 0.0, 0.0
    return (n - c) / c, -1.0


def series_advantages(n: int, c: int, order: int) -> tuple[float, float]:
    """Unbiased estimate of the series to ``order`` T, from a group of ``n`` with ``c`` right and f = n - c wrong ones.

    1 if right, -sum_{k=2}^{min(T, f)} prod_{j=1}^{k-1} (f - j) / (n - j) if wrong: the k-th term is the share of the
    sets of k completions around a wrong one in which nobody is right. The expected gradient is
    (1 - (1 - p)^T) / p times that of p; order 1 is REINFORCE on verdicts of 0 and 1. All-wrong groups get -(T - 1).
    """
    f = n - c
    share, total = 1.0, 0.0
    for k in range(2, min(order, f) + 1):
        share *= (f - k + 1) / (n - k + 1)
        total += share
    return 1.0, -total


class MaxRL(CountObjective):
    """``--use_ir=maxrl``: the advantage of truncated maximum likelihood, in place of the group advantage.

    Args:
        order: `MEAN` for (r - m) / m, or the order of the series.

    Raises `UserError` for a negative order.
    """

    name = "maxrl"

    def __init__(self, order: int = MEAN):
        if order < 0:
            raise UserError(f"--maxrl_order={order} must be 0, for (r - m) / m, or the order of the series, 1 or more.")
        self.order = order

    @classmethod
    def from_options(cls, options) -> "MaxRL":
        return cls(order=options.maxrl_order)

    def check(self, num_generations: int, max_completion_length: int) -> None:
        """Raise `UserError` for an order above the group size, which has no set of so many completions."""
        if self.order > num_generations:
            raise UserError(
                f"--maxrl_order={self.order} is above the group size --num_generations={num_generations}, the highest "
                "order that a group can estimate; lower the one or raise the other."
            )

    def advantages(self, n: int, c: int) -> tuple[float, float]:
        return maxrl_advantages(n, c) if self.order == MEAN else series_advantages(n, c, self.order)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "maxrl_order": self.order}
