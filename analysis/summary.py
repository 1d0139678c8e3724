"""One Markdown row per run: held-out accuracy before and after training, with intervals, and the time it took.

python -m analysis.summary outputs/countdown/*
"""

import sys
from pathlib import Path

from analysis.runs import Run, read_run
from analysis.table import format_metric, point
from training.errors import UserError, run_cli

HEADER = "| run | steps | seconds | before | after | factor |\n|---|---|---|---|---|---|"


def summary_row(run: Run) -> str:
    """The row of one run; raises `UserError` when it was not evaluated before and after training."""
    missing = [name for name in ("before", "after") if name not in run.evals]
    if missing:
        raise UserError(f"{run.path} has no eval/{missing[0]}.json; let the run end with --do_eval 1.")
    before, after = (run.evals[name]["metrics"]["accuracy"] for name in ("before", "after"))
    seconds = run.log["seconds"].max()
    factor = f"{point(after) / point(before):.2f}" if point(before) else "-"
    accuracies = (format_metric("accuracy", metric) for metric in (before, after))
    cells = [run.name, run.last_step, f"{seconds:.0f}", *accuracies, factor]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:]]
    if not folders:
        raise UserError("no run folder given; name one or more, for example outputs/countdown/*.")
    print(HEADER)
    for folder in folders:
        print(summary_row(read_run(folder)))


if __name__ == "__main__":
    run_cli(main)
