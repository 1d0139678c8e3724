"""Token certainty as a reward (RENT, arXiv 2505.22660): GRPO that pays a policy for low entropy of what it writes.

Plain GRPO standardises verdicts; here u = minus the mean entropy of the distributions that a completion's tokens were
drawn from, in nats, is standardised in the same way, and z(u) is added to the advantage as self-certainty is (``sc``),
or stands alone where no reward has a weight. RENT has no other reward.
"""

from typing import Any

from torch import Tensor

from common.errors import check_choice
from intrinsic.base import Bonus
from intrinsic.parts.eligible import TRUNCATED, with_tokens
from intrinsic.parts.likelihood import mean_feature, mean_of_cut_off, means_by_verdict, standardized
from intrinsic.rollout import Rollout


class TokenCertainty(Bonus):
    """``--use_ir=certain``: minus the mean token entropy of each completion, standardised within its group.

    Args:
        truncated: "pay" completions that were cut off at the length limit like others, or "skip" them: they enter
            neither mean nor deviation of their group and get 0.

    Raises `UserError` for an unknown word.
    """

    name = "certain"
    placement = "advantage"
    label_free = True
    measured = "certainty"
    needs = frozenset({"entropy"})

    def __init__(self, truncated: str = "pay"):
        check_choice("sc_truncated", truncated, TRUNCATED)
        self.truncated = truncated

    @classmethod
    def from_options(cls, options) -> "TokenCertainty":
        return cls(truncated=options.sc_truncated)

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: see `with_tokens`."""
        return with_tokens(rollout, self.truncated)

    def certainty(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """u (B,) in nats per token, 0 or less, and (B,) bool of the eligible rows with a finite u."""
        entropy, present = mean_feature(rollout, "entropy")
        return -entropy, self.eligible(rollout) & present

    def score(self, rollout: Rollout) -> Tensor:
        """z(u) of each completion within its group, (B,); NaN where u is, for the finite guard to see."""
        return standardized(*self.certainty(rollout), rollout.num_generations)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; "certainty" (mean u before standardisation, nats per token), its means over right and wrong
        answers and, paid or not, over completions cut off ("certainty_truncated"), each where the batch has any."""
        values, present = self.certainty(rollout)
        metrics = means_by_verdict("certainty", values, present, rollout.correct)
        return metrics | mean_of_cut_off("certainty", values, rollout)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "sc_truncated": self.truncated}
