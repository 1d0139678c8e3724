"""Pass@k training (arXiv 2508.10751, analytical derivation): GRPO whose objective is one right answer in k tries.

Plain GRPO standardises the verdicts of a group; here the verdict of every set of k completions of the group (right if
any of them is) is standardised over all such sets, and a completion gets the mean over the sets it is in. With k = 1
that is GRPO with the population's standard deviation. A closed form replaces the enumeration.

Differences from the authors' program (each on purpose): correctness is a verdict above 0.5, where theirs leaves every
reward that is neither 0 nor 1 in place as its own advantage; groups without a signal are 0 by rule, not by rounding.
"""

import math
from typing import Any

from common.errors import UserError, check_number
from intrinsic.parts.count_objective import CountObjective, right_counts
from intrinsic.rollout import Rollout

EPSILON = 1e-6  # what the authors' program adds to the standard deviation


def share_without(n: int, c: int, k: int) -> float:
    """C(n - c, k) / C(n, k): share of the sets of ``k`` out of ``n`` completions that hold none of ``c`` right ones.

    Exact integers, one rounding; 1 - this is the unbiased pass@k (arXiv 2107.03374, section 2.1). Requires k <= n.
    """
    return math.comb(n - c, k) / math.comb(n, k)


def passk_advantages(n: int, c: int, k: int) -> tuple[float, float]:
    """Advantages of a right and of a wrong completion in a group of ``n`` with ``c`` right ones, float64.

    With rho = pass@k and s = sqrt(rho (1 - rho)), over s + 1e-6:
    ``1 - rho`` if right, ``1 - rho - C(n-c-1, k-1) / C(n-1, k-1)`` if wrong; c A_right + (n - c) A_wrong = 0.
    Both 0 where s is: no right answer, or fewer than k wrong ones, as in a group of fewer than k.
    """
    if c == 0 or n - c < k:
        return 0.0, 0.0
    failing = share_without(n, c, k)
    scale = math.sqrt(failing * (1.0 - failing)) + EPSILON
    return failing / scale, (failing - share_without(n - 1, c, k - 1)) / scale


class PassAtK(CountObjective):
    """``--use_ir=passk``: the closed-form advantage of pass@k, in place of the group advantage.

    Args:
        k: completions that a problem may be tried with.

    Raises `UserError` for a k below 1.
    """

    name = "passk"

    def __init__(self, k: int = 2):
        check_number("passk_k", k, least=1)
        self.k = k

    @classmethod
    def from_options(cls, options) -> "PassAtK":
        return cls(k=options.passk_k)

    def check(self, num_generations: int, max_completion_length: int) -> None:
        """Raise `UserError` unless k is below ``num_generations``: a group of k is one set, which nothing can tell
        from itself, so that every advantage would be 0."""
        if self.k >= num_generations:
            raise UserError(
                f"--passk_k={self.k} must be below the group size --num_generations={num_generations}; "
                "lower the one or raise the other."
            )

    def advantages(self, n: int, c: int) -> tuple[float, float]:
        return passk_advantages(n, c, self.k)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Figures of the batch: those of `CountObjective` and, where groups hold at least k completions, "pass_at_k"
        (mean unbiased pass@k, in [0, 1])."""
        metrics, n = super().update(rollout), rollout.num_generations
        if self.k <= n:
            counts = right_counts(rollout)[1]
            metrics["pass_at_k"] = sum(1.0 - share_without(n, c, self.k) for c in counts) / len(counts)
        return metrics

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "passk_k": self.k}
