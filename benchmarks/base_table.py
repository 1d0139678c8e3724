"""One table of the evaluations of an untrained policy: where it stands on each task, and under which prompt.

python -m benchmarks.base_table --evaluations outputs/base_table/smollm2

Reads what run_eval.py wrote; bash benchmarks/base_table.sh makes all of it. Kept are the settings and metrics of each
evaluation, without questions and completions.
"""

from dataclasses import dataclass
from pathlib import Path

from analysis.results_tables import interval_cell
from benchmarks.machine import note_of_reports, publish
from common.errors import UserError, run_cli
from common.flags import OutputStem, flag, parse_one
from common.markdown import markdown_table
from evaluation.checkpoint import weights_digest
from evaluation.compare import RANKS, read_report
from evaluation.table import MISSING
from rewards.grade import TIERS

TIER_HEADS = [f"{name}, %" for name in (*TIERS, "pass@8")]
HEADS = ["task", "prompt", "problems", *TIER_HEADS, "well formed", "tokens", "cut off"]
RANK_HEADS = ["task, options ranked", "problems", "by log-probability, %", "per byte, %"]
RANK_HEADS += ["above chance", "above chance, per byte"]
SHOWN = 40  # characters of a digest, or of a hub name, that stands for weights


@dataclass
class Options:
    """Which evaluations, and where the table goes."""

    evaluations: str = flag(
        "outputs/base_table/smollm2", "Folder of the JSON files that run_eval.py wrote, of one policy."
    )
    model_name: str = flag(
        "", "Policy that they must be of: hub name, folder or an embedded one. Unset: any single one."
    )
    output: OutputStem = flag("outputs/base_table/table", "Path of the table, without extension.")


def read(folder: Path, model_name: str = "") -> list[dict]:
    """Name, task, settings and metrics of each evaluation in ``folder``.

    Raises `UserError` where there is none, or one of other weights than those of ``model_name``, or of the first one
    where that is "".
    """
    found, of, weights = [], f"--model_name={model_name!r}", model_name and weights_digest(model_name)
    for path in sorted(folder.glob("*.json")):
        report = read_report(path, needed=())
        theirs = report.get("weights", weights)
        if theirs != (weights or theirs):
            raise UserError(
                f"{path} has the weights {theirs[:SHOWN]!r}, and {of} has {weights[:SHOWN]!r}; move it away, or give "
                "another --evaluations."
            )
        if not weights:
            of, weights = str(path), theirs
        kept = {name: value for name, value in report.items() if name not in ("records", "name")}
        kept["settings"] = {name: value for name, value in report.get("settings", {}).items() if name != "data"}
        found.append({"name": path.stem, **kept})
    if not found:
        raise UserError(f"--evaluations={str(folder)!r} has no JSON file; bash benchmarks/base_table.sh makes them.")
    return found


def table(evaluations: list[dict]) -> str:
    """Markdown: a row per generating evaluation, and below it a row per ranking of options."""
    ranked = [_ranked(row) for row in evaluations if RANKS[0] in row["metrics"]]
    generated = [_generated(row) for row in evaluations if RANKS[0] not in row["metrics"]]
    tables = [markdown_table(heads, rows) for heads, rows in ((HEADS, generated), (RANK_HEADS, ranked)) if rows]
    note = "Brackets: 95 % intervals over problems. Strict, medium and loose are means over samples; medium is pass@1."
    return "\n\n".join([*tables, note])


def _generated(row: dict) -> list[str]:
    metrics, settings = row["metrics"], row["settings"]
    cells = [_task(row), settings["prompt_type"], str(row["problems"])]
    cells += [_percent(metrics.get(name)) for name in (*TIERS, "pass@8")]
    return cells + [f"{metrics['well_formed']:.0%}", f"{metrics['mean_length']:.0f}", f"{metrics['truncated']:.0%}"]


def _ranked(row: dict) -> list[str]:
    metrics = row["metrics"]
    cells = [row["task"], str(row["problems"]), *(_percent(metrics[name]) for name in RANKS)]
    return cells + [f"{metrics[f'{name}/chance_corrected']:.3f}" for name in RANKS]


def _task(row: dict) -> str:
    """With the split, where a task's splits are harder and easier problems."""
    split, unit = row["settings"]["split"], {"countdown": " numbers", "igsm": ""}.get(row["task"])
    return row["task"] if unit is None else f"{row['task']}, {split}{unit}"


def _percent(value: dict | None) -> str:
    return MISSING if value is None else interval_cell(value)


def main() -> None:
    options = parse_one(Options)
    evaluations = read(Path(options.evaluations), options.model_name)
    shown = f"{table(evaluations)}\n\n{note_of_reports(evaluations)}"
    publish(options.output, shown, {"evaluations": evaluations})


if __name__ == "__main__":
    run_cli(main)
