"""The report of a run as one self-contained HTML file: ``python -m analysis.report RUN``."""

import base64
from collections.abc import Mapping
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from analysis.pages import render_page
from analysis.plots import plot_run
from analysis.runs import Run, read_run
from common.errors import run_cli
from common.files import read_steps, write_text
from common.flags import NamesParser
from evaluation.table import comparison_rows, interval_note

NUM_SAMPLES = 10
MAX_TEXT = 6000
LAST_STEPS = 10


def write_report(run_folder: str | Path) -> Path:
    """Draw the figures of a run folder and write its report.html, which needs no other file and no network.

    Returns the path of the report.

    Raises:
        UserError: the folder is no run (see `analysis.runs.read_run`), or a line of its warnings.jsonl is damaged.
    """
    run = read_run(run_folder)
    before, after = run.evals.get("before"), run.evals.get("after")
    samples = _pick_samples(before, after)
    html = render_page(
        "report.html",
        name=run.name,
        subtitle=_subtitle(run),
        headline=comparison_rows(before, after),
        note=interval_note(before, after),
        warnings=_read_warnings(run.path / "warnings.jsonl"),
        figures=[(file.stem.replace("_", " "), base64.b64encode(file.read_bytes()).decode()) for file in plot_run(run)],
        samples=samples,
        last=_last_values(run),
        last_steps=LAST_STEPS,
        settings=list(_flatten(run.settings)),
    )
    path = run.path / "report.html"
    write_text(path, html)
    return path


def _read_warnings(path: Path) -> list[tuple] | None:
    """(step, watchdog, message, advice) of every line that the watchdogs wrote; None where none ever looked."""
    if not path.exists():
        return None
    columns = ("step", "watchdog", "message", "advice")
    return [tuple(warning[column] for column in columns) for warning in read_steps(path, needed=columns[1:])]


def _subtitle(run: Run) -> str:
    parts = [str(evaluation["task"]) for evaluation in run.evals.values() if evaluation.get("task")][:1]
    parts.append(f"{run.last_step} optimiser steps")
    seconds = run.series("seconds")
    if len(seconds):
        parts.append(f"{seconds.iloc[-1] / 60:.1f} minutes")
    return ", ".join(parts)


def _flatten(settings: Mapping[str, Any], prefix: str = ""):
    """(dotted key, value) of every leaf of nested settings."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _last_values(run: Run) -> list[tuple[str, str, str]]:
    rows = []
    for column in sorted(set(run.log.columns) - {"step", "seconds"}):
        series = run.series(column)
        if len(series):
            rows.append((column, f"{series.iloc[-1]:.4g}", f"{series.tail(LAST_STEPS).mean():.4g}"))
    return rows


def _pick_samples(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Up to `NUM_SAMPLES` problems with their first completion of each evaluation.

    Taken in turn from the four changes of verdict (learnt, kept, still wrong, lost), so that each is seen if it exists.
    """
    sides = {"before": _first_records(before), "after": _first_records(after)}
    by_change: dict[tuple, list[dict[str, Any]]] = {
        (False, True): [],
        (True, True): [],
        (False, False): [],
        (True, False): [],
    }
    for key in dict.fromkeys([*sides["after"], *sides["before"]]):
        records = {when: records[key] for when, records in sides.items() if key in records}
        change = tuple(bool(record.get("correct")) for record in records.values())
        by_change.setdefault(change, []).append(_sample(records))
    turns = chain.from_iterable(zip_longest(*by_change.values()))
    return [sample for sample in turns if sample is not None][:NUM_SAMPLES]


def _first_records(evaluation: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    records: dict[str, Mapping[str, Any]] = {}
    for record in (evaluation or {}).get("records", []):
        records.setdefault(str(record.get("id")), record)
    return records


def _sample(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first = next(iter(records.values()))
    return {
        "id": first.get("id"),
        "prompt": _shorten(_prompt_text(first.get("prompt", ""))),
        "sides": [
            {
                "when": when,
                "correct": bool(record.get("correct")),
                "verdict": record.get("verdict") or ("right" if record.get("correct") else "wrong"),
                "completion": _shorten(str(record.get("completion", ""))),
            }
            for when, record in records.items()
        ],
    }


def _prompt_text(prompt: Any) -> str:
    """A prompt as text, a list of chat messages as one paragraph per message."""
    if isinstance(prompt, list):
        return "\n\n".join(f"{message.get('role')}: {message.get('content')}" for message in prompt)
    return str(prompt)


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}\n[{len(text) - MAX_TEXT} more characters]"


def main() -> None:
    """Command line: write the report of one run folder and print its path."""
    parser = NamesParser("Write the report of a run as one HTML file.")
    parser.add_argument("run", metavar="RUN", help="run folder, outputs/<task>/<run name>")
    print(write_report(parser.parse_args().run))


if __name__ == "__main__":
    run_cli(main)
