"""Tables of runs: held-out accuracy before and after training and the time it took, one row a run; then over seeds.

python -m analysis.summary outputs/countdown/*
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.arms import arm_keys, arm_labels
from analysis.evaluated import RunSettings, read_settings
from analysis.runs import Run, read_run
from analysis.statistics import mean_t_interval
from common.errors import UserError, run_cli
from common.flags import NamesParser
from common.markdown import markdown_table
from evaluation.table import format_metric, point

RUNS = ("run", "steps", "minutes", "before", "after", "factor", "false claims")
ARMS = ("arm", "seeds", "before", "after", "gain")


@dataclass(frozen=True)
class Finished:
    """A run that was evaluated before and after training."""

    run: Run
    settings: RunSettings

    def metric(self, evaluation: str, name: str):
        """The metric ``name`` of the evaluation, with its interval; None where that evaluation lacks it."""
        return self.run.evals[evaluation]["metrics"].get(name)

    def accuracy(self, evaluation: str) -> float:
        """Held-out accuracy of the evaluation "before" or "after", in [0, 1]."""
        return point(self.metric(evaluation, "accuracy"))


def read_finished(folder: str | Path) -> Finished:
    """The run in ``folder``; raises `UserError` where it is none, is damaged or has not been evaluated twice."""
    run, settings = read_run(folder), read_settings(Path(folder))
    for name in ("before", "after"):
        if name not in run.evals:
            raise UserError(f"{run.path} has no eval/{name}.json (not finished, or run with --do_eval 0).")
        if point(run.evals[name]["metrics"].get("accuracy")) is None:
            raise UserError(f"{run.path / 'eval' / name}.json holds no accuracy; restore it.")
    return Finished(run, settings)


def run_row(finished: Finished) -> tuple:
    """The cells of `RUNS` of one run, with intervals over its held-out problems."""
    run, before = finished.run, finished.accuracy("before")
    factor = f"{finished.accuracy('after') / before:.2f}" if before else "-"
    accuracies = (format_metric("accuracy", finished.metric(name, "accuracy")) for name in ("before", "after"))
    claims = format_metric("false_claims", finished.metric("after", "false_claims"))
    seconds = run.series("seconds")
    minutes = f"{seconds.max() / 60:.1f}" if len(seconds) else "-"
    return run.name, run.last_step, minutes, *accuracies, factor, claims


def arm_rows(finished: Sequence[Finished]) -> list[tuple[str, ...]]:
    """The cells of `ARMS` for each arm of several seeds: mean accuracies and gain, 95 % t intervals over the seeds."""
    arms: dict[tuple, dict[int, Finished]] = {}
    for run, key in zip(finished, arm_keys([run.settings.flags for run in finished]), strict=True):
        arm = arms.setdefault((run.run.evals["after"].get("task"), key), {})
        if run.settings.seed in arm:
            other = arm[run.settings.seed].run.path
            raise UserError(
                f"{other} and {run.run.path} have the same settings and --seed {run.settings.seed}; leave one out."
            )
        arm[run.settings.seed] = run
    flags = [next(iter(arm.values())).settings.flags for arm in arms.values()]
    rows = []
    for label, arm in zip(arm_labels(flags), arms.values(), strict=True):
        if len(arm) < 2:
            continue
        before, after = ([run.accuracy(name) for run in arm.values()] for name in ("before", "after"))
        gain = [new - old for old, new in zip(before, after, strict=True)]
        cells = (f"{100 * mean:.1f} ± {100 * half:.1f}" for mean, half in map(mean_t_interval, (before, after, gain)))
        label = label or str(next(iter(arm.values())).settings.flags.get("use_ir"))
        rows.append((label, ", ".join(map(str, sorted(arm))), *cells))
    return rows


def main() -> None:
    """Command line: prints the tables, and on stderr a line for each folder that is left out.

    Raises:
        UserError: none of the folders holds a finished run.
    """
    parser = NamesParser(__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, outputs/<task>/<run name>")
    folders = parser.parse_args().runs
    finished = []
    for folder in folders:
        try:
            finished.append(read_finished(folder))
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    if not finished:
        raise UserError(f"none of the {len(folders)} folders holds a finished run; give outputs/<task>/<run name>.")
    print(markdown_table(RUNS, map(run_row, finished)))
    rows = arm_rows(finished)
    if rows:
        print("\nMean over seeds ± 95 % t interval, in per cent and points:\n")
        print(markdown_table(ARMS, rows))


if __name__ == "__main__":
    run_cli(main)
