"""Compare the arms of an experiment: runs paired by seed and problem, intervals, p adjusted for their number.

python -m analysis.compare_runs outputs/countdown/tiny_*/ [--baseline no] [--which after] [--out comparison.md]
python -m analysis.compare_runs results/countdown/*.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.arms import check_same_problems, group_arms
from analysis.comparison import choose_baseline, compare_arms, comparison_table
from analysis.evaluated import EvaluatedRun, Unfinished, read_evaluated
from common.errors import UserError, run_cli
from common.files import check_output, write_text
from common.flags import NamesParser

SUFFIXES = (".md", ".json")


def read_finished(folders: Sequence[str], which: str) -> list[EvaluatedRun]:
    """The evaluation ``which`` of every run that has it; names those left out on stderr.

    Raises:
        UserError: a folder is no run or damaged, or no run has the evaluation.
    """
    runs = []
    for folder in dict.fromkeys(Path(folder) for folder in folders):
        try:
            runs.append(read_evaluated(folder, which))
        except Unfinished as error:
            print(f"left out: {error} (not finished, or run with --do_eval 0)", file=sys.stderr)
    if not runs:
        raise UserError(f"none of the {len(folders)} runs has the evaluation --which={which!r}.")
    return runs


def main() -> None:
    """Command line: reads the runs, prints the table, and writes it to ``--out``."""
    parser = NamesParser("Compare arms: runs that differ in their seed alone are one arm.")
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folder, outputs/<task>/<run name>, or record, results/<sweep>/<run>.json",
    )
    parser.add_argument("--baseline", default="no", help="arm to compare with: its label, or its --use_ir alone [no]")
    parser.add_argument(
        "--which",
        default="after",
        help="evaluation of each run: the name of a file in eval/ (before, step_000050, after), or best, the one that "
        "chose best/ and so flatters it [after]",
    )
    parser.add_argument("--out", help="file for the result: .md (the table) or .json (all figures)")
    arguments = parser.parse_args()
    out = Path(arguments.out) if arguments.out else None
    if out and out.suffix not in SUFFIXES:
        raise UserError(f"--out={arguments.out!r} must end in {' or '.join(SUFFIXES)}.")
    if out:
        check_output("out", out, "file")
    runs = read_finished(arguments.runs, arguments.which)
    check_same_problems(runs)
    arms = group_arms(runs)
    result = {"task": runs[0].task, "which": arguments.which}
    result |= compare_arms(arms, choose_baseline(arms, arguments.baseline))
    text = comparison_table(result)
    print(text)
    if out:
        write_text(out, text + "\n" if out.suffix == ".md" else json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    run_cli(main)
