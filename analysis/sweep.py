"""A sweep: the records of one folder of results/, read and compared once for its tables and its picture."""

import re
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from analysis.arms import Arm, check_same_problems, group_arms
from analysis.comparison import choose_baseline, compare_arms
from analysis.evaluated import EvaluatedRun, read_evaluated, read_facts
from common.errors import UserError
from intrinsic import SHUFFLE

BASELINES = ("no", "plain")  # arms that a sweep compares its others with: plain GRPO, or plain traces before it
_RUN = re.compile(r"(?P<arm>.+)_seed\d+")  # name of a run in a sweep


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep.

    Attributes:
        name: of its folder, and of its script in sweeps/.
        before: their evaluations before training.
        arms: their evaluations after it; an arm is called as in the names of its runs.
        result: of `analysis.comparison.compare_arms`, against the baseline.
        facts: `read_facts` of each run.
        digest: of all its records.
    """

    name: str
    before: list[EvaluatedRun]
    arms: list[Arm]
    result: dict[str, Any]
    facts: list[dict[str, Any]]
    digest: str


def arm_of(path: Path) -> str:
    """The arm in the name of a record, ``ARM_seedN.json``; raises `UserError` where it has another form.

    The colon of a control, which no file name should hold, stands there as a dash.
    """
    found = _RUN.fullmatch(path.stem)
    if not found:
        raise UserError(f"{path} is not named ARM_seedN.json; name the record as its sweep names the run.")
    return re.sub(f"^{SHUFFLE[:-1]}-", SHUFFLE, found["arm"])


def can_compare(folder: Path) -> bool:
    """Whether ``folder`` holds records of a baseline and of another arm."""
    arms = {arm_of(path) for path in folder.glob("*.json")}
    return len(arms) > 1 and any(name in arms for name in BASELINES)


def digest_of(folder: Path) -> str:
    """A hash of the names and contents of the records of ``folder``."""
    found = blake2b(digest_size=16)
    for path in sorted(folder.glob("*.json")):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def read_sweep(folder: Path) -> Sweep:
    """The records of ``folder``, of which `can_compare` holds.

    Raises:
        UserError: runs of one name differ in their settings, or runs of two names do not.
    """
    paths = sorted(folder.glob("*.json"))
    before, after = ([read_evaluated(path, which) for path in paths] for which in ("before", "after"))
    check_same_problems([*before, *after])
    arms = [_called_as_its_runs(arm) for arm in group_arms(after)]
    names = [arm.label for arm in arms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"{folder}: runs called {twice!r} have different settings; keep those of one setting there.")
    baseline = choose_baseline(arms, next(name for name in BASELINES if name in names))
    result = compare_arms(arms, baseline)
    return Sweep(folder.name, before, arms, result, [read_facts(path) for path in paths], digest_of(folder))


def curves_of(sweep: Sweep) -> dict[str, dict[int, np.ndarray]]:
    """Accuracy in training of each logged step, by arm and seed; the baseline first."""
    curves = {run.path: np.array(fact["curve"]) for run, fact in zip(sweep.before, sweep.facts, strict=True)}
    arms = {arm.label: arm for arm in sweep.arms}
    return {label: {seed: curves[run.path] for seed, run in arms[label].runs.items()} for label in sweep.result["runs"]}


def _called_as_its_runs(arm: Arm) -> Arm:
    names = sorted({arm_of(run.path) for run in arm.runs.values()})
    if len(names) > 1:
        paths = ", ".join(str(run.path) for run in arm.runs.values())
        raise UserError(f"{paths} have the same settings and different names; leave the wrong ones out.")
    return replace(arm, label=names[0])
