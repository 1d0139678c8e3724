"""Entropy-based advantage shaping (arXiv 2506.14758, section 3.2): GRPO whose uncertain tokens weigh more.

Plain GRPO gives all tokens of a completion the same advantage A; here each gets a bonus from the entropy H_t, in nats,
of the distribution that it was drawn from, capped so that no advantage changes its sign:

    A_t = A + min(alpha H_t, |A| / kappa)                                                        (equations 5 and 6)

H_t is a number, not a function of the weights: unlike an entropy regulariser, nothing pushes the entropy itself.
"""

import math
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError, check_number
from intrinsic.base import Bonus
from intrinsic.parts.groups import sequence_mean
from intrinsic.rollout import Rollout


class EntropyAdvantage(Bonus):
    """``--use_ir=entropy-adv``: the entropy of each token, capped by the advantage of its completion.

    `score` is H_t, so that the pipeline's weight scales alpha; the cap is put on in `combine`, the only place that
    knows the advantage, after that weight. So no weight, schedule or clip can turn an advantage round.

    Args:
        alpha: factor of the entropy in nats.
        kappa: the bonus is at most |A| / kappa; A is the advantage as joined so far.

    Raises `UserError` for a value out of range.
    """

    name = "entropy-adv"
    placement = "token"
    needs = frozenset({"entropy"})

    def __init__(self, alpha: float = 0.4, kappa: float = 2.0):
        check_number("entropy_adv_alpha", alpha, least=0)
        if not 1.0 < kappa < math.inf:
            raise UserError(
                f"--entropy_adv_kappa={kappa} must be a finite number above 1, or the bonus could outweigh the verdict."
            )
        self.alpha = alpha
        self.kappa = kappa

    @classmethod
    def from_options(cls, options) -> "EntropyAdvantage":
        return cls(alpha=options.entropy_adv_alpha, kappa=options.entropy_adv_kappa)

    def score(self, rollout: Rollout) -> Tensor:
        """H_t of each token, (B, T), nats, detached; 0 on padding."""
        entropy = rollout.features["entropy"].detach().float()
        return torch.where(rollout.completion_mask, entropy, 0.0)

    def combine(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        """``advantages + min(alpha scores, |advantages| / kappa)``, both (B, T).

        A negative weight of the bonus makes ``scores`` negative; the cap then holds below as it does above.
        """
        cap = advantages.abs() / self.kappa
        return advantages + torch.clamp(self.alpha * scores, min=-cap, max=cap)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; the entropy for the log, over completions that have tokens.

        Returns "entropy" (mean of the completions' means, nats per token), "entropy_right", "entropy_wrong" and
        "above_unit_cap" (share of tokens whose bonus is the cap at an advantage of 1 and a weight of 1), each only
        where the batch holds what it is about.
        """
        tokens, mask = self.score(rollout), rollout.completion_mask
        present, right, wrong = mask.any(dim=1), rollout.correct > 0.5, rollout.correct <= 0.5
        means = sequence_mean(tokens, mask)
        rows = {"entropy": present, "entropy_right": present & right, "entropy_wrong": present & wrong}
        metrics = {name: means[chosen].mean().item() for name, chosen in rows.items()}
        metrics["above_unit_cap"] = (self.alpha * tokens[mask] >= 1.0 / self.kappa).float().mean().item()
        return {name: value for name, value in metrics.items() if not math.isnan(value)}

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "entropy_adv_alpha": self.alpha, "entropy_adv_kappa": self.kappa}
