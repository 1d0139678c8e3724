"""Token certainty as a reward (RENT, arXiv 2505.22660): GRPO that pays a policy for low entropy of what it writes.

Plain GRPO standardises verdicts; here u = minus the mean entropy of the distributions that a completion's tokens were
drawn from, in nats, is standardised in the same way, and z(u) is added to the advantage as self-certainty is (``sc``),
or stands alone where no reward has a weight. RENT has no other reward.
"""

from typing import Any

from torch import Tensor

from intrinsic.base import Bonus
from intrinsic.parts.likelihood import mean_feature, means_by_verdict, standardized
from intrinsic.rollout import Rollout


class TokenCertainty(Bonus):
    """``--use_ir=certain``: minus the mean token entropy of each completion, standardised within its group."""

    name = "certain"
    placement = "advantage"
    label_free = True
    measured = "certainty"
    needs = frozenset({"entropy"})

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: completions with tokens."""
        return rollout.completion_mask.any(dim=1)

    def certainty(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """u (B,) in nats per token, 0 or less, and (B,) bool of the eligible rows with a finite u."""
        entropy, present = mean_feature(rollout, "entropy")
        return -entropy, present

    def score(self, rollout: Rollout) -> Tensor:
        """z(u) of each completion within its group, (B,); NaN where u is, for the finite guard to see."""
        return standardized(*self.certainty(rollout), rollout.num_generations)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; "certainty" (mean u before standardisation, nats per token) and its means over right and
        wrong answers, each where the batch has any."""
        return means_by_verdict("certainty", *self.certainty(rollout), rollout.correct)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}
