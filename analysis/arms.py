"""Evaluated runs as arms of an experiment: runs that differ in nothing but their seed, on the same problems."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.evaluated import EvaluatedRun
from common.errors import UserError
from intrinsic import NOISE, SHUFFLE


@dataclass(frozen=True)
class Arm:
    """Runs of the same settings by seed; ``label`` names the flags in which arms differ."""

    label: str
    runs: dict[int, EvaluatedRun]

    @property
    def bonus(self) -> str | None:
        """Value of ``--use_ir``."""
        return next(iter(self.runs.values())).flags.get("use_ir")

    @property
    def is_control(self) -> bool:
        """Whether all that it pays is there to be no better than plain GRPO: noise, shuffled bonuses, or rarity by
        random labels; a bonus of weight 0 pays nothing."""
        flags = next(iter(self.runs.values())).flags
        names = [name.strip() for name in (self.bonus or "").split(",")]
        weights = str(flags.get("ir_weight", "")).split(",")
        if len(weights) == 1:
            weights *= len(names)
        paid = [name for name, weight in zip(names, weights, strict=True) if not weight.strip() or float(weight) != 0.0]
        controls = {NOISE, "rarity"} if flags.get("rarity_partition") == "random" else {NOISE}
        return bool(paid) and all(name in controls or name.startswith(SHUFFLE) for name in paid)

    def table(self, outcome: str, seeds: Sequence[int]) -> np.ndarray:
        """(S, P) scores of the runs of ``seeds``."""
        return np.stack([self.runs[seed].scores[outcome] for seed in seeds])


def check_same_problems(runs: Sequence[EvaluatedRun]) -> None:
    """Raise `UserError` unless all runs were evaluated on the same task and the same rows under the same ids."""
    first = runs[0]
    for other in runs[1:]:
        if other.task != first.task:
            raise UserError(
                f"{first.path} is of the task {first.task} and {other.path} of {other.task}; compare runs of one task."
            )
        if other.problems != first.problems:
            common = len(first.problems.items() & other.problems.items())
            raise UserError(
                f"{first.path} and {other.path} were evaluated on different problems ({len(first.problems)} and "
                f"{len(other.problems)}, {common} in common); compare runs with the same held-out data, "
                "--eval_problems and settings of the problems."
            )


def group_arms(runs: Sequence[EvaluatedRun]) -> list[Arm]:
    """The arms in the order in which they are met.

    A path that names the seed of its run is the same for all seeds: each may start from a policy of its own seed.

    Raises:
        UserError: two runs of the same settings and seed, or a single arm.
    """
    settings = [_without_seed(run) for run in runs]
    groups: dict[str, dict[int, EvaluatedRun]] = {}
    flags_of = {}
    for run, flags, key in zip(runs, settings, arm_keys(settings), strict=True):
        flags_of.setdefault(key, flags)
        group = groups.setdefault(key, {})
        if run.seed in group:
            raise UserError(
                f"{group[run.seed].path} and {run.path} have the same settings and --seed {run.seed}; leave one out."
            )
        group[run.seed] = run
    labels = arm_labels(list(flags_of.values()))
    if len(labels) < 2:
        raise UserError(
            f"the {len(runs)} finished runs have the same settings, so there is one arm; name runs of another one too."
        )
    return [Arm(label, dict(sorted(group.items()))) for label, group in zip(labels, groups.values(), strict=True)]


def _without_seed(run: EvaluatedRun) -> dict[str, Any]:
    """Its flags, without "_seedN" of its own seed N in texts."""
    own = re.compile(rf"_seed{run.seed}(?!\d)")
    return {name: own.sub("", value) if isinstance(value, str) else value for name, value in run.flags.items()}


def arm_keys(settings: Sequence[dict[str, Any]]) -> list[str]:
    """A text for each of ``settings``, equal for those of one arm.

    A flag that only some runs record, all with the same value, tells none apart: the others are of a code without it.
    """
    differing = _differing_flags(settings)
    return [json.dumps([flags.get(name) for name in differing]) for flags in settings]


def arm_labels(settings: Sequence[dict[str, Any]]) -> list[str]:
    """What to call each of ``settings``: its --use_ir, and the other flags in which they differ."""
    differing = _differing_flags(settings)
    return [_label(flags, differing) for flags in settings]


def _differing_flags(settings: Sequence[dict]) -> list[str]:
    """Flags that do not have the same value in all ``settings`` that have them, ``use_ir`` first."""
    values: dict[str, set[str]] = {}
    for flags in settings:
        for name, value in flags.items():
            values.setdefault(name, set()).add(json.dumps(value, sort_keys=True))
    found = [name for name, different in values.items() if len(different) > 1]
    return sorted(found, key=lambda name: name != "use_ir")


def _label(flags: dict, differing: Sequence[str]) -> str:
    shown = [(name, "unset" if flags.get(name) in (None, "") else flags[name]) for name in differing]
    return ", ".join(str(value) if name == "use_ir" else f"{name}={value}" for name, value in shown)
