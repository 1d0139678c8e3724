"""Token certainty as a reward (RENT, arXiv 2505.22660): GRPO that pays a policy for low entropy of what it writes.

Plain GRPO standardises verdicts; here u = minus the mean entropy of the distributions that a completion's tokens were
drawn from, in nats, is standardised in the same way, and z(u) is added to the advantage as self-certainty is (``sc``),
or stands alone where no reward has a weight. RENT has no other reward.
"""

from typing import Any

from torch import Tensor

from intrinsic.parts.certainty import Certainty
from intrinsic.parts.likelihood import mean_feature, mean_of_cut_off, means_by_verdict
from intrinsic.rollout import Rollout


class TokenCertainty(Certainty):
    """``--use_ir=certain``: minus the mean token entropy of each completion, standardised within its group.

    Args:
        truncated: see `Certainty`.

    Raises `UserError` for an unknown word.
    """

    name = "certain"
    measured = "certainty"
    needs = frozenset({"entropy"})

    @classmethod
    def from_options(cls, options) -> "TokenCertainty":
        return cls(truncated=options.sc_truncated)

    def certainty(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """u (B,) in nats per token, 0 or less, and (B,) bool of the eligible rows with a finite u."""
        entropy, present = mean_feature(rollout, "entropy")
        return -entropy, self.eligible(rollout) & present

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; "certainty" (mean u before standardisation, nats per token), its means over right and wrong
        answers and, paid or not, over completions cut off ("certainty_truncated"), each where the batch has any."""
        values, present = self.certainty(rollout)
        metrics = means_by_verdict("certainty", values, present, rollout.correct)
        return metrics | mean_of_cut_off("certainty", values, rollout)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "sc_truncated": self.truncated}
