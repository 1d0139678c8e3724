"""CDE's actor bonus (arXiv 2509.09675, section 3.2): GRPO that pays a policy for answers it finds surprising.

Plain GRPO pays the verdict alone; here the negative log-likelihood of a completion is added to its reward, capped at a
share of that reward and switched off in the course of training:

    r + omega_t min(|r| / kappa, alpha NLL)          NLL = -1/T sum_t log pi(o_t), nats per token (equations 1 and 2)

The cap keeps the sign of the reward, and makes the bonus 0 where the reward is. The multi-head critic of the same paper
is not here: GRPO has no critic.
"""

import math
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError, check_number
from intrinsic.base import Bonus
from intrinsic.parts.groups import right_above_wrong, sequence_mean
from intrinsic.rollout import Rollout

DECAYS = ("staircase", "cosine", "linear")


def omega(progress: float, decay: str, until: float) -> float:
    """Weight of the bonus in [0, 1] at the share ``progress`` of training, by a shape of `DECAYS`; 0 from ``until`` on.

    "staircase" is 1 before, "linear" a ramp, "cosine" half a period (figure 7 of the paper).
    """
    if progress >= until:
        return 0.0
    shapes = {
        "staircase": 1.0,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress / until)),
        "linear": 1.0 - progress / until,
    }
    return shapes[decay]


class Perplexity(Bonus):
    """``--use_ir=ppl``: capped negative log-likelihood of the completion under the policy that sampled it.

    Args:
        kappa: the bonus is at most |reward| / kappa.
        alpha: factor of the negative log-likelihood, nats per token, below that cap.
        decay: shape of omega, see `omega`.
        until: share of training at which omega reaches 0.

    Raises `UserError` for a value out of range, and for a staircase without its step.
    """

    name = "ppl"
    placement = "reward"
    needs = frozenset({"logps"})

    def __init__(self, kappa: float = 3.0, alpha: float = 1.0, decay: str = "staircase", until: float = 0.5):
        for flag, value in (("ppl_kappa", kappa), ("ppl_alpha", alpha)):
            check_number(flag, value, above=0)
        if decay not in DECAYS:
            raise UserError(
                f"--ppl_decay={decay!r} is unknown; use one of {', '.join(DECAYS)} (a decay is required: the paper "
                "finds no gain without one)."
            )
        if not 0.0 < until <= 1.0:
            raise UserError(f"--ppl_until={until} must be a share of training, above 0 and up to 1.")
        if decay == "staircase" and until == 1.0:
            raise UserError(f"--ppl_until={until} never switches the bonus off with --ppl_decay=staircase; lower it.")
        self.kappa = kappa
        self.alpha = alpha
        self.decay = decay
        self.until = until

    @classmethod
    def from_options(cls, options) -> "Perplexity":
        return cls(kappa=options.ppl_kappa, alpha=options.ppl_alpha, decay=options.ppl_decay, until=options.ppl_until)

    @property
    def depends_on_length(self) -> bool:
        return True

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: completions with tokens and a reward other than 0."""
        return rollout.completion_mask.any(dim=1) & (rollout.rewards != 0)

    def surprise(self, rollout: Rollout) -> Tensor:
        """NLL (B,), nats per token, float32; 0 for a completion without tokens."""
        return sequence_mean(-rollout.features["logps"].detach().float(), rollout.completion_mask)

    def omega(self, rollout: Rollout) -> float:
        """The weight of the bonus at the rollout's step."""
        return omega(rollout.step / rollout.max_steps, self.decay, self.until)

    def score(self, rollout: Rollout) -> Tensor:
        """omega_t min(|r| / kappa, alpha NLL) of each completion, (B,); not finite where NLL is, for the guard."""
        surprise = self.surprise(rollout)
        capped = torch.minimum(rollout.rewards.abs() / self.kappa, self.alpha * surprise)
        return self.omega(rollout) * torch.where(surprise.isfinite(), capped, torch.nan)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; what the bonus is made of, for the log.

        Returns "omega", and over completions with tokens and a finite NLL, where the batch holds them: "nll" (mean,
        nats per token), "nll_right", "nll_wrong", "right_more_likely" (share of the pairs of a right and a wrong
        answer of one group in which the right one has the lower NLL) and, over those with a reward, "capped" (share
        whose bonus is the cap).
        """
        surprise = self.surprise(rollout)
        present = rollout.completion_mask.any(dim=1) & surprise.isfinite()
        right, wrong = rollout.correct > 0.5, rollout.correct <= 0.5
        rows = {"nll": present, "nll_right": present & right, "nll_wrong": present & wrong}
        metrics = {name: surprise[chosen].mean().item() for name, chosen in rows.items()}
        metrics["right_more_likely"] = right_above_wrong(-surprise, rollout.correct, present, rollout.num_generations)
        paid = present & (rollout.rewards != 0)
        above = self.alpha * surprise[paid] >= rollout.rewards[paid].abs() / self.kappa
        metrics["capped"] = above.float().mean().item()
        return {"omega": self.omega(rollout)} | {k: value for k, value in metrics.items() if not math.isnan(value)}

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ppl_kappa": self.kappa,
            "ppl_alpha": self.alpha,
            "ppl_decay": self.decay,
            "ppl_until": self.until,
        }
