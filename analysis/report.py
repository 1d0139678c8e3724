"""The report of a run as one self-contained HTML file: ``python -m analysis.report RUN``."""

import argparse
import base64
import json
import re
from collections.abc import Mapping
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment

from analysis.plots import plot_run
from analysis.runs import Run, read_run
from common.errors import UserError, run_cli
from evaluation.table import comparison_rows, interval_note

NUM_SAMPLES = 10
MAX_TEXT = 6000
LAST_STEPS = 10
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Run {{ name }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; } h2 { font-size: 1.25rem; margin-top: 2.4rem; }
p.note { color: #666; margin: .3rem 0 1rem; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .3rem 1.4rem .3rem 0; border-bottom: 1px solid #e4e4e4; vertical-align: top;
  overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
th { font-weight: 600; white-space: nowrap; } table.headline td:nth-child(3) { font-weight: 600; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
details { margin: .6rem 0; } summary { cursor: pointer; font-weight: 600; }
.sample { border-top: 1px solid #e4e4e4; padding: .8rem 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f7f7f7; padding: .7rem; margin: .3rem 0;
  max-height: 24rem; overflow-y: auto; font-size: .85rem; direction: ltr; unicode-bidi: isolate; }
.right { color: #0072b2; font-weight: 600; } .wrong { color: #b34e00; font-weight: 600; }
</style>
</head>
<body>
<h1>Run {{ name }}</h1>
<p class="note">{{ subtitle }}</p>

<h2>Before and after training</h2>
{% if headline %}
<table class="headline">
<tr><th>metric</th><th>before</th><th>after</th><th>factor</th></tr>
{% for row in headline %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
<p class="note">{{ note }}</p>
{% else %}<p>This run holds no evaluation.</p>{% endif %}

<h2>Warnings</h2>
{% if warnings is none %}<p>No watchdog looked at this run: it has no warnings.jsonl.</p>
{% elif warnings %}
<table>
<tr><th>step</th><th>watchdog</th><th>what it saw</th><th>what to try</th></tr>
{% for row in warnings %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% else %}<p>No warning: length, repetition, entropy, rewards, bonuses and accuracy stayed within their limits.
Watchdogs of training compare windows of ten logged steps and say nothing before the twentieth.</p>
{% endif %}

{% if figures %}<h2>Figures</h2>
{% for title, data in figures %}<img alt="{{ title }}" src="data:image/png;base64,{{ data }}">
{% endfor %}{% endif %}

{% if samples %}<h2>Sample completions</h2>
<p class="note">{{ samples|length }} held-out problems, chosen to show every change of verdict.</p>
{% for sample in samples %}<div class="sample">
<b>Problem {{ sample.id }}</b>
<pre>{{ sample.prompt }}</pre>
<div class="pair">
{% for side in sample.sides %}<div>
{{ side.when }}: <span class="{{ 'right' if side.correct else 'wrong' }}">{{ side.verdict }}</span>
<pre>{{ side.completion }}</pre>
</div>
{% endfor %}</div>
</div>
{% endfor %}{% endif %}

{% if last %}<h2>Training metrics at the end</h2>
<table>
<tr><th>metric</th><th>last value</th><th>mean of the last {{ last_steps }} logged values</th></tr>
{% for row in last %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}

{% if settings %}<h2>Settings</h2>
<details open><summary>{{ settings|length }} entries of run.json</summary>
<table>
{% for key, value in settings %}<tr><td>{{ key }}</td><td>{{ value }}</td></tr>
{% endfor %}</table>
</details>{% endif %}
</body>
</html>
"""


def write_report(run_folder: str | Path) -> Path:
    """Draw the figures of a run folder and write its report.html, which needs no other file and no network.

    Returns the path of the report.

    Raises:
        UserError: the folder is no run (see `analysis.runs.read_run`), or a line of its warnings.jsonl is damaged.
    """
    run = read_run(run_folder)
    before, after = run.evals.get("before"), run.evals.get("after")
    samples = _pick_samples(before, after)
    # Every value is made printable first and escaped after that.
    environment = Environment(autoescape=True, finalize=printable)
    html = environment.from_string(TEMPLATE).render(
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
    path.write_text(html, encoding="utf-8")
    return path


def _read_warnings(path: Path) -> list[tuple] | None:
    """(step, watchdog, message, advice) of every line that the watchdogs wrote; None where none ever looked."""
    if not path.exists():
        return None
    warnings, columns = [], ("step", "watchdog", "message", "advice")
    # A line without its line break was cut off when the run was killed.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            warning = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} line {number} is no JSON ({error}); remove the line.") from error
        if not isinstance(warning, dict) or not warning.keys() >= set(columns):
            raise UserError(f"{path} line {number} does not hold {', '.join(columns)}; remove the line.")
        warnings.append(tuple(warning[column] for column in columns))
    return warnings


def printable(value: Any) -> str:
    """Text that UTF-8 and HTML can hold: lone surrogates as their escapes, control characters as visible symbols."""
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(lambda match: chr(0x2400 + ord(match[0])) if ord(match[0]) < 0x20 else "\ufffd", text)


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
    parser = argparse.ArgumentParser(description="Write the report of a run as one HTML file.")
    parser.add_argument("run", metavar="RUN", help="run folder, outputs/<task>/<run name>")
    print(write_report(parser.parse_args().run))


if __name__ == "__main__":
    run_cli(main)
