"""The plain-text table that closes a run: each metric before and after training."""

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from evaluation.against_base import base_lines
from evaluation.options import LARGEST_K

HEADER = ("metric", "before", "after", "factor")
MISSING = "-"
COUNTS = ("right_approaches", "coverage@", "distinct_")  # whatever their size
SHARES = (
    *("accuracy", "strict", "medium", "loose", "false_claims", "truncated", "clipped", "well_formed"),
    *("multiple_answers", "pass@", "maj@", "cover@"),
)


def comparison_rows(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    """Text rows (metric, before, after, factor after/before) of two evaluations; either may be None.

    An evaluation is the content of an eval/*.json or its "metrics" alone. Metrics whose value is no number are left
    out, as are pass@1 and the medium tier, which equal the accuracy.
    """
    old, new = _metrics(before), _metrics(after)
    names = [name for name in dict.fromkeys([*new, *old]) if not _repeats_accuracy(name, {*new, *old})]
    rows = []
    for name in names:
        values = old.get(name), new.get(name)
        if any(point(value) is not None for value in values):
            rows.append((name, *(format_metric(name, value) for value in values), _factor(*values)))
    return rows


def closing_table(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """The table of `comparison_rows` as aligned text, with the number of problems behind the intervals below it."""
    rows = [HEADER, *comparison_rows(before, after)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    last = after or before or {}
    notes = [interval_note(before, after), sample_note(last), *base_lines(last.get("against_base"))]
    return "\n".join([*lines, *filter(None, notes)])


def interval_note(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """One line that says what the brackets are, or "" where no metric has an interval."""
    counts = {
        value["n"]
        for value in (*_metrics(before).values(), *_metrics(after).values())
        if isinstance(value, Mapping) and value.get("n") is not None
    }
    if not counts:
        return ""
    return f"[low, high]: 95 % interval over {' and '.join(str(count) for count in sorted(counts))} problems"


def sample_note(evaluation: Mapping[str, Any]) -> str:
    """One line on which pass@k rest on fewer than 2 k samples, and how to get more; "" where none does."""
    decoding = evaluation["passes"][0]["decoding"] if "passes" in evaluation else evaluation.get("decoding")
    if decoding is None or decoding["samples"] >= 2 * LARGEST_K:
        return ""
    samples = decoding["samples"]
    rests = f"pass@k rest on 2 k samples up to k = {samples // 2}" if samples > 1 else "one sample per problem"
    more = f"run_eval.py --temperature 1, or --eval_samples {2 * LARGEST_K} in training"
    return f"{rests}; pass@{LARGEST_K} asks for {2 * LARGEST_K}: {more}"


def point(value: Any) -> float | None:
    """The number a metric stands for: the mean of an interval, or the number itself; None for anything else."""
    if isinstance(value, Mapping):
        value = value.get("mean")
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


def format_metric(name: str, value: Any) -> str:
    """A metric as text: shares in per cent, an interval in brackets, other numbers with four digits."""
    mean = point(value)
    if mean is None:
        return MISSING
    is_interval = isinstance(value, Mapping) and value.get("low") is not None and value.get("high") is not None
    last = name.rpartition("/")[2]
    named_share = any(part.startswith(SHARES) for part in name.split("/"))
    is_share = (value["high"] <= 1 if is_interval else named_share) and not last.startswith(COUNTS)
    scale, form = (100, ".1f") if is_share else (1, ".4g")
    unit = " %" if is_share else ""
    text = f"{mean * scale:{form}}{unit}"
    return f"{text} [{value['low'] * scale:{form}}, {value['high'] * scale:{form}}]" if is_interval else text


def _repeats_accuracy(name: str, names: set[str]) -> bool:
    prefix, slash, metric = name.rpartition("/")
    return metric in ("pass@1", "medium") and f"{prefix}{slash}accuracy" in names


def _metrics(evaluation: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if evaluation is None else evaluation.get("metrics", evaluation)


def _factor(before: Any, after: Any) -> str:
    old, new = point(before), point(after)
    return f"{new / old:.2f}x" if old and new is not None else MISSING


def report_text(report: dict, path: Path, tier: str = "") -> str:
    """The metrics of a report, one line each, then what they rest on; ``tier`` alone if given."""
    metrics = {tier: report["metrics"][tier]} if tier else report["metrics"]
    width = max(20, *(len(name) + 2 for name in metrics))
    shown = {name: value for name, value in metrics.items() if name not in ("accuracy", "pass@1")}
    lines = [f"{name:{width}}{format_metric(name, value)}" for name, value in shown.items()]
    if note := sample_note(report):
        lines.append(note)
    return "\n".join([*lines, f"{interval_note(None, metrics)}; task {report['task']}; records: {path}"])
