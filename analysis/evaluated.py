"""One evaluation of one run, read from its run folder or from the record of it that is kept under ``results/``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.outcomes import Outcomes
from common.errors import UserError
from common.files import read_json
from evaluation.against_base import first_pass
from evaluation.compare import read_report

RECORD_VERSION = 1
RECORD_FIX = "restore it with git, or leave it out"
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
        path: the run folder, or the record.
        task: name of the task.
        problems: a hash of what each problem is, by its id, ids in a fixed order.
        scores: outcome -> (P,) means over the samples of each problem, in the order of ``problems``.
    """

    path: Path
    task: str
    seed: int
    flags: dict[str, Any]
    commit: str
    problems: dict[Any, str]
    scores: dict[str, np.ndarray]


def read_evaluated(source: str | Path, which: str) -> EvaluatedRun:
    """The evaluation ``eval/<which>.json`` of a run folder, or of a record of one (`analysis.records`).

    "best" is the evaluation that chose the policy in ``best/`` of a run folder.

    Raises:
        Unfinished: there is a run, but not that evaluation of it.
        UserError: there is no run, or a file is damaged.
    """
    path = Path(source)
    if path.suffix == ".json":
        return read_record(path, which)
    settings = read_settings(path)
    evaluation = _evaluation_path(path, which)
    report = read_report(evaluation, needed=NEEDED)
    return _evaluated(path, report["task"], settings, outcomes_of(report, evaluation))


def outcomes_of(report: dict, path: Path) -> Outcomes:
    """Those of the first pass of a report, read from ``path``; raises `UserError` where a record is damaged."""
    try:
        return Outcomes.of_records(first_pass(report))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} has a damaged record ({error}); leave this run out.") from error


def read_record(path: Path, which: str) -> EvaluatedRun:
    """The evaluation ``which`` of the record ``path``. Raises as `read_evaluated` does."""
    if not path.is_file():
        raise UserError(f"{str(path)!r} is no file; give a record, results/<sweep>/<run>.json, or a run folder.")
    record = read_json(path, RECORD_FIX)
    if record.get("version") != RECORD_VERSION:
        raise UserError(f"{path} is no record of a run of version {RECORD_VERSION}; make it again from the run folder.")
    try:
        settings = RunSettings(record["seed"], record["flags"], record["commit"])
        if which not in record["evaluations"]:
            raise Unfinished(f"{path} has no evaluation {which!r}")
        outcomes = Outcomes.unpacked(record["evaluations"][which])
        return _evaluated(path, record["task"], settings, outcomes)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r}); {RECORD_FIX}.") from error


def read_facts(path: Path) -> dict[str, Any]:
    """Steps, minutes, samples per problem, machine, metrics and accuracy in training of the record ``path``.

    The metrics are {} in a record that has none. The accuracy in training, a value per logged step, is called curve.
    Raises `UserError` where the record is damaged.
    """
    record = read_json(path, RECORD_FIX)
    try:
        samples = record["evaluations"]["after"]["samples"]
        facts = {name: record[name] for name in ("steps", "minutes", "machine")}
        curve = record["curves"].get("rewards/correctness/mean", [])
        return facts | {"samples": samples, "metrics": record.get("metrics", {}), "curve": curve}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); {RECORD_FIX}.") from error


def _evaluated(path: Path, task: str, settings: RunSettings, outcomes: Outcomes) -> EvaluatedRun:
    problems, scores = outcomes.problems, outcomes.scores()
    return EvaluatedRun(path, task, settings.seed, settings.flags, settings.commit, problems, scores)


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
