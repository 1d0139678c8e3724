"""Flags shared by the entry scripts; each field's help is the sentence printed by ``--help``."""

from dataclasses import dataclass, field
from typing import ClassVar

from intrinsic import parse_names
from intrinsic.base import WeightSchedule
from training.errors import UserError


def _flag(default, help):
    return field(default=default, metadata={"help": help})


@dataclass
class IntrinsicOptions:
    """Which intrinsic bonuses to pay, and how.

    Attributes:
        bonus_names: bonuses of the registry that ``use_ir`` names, in order; ``weights`` has one number for each.
        reward_weights: name in ``use_ir`` that is one of `REWARDS`, extrinsic rewards of the script -> its weight.
    """

    REWARDS: ClassVar[tuple[str, ...]] = ()

    use_ir: str = _flag("no", "Bonus or comma-separated bonuses: no (r1), knn (memoryr), knn+ (memoryr+).")
    ir_weight: str = _flag("1.0", "Weight of each bonus, one number or one per bonus separated by commas.")
    ir_schedule: str = _flag("constant", "Shape of the weight over training: constant, linear or cosine (both to 0).")
    ir_warmup_steps: int = _flag(0, "Optimiser steps over which the weight rises linearly from 0.")
    ir_clip: float = _flag(5.0, "Raw bonus values are clipped to [-ir_clip, ir_clip].")
    ir_min_std: float = _flag(
        0.0, "A group whose scaled bonus has a standard deviation below this gets no bonus from it (reward placement)."
    )
    k: int = _flag(1, "knn: number of nearest stored questions whose responses are compared with (K of the paper).")
    memory_questions: int = _flag(10_000, "knn: questions a memory holds; the oldest is evicted with its responses.")
    memory_responses: int = _flag(100, "knn: responses a memory holds per question; the oldest is dropped.")
    memory_window: int = _flag(
        100, "knn: past raw values that, with the current batch, set the min-max range of the normalisation."
    )
    explore_warmup: float = _flag(
        0.1, "knn+: explore reward is 0 before this many optimiser steps (>= 1) or share of all steps (< 1)."
    )
    beta_s: float = _flag(1.0, "knn: weight of the exploit reward (nearness to past right answers).")
    beta_e: float = _flag(1.0, "knn+: weight of the explore reward (distance from past wrong answers).")
    memory_legacy: bool = _flag(
        False, "knn: reproduce the reference order (insert first, normalise sample by sample) with its defects."
    )
    encoder: str = _flag(
        "sentence-transformers/all-MiniLM-L6-v2",
        "Text encoder of the memory: hub name, local path, or policy (mean-pooled hidden states of the policy). "
        "The default falls back to its packaged copy when the hub is not at hand.",
    )

    def __post_init__(self):
        names = parse_names(self.use_ir, self.REWARDS)
        weights = self._parse_weights(names)
        self.bonus_names = [name for name in names if name not in self.REWARDS]
        self.weights = [weight for name, weight in zip(names, weights, strict=True) if name not in self.REWARDS]
        self.reward_weights = {
            name: weight for name, weight in zip(names, weights, strict=True) if name in self.REWARDS
        }
        if self.ir_schedule not in WeightSchedule.SHAPES:
            raise UserError(f"--ir_schedule={self.ir_schedule!r} is unknown; use one of {WeightSchedule.SHAPES}.")
        for flag in ("k", "memory_questions", "memory_responses", "memory_window"):
            if getattr(self, flag) < 1:
                raise UserError(f"--{flag}={getattr(self, flag)} must be at least 1.")
        if not self.ir_clip > 0:
            raise UserError(f"--ir_clip={self.ir_clip} must be above 0.")

    def _parse_weights(self, names: list[str]) -> list[float]:
        try:
            weights = [float(weight) for weight in self.ir_weight.split(",")]
        except ValueError:
            raise UserError(f"--ir_weight={self.ir_weight!r} must be numbers separated by commas.") from None
        if len(weights) == 1:
            return weights * len(names)
        if len(weights) != len(names):
            raise UserError(
                f"--ir_weight={self.ir_weight!r} has {len(weights)} weights for {len(names)} bonuses "
                f"({', '.join(names) or 'none'}); give one weight, or one per bonus."
            )
        return weights

    def schedules(self) -> list[WeightSchedule]:
        """One weight schedule per bonus of ``use_ir``."""
        return [WeightSchedule(weight, self.ir_schedule, self.ir_warmup_steps) for weight in self.weights]
