"""What the tests of the objectives share: the group of the published vectors, and the expected gradient."""

from collections.abc import Callable
from math import comb

from intrinsic.base import WeightSchedule
from intrinsic.pipeline import BonusPipeline, reward_advantages

GROUP = [1, 1, 1, 0, 0, 0, 0, 0]


def paid(bonus, rollout, weight: float = 1.0):
    """The (B,) advantages that training would use, verdicts being the only reward."""
    pipeline = BonusPipeline([bonus], [WeightSchedule(weight)])
    before = reward_advantages(rollout.correct[:, None], rollout.correct.new_ones(1), rollout.num_generations, "group")
    return pipeline.join(before, pipeline.score(rollout), rollout)


def gradient_weight(advantages: Callable[[int, int], tuple[float, float]], n: int, p: float) -> float:
    """Expected factor on the gradient of p of a policy that is right with probability ``p``, over groups of ``n``.

    The score of a sample has the mean grad p / p where it is right, and -grad p / (1 - p) where it is wrong.
    """
    total = 0.0
    for c in range(n + 1):
        right, wrong = advantages(n, c)
        total += comb(n, c) * p**c * (1 - p) ** (n - c) * (c * right / p - (n - c) * wrong / (1 - p)) / n
    return total
