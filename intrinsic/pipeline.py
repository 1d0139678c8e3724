"""From raw bonus scores to what reaches the advantage: finite guard, clip, weight, join."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from common.errors import UserError
from intrinsic import check_replaced, check_share
from intrinsic.base import COLUMNS, FEATURES, Bonus, FiniteGuard, Placement, WeightSchedule, present_rows
from intrinsic.parts.groups import centred_sum
from intrinsic.rollout import Rollout


@dataclass
class ScoredBonus:
    """Scores of one bonus on one rollout.

    Attributes:
        raw: part name -> finite clipped scores, (B,) or (B, T).
        present: part name -> (B,) bool, completions that have such a score, see `present_rows`.
        weight: the schedule's weight at this step.
        nonfinite: how many values the guard replaced.
    """

    bonus: Bonus
    raw: dict[str, Tensor]
    present: dict[str, Tensor]
    weight: float
    nonfinite: int

    @property
    def scaled(self) -> dict[str, Tensor]:
        """Part name -> weighted scores."""
        return {part: scores * self.weight for part, scores in self.raw.items()}

    @property
    def total(self) -> Tensor:
        """Weighted sum of the parts, (B,) or (B, T)."""
        return torch.stack(list(self.scaled.values())).sum(dim=0)


def check_bonuses(bonuses: Sequence[Bonus]) -> None:
    """Raise `UserError` for what is no bonus, one whose attributes no trainer can follow, and those of which one throws
    another away."""
    names = set()
    for bonus in bonuses:
        if not isinstance(bonus, Bonus):
            raise UserError(
                f"{bonus!r} is no bonus; give objects of subclasses of intrinsic.base.Bonus, or their names."
            )
        name = getattr(bonus, "name", None)
        if not isinstance(name, str) or not name or name in names:
            raise UserError(f"{type(bonus).__name__} has the name {name!r}; give each bonus a name of its own.")
        names.add(name)
        if getattr(bonus, "placement", None) not in get_args(Placement):
            known = ", ".join(get_args(Placement))
            raise UserError(f"the bonus {name!r} has no placement of {known}; set it.")
        for verb, there in (("needs", FEATURES), ("reads", COLUMNS)):
            if unknown := sorted(set(getattr(bonus, verb)) - there):
                raise UserError(
                    f"the bonus {name!r} {verb} {unknown[0]!r}, which no rollout has; use {', '.join(sorted(there))}."
                )
    check_replaced(bonuses)


def checked(score: Any, bonus: Bonus, rollout: Rollout) -> Tensor:
    """``score`` of a bonus; raises `UserError` unless it is one number per completion, or per token where that is its
    placement."""
    wanted = rollout.completion_mask.shape if bonus.placement == "token" else torch.Size([len(rollout.completions)])
    if isinstance(score, Tensor) and score.shape == wanted:
        return score
    found = f"a tensor of shape {tuple(score.shape)}" if isinstance(score, Tensor) else f"{type(score).__name__}"
    raise UserError(
        f"score() of the bonus {bonus.name!r} gave {found}; with placement {bonus.placement!r} it gives a tensor of "
        f"shape {tuple(wanted)}."
    )


class BonusPipeline:
    """All bonuses of a run, each with its schedule and guard.

    Args:
        bonuses, schedules: one schedule per bonus.
        clip: raw scores are clipped to [-clip, clip], but for a bonus that replaces the advantage or is not
            ``clipped``.
        min_std: reward placement only: in a group whose weighted bonus varies less than this, the bonus is set to
            its group mean and so contributes nothing. Group scaling otherwise turns any difference, however small,
            into advantages of about 1.

    Raises `UserError` for a bonus that replaces the advantage by more than all of it.
    """

    def __init__(
        self, bonuses: Sequence[Bonus], schedules: Sequence[WeightSchedule], clip: float = 5.0, min_std: float = 0.0
    ):
        # One that replaces the advantage goes first, then one that multiplies it: the others add to what these make.
        pairs = sorted(
            zip(bonuses, schedules, strict=True), key=lambda pair: (not pair[0].replaces, not pair[0].multiplies)
        )
        for bonus, schedule in pairs:
            check_share(bonus, schedule.weight, str(schedule))
        self.bonuses = [bonus for bonus, _ in pairs]
        self.schedules = [schedule for _, schedule in pairs]
        self.guards = [FiniteGuard(bonus.name) for bonus in self.bonuses]
        self.clip = clip
        self.min_std = min_std

    @property
    def needs(self) -> frozenset[str]:
        """Union of what the bonuses need."""
        return frozenset().union(*(bonus.needs for bonus in self.bonuses))

    @property
    def reward_columns(self) -> list[tuple[str, str]]:
        """(bonus name, part name) of every part that is paid as a reward column."""
        return [
            (bonus.name, part)
            for bonus in self.bonuses
            if bonus.placement == "reward"
            for part in bonus.part_names or (bonus.name,)
        ]

    def score(self, rollout: Rollout) -> list[ScoredBonus]:
        """Guarded, clipped and weighted scores of every bonus; raises `RunError` through the guard."""
        scored = []
        for bonus, schedule, guard in zip(self.bonuses, self.schedules, self.guards, strict=True):
            parts = {name: checked(score, bonus, rollout).float() for name, score in bonus.score_parts(rollout).items()}
            finite, nonfinite = guard(torch.stack(list(parts.values()), dim=1), rollout)
            # What replaces the advantage is no bonus beside it: its size is the method's own.
            bounded = finite.clamp(-self.clip, self.clip) if bonus.clipped and not bonus.replaces else finite
            raw = dict(zip(parts, bounded.unbind(dim=1), strict=True))
            present = present_rows(bonus, parts, rollout)
            scored.append(ScoredBonus(bonus, raw, present, schedule(rollout.step, rollout.max_steps), nonfinite))
        return scored

    def reward_values(self, scored: list[ScoredBonus], num_generations: int, weighted: bool = True) -> list[Tensor]:
        """The (B,) reward columns, in the order of `reward_columns`, times their weights where ``weighted``."""
        columns = []
        for item in scored:
            if item.bonus.placement != "reward":
                continue
            quiet = self._quiet_groups(item.total, num_generations)
            for scores in (item.scaled if weighted else item.raw).values():
                groups = scores.view(-1, num_generations)
                mean = groups.mean(dim=1, keepdim=True).expand_as(groups)
                columns.append(torch.where(quiet, mean, groups).flatten())
        return columns

    @staticmethod
    def reward_weights(scored: list[ScoredBonus]) -> list[float]:
        """The weight of each reward column at this step, in the order of `reward_columns`."""
        return [item.weight for item in scored if item.bonus.placement == "reward" for _ in item.raw]

    def _quiet_groups(self, total: Tensor, num_generations: int) -> Tensor:
        return total.view(-1, num_generations).std(dim=1, keepdim=True) < self.min_std

    def join(self, advantages: Tensor, scored: list[ScoredBonus], rollout: Rollout) -> Tensor:
        """Advantages (B,) with the bonuses placed after normalisation added; (B, T) if any of them is per token.

        Bonuses that their papers pay in the reward come less their group's mean, see `Bonus.at_level`; completions
        without a score get 0 of them, which is then the mean and not the lowest value. A bonus that
        replaces the advantage leaves 1 - weight of what was there: at weight 0 all of it, at 1 nothing.
        """
        for item in scored:
            if item.bonus.placement == "reward" or item.weight == 0.0:
                continue
            scores = self._centred(item, rollout) if item.bonus.centred else item.total
            if scores.dim() > advantages.dim():
                advantages = advantages[:, None].expand_as(scores)
            elif scores.dim() < advantages.dim():
                scores = scores[:, None].expand_as(advantages)
            joined = item.bonus.combine(advantages, scores, rollout)
            if item.bonus.replaces and item.weight != 1.0:
                joined = joined + (1.0 - item.weight) * advantages
            advantages = joined
        return advantages

    @staticmethod
    def _centred(item: ScoredBonus, rollout: Rollout) -> Tensor:
        parts, present = list(item.scaled.values()), list(item.present.values())
        return centred_sum(parts, present, rollout.num_generations).flatten()

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Let every bonus learn from the rollout; scalars to log as ``ir/<bonus>/<scalar>``."""
        return {
            f"ir/{bonus.name}/{key}": float(value)
            for bonus in self.bonuses
            for key, value in bonus.update(rollout).items()
        }

    def state_dict(self) -> dict:
        """State of bonuses and guards, by bonus name."""
        return {
            bonus.name: {"bonus": bonus.state_dict(), "nonfinite_streak": guard.streak}
            for bonus, guard in zip(self.bonuses, self.guards, strict=True)
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        for bonus, guard in zip(self.bonuses, self.guards, strict=True):
            bonus.load_state_dict(state[bonus.name]["bonus"])
            guard.streak = state[bonus.name]["nonfinite_streak"]


def reward_advantages(
    columns: Tensor, weights: Tensor, num_generations: int, scale: str, aggregation: str = "sum_then_normalize"
) -> Tensor:
    """The (B,) advantages that TRL 1.16 makes of (B, K) reward columns, for attributing them to single columns.

    ``scale`` ("group", "batch", "none") applies to "sum_then_normalize"; "normalize_then_sum" scales each column in
    its group and the weighted sum over the batch. NaN entries count as 0.
    """
    columns = torch.nan_to_num(columns)
    if aggregation == "normalize_then_sum":
        groups = columns.view(-1, num_generations, columns.size(1))
        groups = (groups - groups.mean(dim=1, keepdim=True)) / (groups.std(dim=1, keepdim=True) + 1e-4)
        rewards = groups.view_as(columns) @ weights
        return (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    rewards = (columns * weights).sum(dim=1)
    groups = rewards.view(-1, num_generations)
    centred = groups - groups.mean(dim=1, keepdim=True)
    if scale == "group":
        centred = centred / (groups.std(dim=1, keepdim=True) + 1e-4)
    elif scale == "batch":
        centred = centred / (rewards.std() + 1e-4)
    return centred.flatten()
