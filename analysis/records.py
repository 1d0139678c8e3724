"""A finished run as one small JSON file, which is kept under results/ and from which every figure can be computed.

python -m analysis.records outputs/countdown/RUN ... --out results/countdown
"""

from pathlib import Path
from typing import Any

from analysis.evaluated import NEEDED, RECORD_VERSION, outcomes_of, read_settings
from analysis.runs import Run, read_run
from common.errors import UserError, run_cli
from common.files import check_output, read_json, write_json
from common.flags import NamesParser
from evaluation.compare import read_report
from evaluation.table import point

EVALUATIONS = ("before", "after")
CURVES = (
    r"rewards/correctness/mean|completions/mean_length|completions/clipped_ratio|entropy|ir/.*/share_of_advantage"
    r"|ir/rarity/(agreement|alike|correlation)"
)
DIGITS = 4  # of a logged value


def record_of(folder: str | Path) -> dict[str, Any]:
    """The record of the run in ``folder``: what it was, on what, its curves, and the outcome of every sample.

    Returns:
        {"version", "name", "task", "seed", "flags", "commit", "started", "steps", "minutes", "versions", "machine",
        "curves": metric -> [value of each logged step], "evaluations": "before", "after" -> `Outcomes.packed`,
        "metrics": "before", "after" -> metric -> its mean, which a task of its own kind may have beside the outcomes}.
        Of a run that was resumed, commit, versions and machine are those of its last session.

    Raises:
        UserError: the run is damaged, or was not evaluated before and after training.
    """
    path = Path(folder)
    settings, run = read_settings(path), read_run(path)
    evaluations, metrics, task = {}, {}, ""
    for name in EVALUATIONS:
        file = path / "eval" / f"{name}.json"
        if not file.is_file():
            raise UserError(f"{path} has no eval/{name}.json (not finished, or run with --do_eval 0).")
        report = read_report(file, needed=NEEDED)
        task = report["task"]
        evaluations[name] = outcomes_of(report, file).packed()
        metrics[name] = _means(report["metrics"])
    written = read_json(path / "run.json", "restore it")
    latest = [written, *(written.get("resumed") or [])][-1]
    seconds = run.series("seconds")
    return {
        "version": RECORD_VERSION,
        "name": path.resolve().name,
        "task": task,
        "seed": settings.seed,
        "flags": settings.flags,
        "commit": settings.commit,
        "started": written.get("started"),
        "steps": run.last_step,
        "minutes": round(float(seconds.max()) / 60, 1) if len(seconds) else None,
        "versions": latest.get("versions"),
        "machine": latest.get("machine"),
        "curves": _curves(run),
        "evaluations": evaluations,
        "metrics": metrics,
    }


def _means(metrics: dict) -> dict[str, float]:
    means = {name: point(value) for name, value in metrics.items()}
    return {name: round(value, DIGITS) for name, value in means.items() if value is not None}


def _curves(run: Run) -> dict[str, list[float]]:
    return {name: [round(value, DIGITS) for value in run.series(name).tolist()] for name in run.columns(CURVES)}


def main() -> None:
    """Command line: a record of every run, and its path."""
    parser = NamesParser("Keep finished runs as small JSON files.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, outputs/<task>/<run name>")
    parser.add_argument("--out", required=True, help="folder of the records, such as results/countdown")
    arguments = parser.parse_args()
    out = Path(arguments.out)
    check_output("out", out, "folder")
    records = {}
    for folder in arguments.runs:
        record = record_of(folder)
        if record["name"] in records:
            raise UserError(f"two of the runs are called {record['name']!r}; keep them in different folders, by --out.")
        records[record["name"]] = record
    for name, record in records.items():
        write_json(out / f"{name}.json", record)
        print(out / f"{name}.json")


if __name__ == "__main__":
    run_cli(main)
