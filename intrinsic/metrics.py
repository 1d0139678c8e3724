"""What a run logs of its bonuses: values by verdict, share of the advantage, and how they rank right above wrong."""

from collections.abc import Iterator

import torch
from torch import Tensor

from intrinsic.parts.groups import right_above_wrong, sequence_mean
from intrinsic.pipeline import ScoredBonus
from intrinsic.rollout import KINDS, Rollout

GROUPS = ("all_wrong", "mixed", "all_right")


def score_metrics(scored: list[ScoredBonus], rollout: Rollout) -> dict[str, float]:
    """Means of raw and scaled scores, overall and split by right and wrong answers (NaN where there are none).

    For bonuses with one value per completion also "right_above_wrong", see `right_above_wrong`.
    """
    metrics = {}
    for item in scored:
        prefix = f"ir/{item.bonus.name}"
        metrics[f"{prefix}/weight"] = item.weight
        metrics[f"{prefix}/nonfinite"] = float(item.nonfinite)
        raw = torch.stack(list(item.raw.values())).sum(dim=0)
        metrics |= _split_means(f"{prefix}/raw", sequence_mean(raw, rollout.completion_mask), rollout.correct)
        metrics[f"{prefix}/scaled"] = sequence_mean(item.total, rollout.completion_mask).mean().item()
        if raw.dim() == 1 and not (item.bonus.replaces or item.bonus.multiplies):
            rank = right_above_wrong(raw, rollout.correct, _compared(item, rollout), rollout.num_generations)
            metrics[f"{prefix}/right_above_wrong"] = rank
        if len(item.raw) > 1:
            for part, scores in item.raw.items():
                metrics |= _split_means(f"{prefix}/{part}/raw", scores, rollout.correct)
    return metrics


def _compared(item: ScoredBonus, rollout: Rollout) -> Tensor:
    """(B,) bool: the eligible completions that have a score of each part that says anything of the batch."""
    present = torch.stack(list(item.present.values()))
    return item.bonus.eligible(rollout) & present[present.any(dim=1)].all(dim=0)


def share_metrics(name: str, without: Tensor, joined: Tensor, rollout: Rollout) -> dict[str, float]:
    """How much of the advantage a bonus makes, and what it changes by verdict.

    "share_of_advantage" is mean |change| over mean |before| + |change| of the batch. Its parts
    "share_of_advantage_all_wrong", "_mixed" and "_all_right" have the |change| in such groups alone above the same
    line, so that they add up to it. "advantage_right", "_wrong", and of the wrong ones "_wrong_answer" and
    "_no_answer", are means of the change. ``without`` and ``joined`` are (B,) or (B, T) advantages.
    """
    mask = rollout.completion_mask
    if joined.dim() > without.dim():
        without = without[:, None].expand_as(joined)
    change = joined - without
    moved, base = sequence_mean(change.abs(), mask), sequence_mean(without.abs(), mask)
    whole = (moved + base).sum()
    right = (rollout.correct > 0.5).view(-1, rollout.num_generations)
    kinds = torch.where(right.all(dim=1), 2, right.any(dim=1).long()).repeat_interleave(rollout.num_generations)
    parts = {"": moved.sum()}
    if not rollout.correct.isnan().any():
        parts |= {f"_{kind}": moved[kinds == place].sum() for place, kind in enumerate(GROUPS)}
    shares = {part: (amount / whole).item() if whole > 0 else 0.0 for part, amount in parts.items()}
    values = sequence_mean(change, mask)
    sides = dict(_sides(values, rollout.correct)) | dict(_by_kind(values, rollout))
    return {f"ir/{name}/share_of_advantage{part}": share for part, share in shares.items()} | {
        f"ir/{name}/advantage_{side}": value for side, value in sides.items()
    }


def advantage_metrics(advantages: Tensor, rollout: Rollout) -> dict[str, float]:
    """Mean of the finished advantages, (B,) or (B, T), by verdict: "advantage/right", "/wrong_answer", "/no_answer".

    NaN where the batch has no such completion.
    """
    values = sequence_mean(advantages, rollout.completion_mask)
    return {f"advantage/{kind}": value for kind, value in _by_kind(values, rollout)}


def _by_kind(values: Tensor, rollout: Rollout) -> Iterator[tuple[str, float]]:
    kinds = rollout.kinds
    for place, kind in enumerate(KINDS):
        rows = kinds == place
        yield kind, values[rows].mean().item() if rows.any() else float("nan")


def _sides(values: Tensor, correct: Tensor) -> Iterator[tuple[str, float]]:
    for side, rows in (("right", correct > 0.5), ("wrong", correct <= 0.5)):
        yield side, values[rows].mean().item() if rows.any() else float("nan")


def _split_means(prefix: str, values: Tensor, correct: Tensor) -> dict[str, float]:
    return {prefix: values.mean().item()} | {f"{prefix}_{side}": value for side, value in _sides(values, correct)}
