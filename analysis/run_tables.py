"""Runs one by one: what each record says before and after training, with intervals over problems."""

from pathlib import Path

import numpy as np

from analysis.arms import check_same_problems
from analysis.evaluated import EvaluatedRun, read_evaluated, read_facts
from analysis.results_tables import interval_cell, title, unit_of
from analysis.sweep import arm_of
from common.errors import UserError
from common.markdown import markdown_table
from evaluation.metrics import mean_interval, paired_difference


def runs_table(folder: Path, which: str) -> str:
    """A row per record of ``folder``: outcomes and metrics before and after training.

    Shares of which the record has every sample, such as "accuracy" and "pass@8", come with the intervals that the run
    printed and with the gain, paired by problem; other metrics of an evaluation as they are.

    Args:
        folder: of one record or more, of one arm or of several.
        which: outcomes and metrics, separated by spaces.

    Raises `UserError` where none is asked for, or a record has none of that name.
    """
    if not which:
        raise UserError(f"a page shows runs of {folder} and no outcome of them; name some, such as accuracy.")
    rows = [_row(path, which.split()) for path in sorted(folder.glob("*.json"))]
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows])


def _row(path: Path, names: list[str]) -> dict[str, str]:
    """Heading -> cell."""
    runs = [read_evaluated(path, when) for when in ("before", "after")]
    check_same_problems(runs)
    metrics = [read_facts(path)["metrics"].get(when, {}) for when in ("before", "after")]
    row = {"arm": f"`{arm_of(path)}`", "seed": str(runs[0].seed)}
    for name in names:
        if all(name in run.scores for run in runs) and unit_of(name)[0] == "%":
            row |= _share(title(name), *(_by_problem(run, name) for run in runs))
        elif all(name in found for found in metrics):
            row[f"`{name}` before, after"] = ", ".join(f"{found[name]:.3g}" for found in metrics)
        else:
            known = ", ".join(sorted({*runs[0].scores, *metrics[1]}))
            raise UserError(f"{path} has no outcome and no metric {name!r}; it has {known}.")
    return row


def _by_problem(run: EvaluatedRun, outcome: str) -> np.ndarray:
    """(P,) in the order of the problems' numbers, as an evaluation has them: it resamples them in that order."""
    ids = list(run.problems)
    places = sorted(range(len(ids)), key=ids.__getitem__) if all(isinstance(one, int) for one in ids) else slice(None)
    return run.scores[outcome][places]


def _share(name: str, before: np.ndarray, after: np.ndarray) -> dict[str, str]:
    """Of (P,) shares of the samples of each problem."""
    old, new = (interval_cell(mean_interval(values[:, None])) for values in (before, after))
    gain = paired_difference(before, after)
    gained = interval_cell(gain | {"mean": gain["difference"]}, sign="+")
    return {f"{name} before, %": old, f"{name} after, %": new, f"{name}, gain": gained}
