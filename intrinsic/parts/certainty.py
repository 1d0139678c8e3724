"""What bonuses share that pay a policy for being sure of what it writes: who takes part, and the standardised score."""

from torch import Tensor

from common.errors import UserError, check_choice
from intrinsic.base import Bonus
from intrinsic.parts.likelihood import standardized
from intrinsic.rollout import Rollout

TRUNCATED = ("pay", "skip")  # completions cut off at the length limit: a loop that never ends is certain too


class Certainty(Bonus):
    """A certainty u of each completion, standardised within its group; u comes from a subclass.

    Args:
        truncated: "pay" completions that were cut off at the length limit like others, or "skip" them: they enter
            neither mean nor deviation of their group and get 0.

    Raises `UserError` for an unknown word.
    """

    placement = "advantage"
    label_free = True
    clipped = False  # z is as large as that of the rewards, which nothing clips

    def __init__(self, truncated: str = "pay"):
        check_choice("sc_truncated", truncated, TRUNCATED)
        self.truncated = truncated

    def certainty(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """u (B,) in nats per token, detached, and (B,) bool of the eligible rows with a finite u."""
        raise NotImplementedError

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: completions with tokens; where ``truncated`` is "skip", those that were not cut off.

        Raises `UserError` where "skip" needs to know what was cut off and the rollout does not say.
        """
        has_tokens = rollout.completion_mask.any(dim=1)
        if self.truncated == "pay":
            return has_tokens
        if rollout.truncated is None:
            raise UserError(
                f"--sc_truncated={self.truncated} needs to know which completions were cut off, which nothing says "
                "here; use --sc_truncated=pay."
            )
        return has_tokens & ~rollout.truncated

    def score(self, rollout: Rollout) -> Tensor:
        """z(u) of each completion within its group, (B,); NaN where u is, for the finite guard to see."""
        return standardized(*self.certainty(rollout), rollout.num_generations)
