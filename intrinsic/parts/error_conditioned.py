"""What i-MENTOR does with a novelty once it has one (arXiv 2505.17621, B.1 of its code): scale, gate, decay, add.

Plain GRPO pays verdicts alone; a bonus built on this pays wrong answers a scaled novelty in [0, 0.5], on top of the
finished advantages, that fades with the number of batches. The novelty itself comes from a subclass.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.errors import check_choice, check_number
from intrinsic.base import Bonus
from intrinsic.parts.groups import group_centred
from intrinsic.rollout import Rollout

MODES = ("fixed", "reference")
HIGHEST = 0.5  # of a scaled novelty
DEVIATIONS = 2.0  # above the mean at which a novelty is paid in full
RESOLUTION = 1e-5  # of a novelty, relative: equal completions differ by rounding


@dataclass(frozen=True)
class Conditioning:
    """How novelties become a bonus.

    Attributes:
        mode: "reference" scales by minimum and maximum of the batch, "fixed" by its mean and a window's deviation.
        alpha, gamma: scale alpha / (gamma + number of batches before this one).
        center: subtract the mean bonus of a group's wrong answers, so that these are not pushed up as a whole; None
            stands for true in "fixed" mode and false in "reference".
        window: past novelties that, with the batch, set the deviation.

    Raises `UserError` for a value out of range.
    """

    mode: str = "fixed"
    alpha: float = 40.0
    gamma: float = 40.0
    center: bool | None = None
    window: int = 1024

    def __post_init__(self):
        check_choice("rnd_mode", self.mode, MODES)
        check_number("rnd_alpha", self.alpha, least=0)
        check_number("rnd_gamma", self.gamma, above=0)
        check_number("rnd_window", self.window, least=0)
        if self.center is None:
            object.__setattr__(self, "center", self.mode == "fixed")

    @classmethod
    def from_options(cls, options) -> "Conditioning":
        """From the ``--rnd_...`` flags."""
        return cls(options.rnd_mode, options.rnd_alpha, options.rnd_gamma, options.rnd_center, options.rnd_window)


def differs(novelty: Tensor) -> bool:
    """Whether the finite values of ``novelty`` (B,) differ by more than rounding."""
    finite = novelty[novelty.isfinite()]
    return len(finite) > 1 and bool(finite.max() - finite.min() > RESOLUTION * finite.abs().max())


def batch_scale(novelty: Tensor) -> Tensor:
    """``novelty`` (B,) from [min, max] of its finite values to [0, 0.5]; zeros where all are equal; the reference."""
    if not differs(novelty):
        return novelty * 0.0
    low, high = novelty[novelty.isfinite()].aminmax()
    return HIGHEST * (novelty - low) / (high - low)


def batch_centred(novelty: Tensor) -> Tensor:
    """``novelty`` (B,) minus the mean of its finite values."""
    return novelty - novelty[novelty.isfinite()].mean()


def window_scale(novelty: Tensor, history: Tensor) -> Tensor:
    """``novelty`` (B,) above the batch's mean, in deviations of ``history`` (n,) and batch: 0.5 from `DEVIATIONS` on.

    ``history`` holds the centred novelties of past batches. So the scale does not hang on the extremes of a small
    batch, the fall of all errors during training does not empty it, and completions that do not differ get 0.
    """
    if not differs(novelty):
        return novelty * 0.0
    centred = batch_centred(novelty)
    deviation = torch.cat([history.to(centred), centred[centred.isfinite()]]).square().mean().sqrt()
    return HIGHEST * (centred / (DEVIATIONS * deviation)).clamp(0.0, 1.0)


class ErrorConditionedBonus(Bonus):
    """Scaled novelty of wrong answers times alpha / gamma_t, added after normalisation.

    A subclass gives `novelty` and may `learn`.
    """

    placement = "advantage"
    needs_verdict = True

    def __init__(self, conditioning: Conditioning | None = None):
        self.conditioning = conditioning or Conditioning()
        self.batches = 0
        self.history = torch.empty(0)

    def novelty(self, rollout: Rollout) -> Tensor:
        """(B,) float32, larger for the less expected; must not change state."""
        raise NotImplementedError

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Take in the rollout; scalars to log."""
        return {}

    @property
    def decay(self) -> float:
        """alpha / gamma_t, with gamma_t = gamma + number of generation batches learnt from."""
        return self.conditioning.alpha / (self.conditioning.gamma + self.batches)

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: the wrong answers."""
        return rollout.correct <= 0.5

    def score(self, rollout: Rollout) -> Tensor:
        """u alpha / gamma_t of wrong answers, 0 for right ones, (B,); NaN where a wrong answer's novelty is."""
        wrong = self.eligible(rollout)
        bonus = torch.where(wrong, self._scaled(self.novelty(rollout)) * self.decay, 0.0)
        if not self.conditioning.center:
            return bonus
        groups, gate = bonus.view(-1, rollout.num_generations), wrong.view(-1, rollout.num_generations)
        inside = gate & groups.isfinite()
        return torch.where(inside, group_centred(groups, inside), groups).flatten()

    def _scaled(self, novelty: Tensor) -> Tensor:
        return batch_scale(novelty) if self.conditioning.mode == "reference" else window_scale(novelty, self.history)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learn, remember the novelties, and count the batch.

        Returns "decay" (alpha / gamma_t), "novelty" with its "novelty_std" over the batch before it was learnt, and
        what `learn` returns.
        """
        novelty, decay = self.novelty(rollout), self.decay
        metrics = self.learn(rollout) | {"decay": decay}
        self.batches += 1
        finite = novelty[novelty.isfinite()]
        if len(finite):
            metrics |= {"novelty": finite.mean().item(), "novelty_std": finite.std(correction=0).item()}
        if differs(novelty):
            centred = torch.cat([self.history, batch_centred(finite).cpu()])
            self.history = centred[max(0, len(centred) - self.conditioning.window) :]
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "history": self.history.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches = state["batches"]
        self.history = state["history"].detach().to("cpu", torch.float32).clone()

    def identity(self) -> dict[str, Any]:
        return {"name": self.name} | vars(self.conditioning)
