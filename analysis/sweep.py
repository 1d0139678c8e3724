"""A sweep: the records of one folder of results/, read and compared once for its tables and its picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.arms import Arm, check_same_problems, group_arms
from analysis.comparison import choose_baseline, compare_arms
from analysis.evaluated import EvaluatedRun, read_evaluated, read_facts
from common.errors import UserError
from intrinsic import NO_BONUS
from intrinsic.base import LEVELS

_DEFAULT_LEVEL = f", ir_level={LEVELS[0]}"  # named in labels where arms differ in their level


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep.

    Attributes:
        before: their evaluations before training.
        arms: their evaluations after it.
        result: of `analysis.comparison.compare_arms`, against plain GRPO.
        facts: `read_facts` of each.
    """

    before: list[EvaluatedRun]
    arms: list[Arm]
    result: dict[str, Any]
    facts: list[dict[str, Any]]


def read_sweep(folder: Path) -> Sweep:
    """The records of ``folder``. Raises `UserError` where it holds no two arms."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UserError(f"{folder} holds no records; make some with bash sweeps/{folder.name}.sh.")
    before, after = ([read_evaluated(path, which) for path in paths] for which in ("before", "after"))
    check_same_problems([*before, *after])
    arms = group_arms(after)
    result = compare_arms(arms, choose_baseline(arms, NO_BONUS))
    return Sweep(before, arms, result, [read_facts(path) for path in paths])


def short(text: str) -> str:
    """``text`` without the level of bonuses where it is the default."""
    return text.replace(_DEFAULT_LEVEL, "")
