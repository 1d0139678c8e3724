"""Read a run folder: logged metrics, evaluations and settings."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common.errors import UserError
from common.files import read_json, read_steps

FIX = "restore or remove it"  # of a damaged file


@dataclass(frozen=True)
class Run:
    """What a run left behind.

    Attributes:
        path: the run folder.
        name: name of the folder, printable.
        settings: content of run.json, empty where there is none.
        log: one row per logged step in ascending order, column "step" and one float column per logged metric.
        evals: content of eval/*.json by file stem, in the order before, step_<N>, after, others.
    """

    path: Path
    name: str
    settings: dict[str, Any]
    log: pd.DataFrame
    evals: dict[str, dict[str, Any]]

    @property
    def last_step(self) -> int:
        """The last logged step, 0 where nothing is logged."""
        return int(self.log["step"].max()) if len(self.log) else 0

    def series(self, column: str) -> pd.Series:
        """The finite values of a metric indexed by step; empty where the metric was never logged."""
        if column not in self.log:
            return pd.Series(dtype=float)
        series = self.log.set_index("step")[column]
        return series[np.isfinite(series)]

    def columns(self, pattern: str) -> dict[str, re.Match]:
        """The logged metrics with a finite value whose whole name matches the regular expression, sorted by name."""
        matches = {column: re.fullmatch(pattern, column) for column in sorted(self.log.columns)}
        return {column: match for column, match in matches.items() if match and len(self.series(column))}

    def eval_step(self, name: str) -> int:
        """The optimiser step at which an evaluation was made: its "step", else 0 for before and the last for after."""
        step = self.evals[name].get("step")
        if step is not None:
            return int(step)
        return 0 if name == "before" else self.last_step


def read_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: the folder is missing, holds neither metrics.jsonl nor an evaluation, or a file in it is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{str(path)!r} is not a folder; give a run folder such as outputs/<task>/<run name>.")
    log = _read_log(path / "metrics.jsonl")
    evals = _read_evals(path / "eval")
    if not len(log) and not evals:
        raise UserError(f"{str(path)!r} is no run: no steps in metrics.jsonl and no eval/*.json; give a run folder.")
    settings = read_json(path / "run.json", FIX) if (path / "run.json").exists() else {}
    name = path.resolve().name.encode("utf-8", "backslashreplace").decode()
    return Run(path=path, name=name, settings=settings, log=log, evals=evals)


def _read_log(path: Path) -> pd.DataFrame:
    """One row per step; of a step logged twice (a resumed run) the later value of each metric counts."""
    records = read_steps(path)
    if not records:
        return pd.DataFrame({"step": pd.Series(dtype=int)})
    frame = pd.DataFrame.from_records(records).apply(pd.to_numeric, errors="coerce")
    return frame.groupby("step", as_index=False).last().astype({"step": int})


def _read_evals(folder: Path) -> dict[str, dict[str, Any]]:
    evals = {}
    for path in sorted(folder.glob("*.json"), key=_eval_order):
        evals[path.stem] = read_json(path, FIX)
        if not isinstance(evals[path.stem].get("metrics"), dict):
            raise UserError(f'{path} holds no "metrics"; it is not an evaluation, move it out of {folder}.')
    return evals


def _eval_order(path: Path) -> tuple[int, int, str]:
    step = re.fullmatch(r"step_(\d+)", path.stem)
    rank = {"before": 0, "after": 2}.get(path.stem, 1 if step else 3)
    return rank, int(step.group(1)) if step else 0, path.stem
