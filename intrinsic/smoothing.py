"""Differential smoothing (arXiv 2511.19942): GRPO that flattens what is right and sharpens against what is wrong.

Plain GRPO gives all right answers of a group the same advantage; here a right answer gets more the less likely the
policy finds it, and a wrong one less the less likely it is, with l_i the mean log-probability of its tokens:

    A_i = z(r)_i - c_right l_i if right,   z(r)_i + c_wrong l_i if wrong
"""

from typing import Any

import torch
from torch import Tensor

from common.errors import check_number
from intrinsic.base import Bonus
from intrinsic.parts.likelihood import mean_feature
from intrinsic.rollout import Rollout


class DifferentialSmoothing(Bonus):
    """``--use_ir=smooth``: the mean log-probability of each completion, charged where right, paid where wrong.

    Args:
        right, wrong: c_right and c_wrong, per nat.
        mixed: only in groups with a right and a wrong answer (ours); else in all groups, as in the authors' program.

    Raises `UserError` for a coefficient that is negative or not finite.
    """

    name = "smooth"
    placement = "advantage"
    needs_verdict = True
    needs = frozenset({"logps"})

    def __init__(self, right: float = 0.05, wrong: float = 0.05, mixed: bool = False):
        for flag, value in (("smooth_right", right), ("smooth_wrong", wrong)):
            check_number(flag, value, least=0)
        self.right = right
        self.wrong = wrong
        self.mixed = mixed

    @classmethod
    def from_options(cls, options) -> "DifferentialSmoothing":
        return cls(right=options.smooth_right, wrong=options.smooth_wrong, mixed=options.smooth_mixed)

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: completions with tokens, with ``mixed`` those in groups with a right and a wrong answer."""
        present = rollout.completion_mask.any(dim=1)
        if not self.mixed:
            return present
        right = (rollout.correct > 0.5).view(-1, rollout.num_generations)
        mixed = right.any(dim=1) & ~right.all(dim=1)
        return present & mixed.repeat_interleave(rollout.num_generations)

    def score(self, rollout: Rollout) -> Tensor:
        """-c_right l of right and c_wrong l of wrong answers, (B,); 0 where not eligible, NaN where l is not finite."""
        logps, _ = mean_feature(rollout, "logps")
        values = torch.where(rollout.correct > 0.5, -self.right * logps, self.wrong * logps)
        return torch.where(self.eligible(rollout), values, 0.0)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; "logp_right" and "logp_wrong", means of l in nats per token, where the batch has any."""
        logps, present = mean_feature(rollout, "logps")
        right = rollout.correct > 0.5
        rows = {"logp_right": present & right, "logp_wrong": present & ~right}
        return {name: logps[chosen].mean().item() for name, chosen in rows.items() if chosen.any()}

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "smooth_right": self.right,
            "smooth_wrong": self.wrong,
            "smooth_mixed": self.mixed,
        }
