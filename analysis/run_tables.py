"""Runs one by one: what each record says before and after training, with intervals over problems."""

from pathlib import Path

import numpy as np

from analysis.evaluated import read_evaluated, read_facts
from analysis.results_tables import markdown, title, unit_of
from analysis.sweep import arm_of
from common.errors import UserError
from evaluation.metrics import mean_interval, paired_difference
from evaluation.table import format_metric


def runs_table(folder: Path, which: str) -> str:
    """A row per record of ``folder``: outcomes and metrics before and after training.

    Shares of which the record has every sample, such as "accuracy" and "pass@8", come with their intervals and with the
    gain, paired by problem; other metrics of an evaluation as they are.

    Args:
        folder: of the records, of one arm or of several.
        which: outcomes and metrics, separated by spaces.

    Raises `UserError` where a record has none of that name.
    """
    rows = [_row(path, which.split()) for path in sorted(folder.glob("*.json"))]
    return markdown(list(rows[0]), [list(row.values()) for row in rows])


def _row(path: Path, names: list[str]) -> dict[str, str]:
    """Heading -> cell."""
    before, after = (read_evaluated(path, when) for when in ("before", "after"))
    metrics = read_facts(path)["metrics"]
    row = {"arm": f"`{arm_of(path)}`", "seed": str(before.seed)}
    for name in names:
        if name in before.scores and unit_of(name)[0] == "%":
            row |= _share(title(name), before.scores[name], after.scores[name])
        elif all(name in metrics.get(when, ()) for when in ("before", "after")):
            values = (format_metric(name, metrics[when][name]) for when in ("before", "after"))
            row[f"`{name}` before, after"] = ", ".join(values)
        else:
            known = ", ".join(sorted({*before.scores, *metrics.get("after", ())}))
            raise UserError(f"{path} has no outcome and no metric {name!r}; it has {known}.")
    return row


def _share(name: str, before: np.ndarray, after: np.ndarray) -> dict[str, str]:
    """Of (P,) shares of the samples of each problem."""
    old, new = (_shown(mean_interval(values[:, None])) for values in (before, after))
    gain = paired_difference(before, after)
    gained = _shown(gain | {"mean": gain["difference"]}, "+")
    return {f"{name} before, %": old, f"{name} after, %": new, f"{name}, gain": gained}


def _shown(interval: dict[str, float], sign: str = "") -> str:
    mean, low, high = (f"{100 * interval[name]:{sign}.1f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
