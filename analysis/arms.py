"""Evaluated run folders as arms of an experiment: runs that differ in nothing but their seed, on the same problems."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import read_json
from evaluation.against_base import first_pass
from evaluation.approaches import approach_counts, coverage_at_n
from evaluation.compare import IDENTITY, read_report
from evaluation.metrics import KS, pass_at_k
from rewards.grade import is_false_claim

BEST_RECORD = Path("best", "held_out.json")  # which evaluation the policy in best/ was chosen by
NEEDED = ("id", "medium", "verdict", "length", "truncated")  # of every record
# What a run is called and where it lives, and TRL's names of flags that have one of ours.
NOT_SETTINGS = (
    *("seed", "output_dir", "run_name", "name_parts", "resume", "resume_from_checkpoint"),
    *("dry_run", "config_file"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "max_completion_length", "num_train_epochs"),
)


class Unfinished(Exception):
    """A run folder without the evaluation asked for; the message says which."""


@dataclass(frozen=True)
class RunSettings:
    """What a run was started with.

    Attributes:
        seed: value of ``--seed``.
        flags: every flag but `NOT_SETTINGS`, as the last session of the run had them.
        commit: of the code, with "+ changes" where files differed from it; "unknown" outside git.
    """

    seed: int
    flags: dict[str, Any]
    commit: str


@dataclass(frozen=True)
class EvaluatedRun:
    """One evaluation of one run; ``seed``, ``flags`` and ``commit`` are those of `RunSettings`.

    Attributes:
        path: the run folder.
        task: name of the task.
        problems: what each problem is, by its id, ids in a fixed order.
        scores: outcome -> (P,) means over the samples of each problem, in the order of ``problems``.
    """

    path: Path
    task: str
    seed: int
    flags: dict[str, Any]
    commit: str
    problems: dict[Any, str]
    scores: dict[str, np.ndarray]


@dataclass(frozen=True)
class Arm:
    """Runs of the same settings by seed; ``label`` names the flags in which arms differ."""

    label: str
    runs: dict[int, EvaluatedRun]

    @property
    def bonus(self) -> str | None:
        """Value of ``--use_ir``."""
        return next(iter(self.runs.values())).flags.get("use_ir")

    def table(self, outcome: str, seeds: Sequence[int]) -> np.ndarray:
        """(S, P) scores of the runs of ``seeds``."""
        return np.stack([self.runs[seed].scores[outcome] for seed in seeds])


def read_evaluated(folder: str | Path, which: str) -> EvaluatedRun:
    """The evaluation ``eval/<which>.json`` of a run folder; "best": the one that chose the policy in ``best/``.

    Raises:
        Unfinished: the folder holds a run, but not that evaluation.
        UserError: the folder is no run, or a file in it is damaged.
    """
    path = Path(folder)
    settings = read_settings(path)
    evaluation = _evaluation_path(path, which)
    report = read_report(evaluation, needed=NEEDED)
    problems, scores = _scores(first_pass(report), evaluation)
    return EvaluatedRun(path, report["task"], settings.seed, settings.flags, settings.commit, problems, scores)


def read_settings(path: Path) -> RunSettings:
    """What ``run.json`` of a run folder says; raises `UserError` where there is none or it is damaged."""
    if not (path / "run.json").is_file():
        raise UserError(f"{str(path)!r} is no run folder (it has no run.json); give outputs/<task>/<run name>.")
    record = read_json(path / "run.json", "restore it, or leave this run out")
    try:
        latest = [record, *(record.get("resumed") or [])][-1]
        flags = {name: value for group in latest["options"].values() for name, value in group.items()}
        git = latest.get("git") or {"commit": "unknown", "dirty": False}
        commit = git["commit"] + " + changes" * git["dirty"]
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path / 'run.json'} is damaged ({error!r}); restore it, or leave this run out.") from error
    if type(record.get("seed")) is not int:
        raise UserError(f"{path / 'run.json'} has seed={record.get('seed')!r}, no whole number; leave this run out.")
    settings = {name: value for name, value in flags.items() if name not in NOT_SETTINGS}
    return RunSettings(record["seed"], settings, commit)


def _evaluation_path(path: Path, which: str) -> Path:
    name = which
    if which == "best":
        if not (path / BEST_RECORD).is_file():
            raise Unfinished(f"{path} has no {BEST_RECORD}")
        name = str(read_json(path / BEST_RECORD, "leave this run out").get("name"))
    found = path / "eval" / f"{name}.json"
    if not found.is_file():
        raise Unfinished(f"{path} has no eval/{name}.json")
    return found


def _scores(records: list[dict], path: Path) -> tuple[dict[Any, str], dict[str, np.ndarray]]:
    """(problems, scores) of `EvaluatedRun` from the records of one pass."""
    try:
        by_problem: dict[Any, list[dict]] = {}
        for record in records:
            by_problem.setdefault(record["id"], []).append(record)
        groups = {identity: by_problem[identity] for identity in sorted(by_problem, key=str)}
        columns = {
            "accuracy": [[float(record["medium"]) for record in group] for group in groups.values()],
            "false_claims": [[is_false_claim(record["verdict"]) for record in group] for group in groups.values()],
            "length": [[float(record["length"]) for record in group] for group in groups.values()],
            "truncated": [[float(record["truncated"]) for record in group] for group in groups.values()],
        }
        approaches = [
            approach_counts([record.get("approach") for record in group], [record["medium"] for record in group])
            for group in groups.values()
        ]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} has a damaged record ({error}); leave this run out.") from error
    problems = {
        identity: json.dumps([group[0][name] for name in IDENTITY if name in group[0]])
        for identity, group in groups.items()
    }
    scores = {name: np.array([np.mean(values) for values in column]) for name, column in columns.items()}
    samples = np.array([len(group) for group in groups.values()])
    right = np.array([sum(values) for values in columns["accuracy"]], dtype=int)
    for k in KS:
        if 1 < k <= samples.min():
            scores[f"pass@{k}"] = pass_at_k(samples, right, k)
            if any(approaches) and samples.min() == samples.max():
                scores[f"coverage@{k}"] = coverage_at_n(samples[0], approaches, k)
    return problems, scores


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

    Raises:
        UserError: two runs of the same settings and seed, or a single arm.
    """
    groups: dict[str, dict[int, EvaluatedRun]] = {}
    for run in runs:
        group = groups.setdefault(json.dumps(run.flags, sort_keys=True), {})
        if run.seed in group:
            raise UserError(
                f"{group[run.seed].path} and {run.path} have the same settings and --seed {run.seed}; leave one out."
            )
        group[run.seed] = run
    labels = arm_labels([next(iter(group.values())).flags for group in groups.values()])
    if len(labels) < 2:
        raise UserError(
            f"the {len(runs)} finished runs have the same settings, so there is one arm; name runs of another one too."
        )
    return [Arm(label, dict(sorted(group.items()))) for label, group in zip(labels, groups.values(), strict=True)]


def arm_labels(settings: Sequence[dict[str, Any]]) -> list[str]:
    """What to call each of ``settings``: its --use_ir, and the other flags in which they differ."""
    differing = _differing_flags(settings)
    return [_label(flags, differing) for flags in settings]


def _differing_flags(settings: Sequence[dict]) -> list[str]:
    """Flags that do not have the same value in all ``settings``, ``use_ir`` first."""
    names = dict.fromkeys(name for flags in settings for name in flags)
    found = [name for name in names if len({json.dumps(flags.get(name), sort_keys=True) for flags in settings}) > 1]
    return sorted(found, key=lambda name: name != "use_ir")


def _label(flags: dict, differing: Sequence[str]) -> str:
    shown = [(name, "unset" if flags.get(name) in (None, "") else flags[name]) for name in differing]
    return ", ".join(str(value) if name == "use_ir" else f"{name}={value}" for name, value in shown)
