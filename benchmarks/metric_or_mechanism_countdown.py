"""Metric or mechanism on Countdown: what the records of sweeps/metric_or_mechanism.sh say, by the rules of the plan.

python -m benchmarks.metric_or_mechanism_countdown

Trains nothing. Differences are over seeds and problems, as in the tables of every sweep; levels are means over seeds.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from analysis.arms import Arm
from analysis.comparison import compare_arms
from analysis.evaluated import RECORD_FIX
from analysis.sweep import Sweep, can_compare, read_sweep
from benchmarks.machine import publish_report
from benchmarks.metric_or_mechanism import (
    EXACT,
    IDENTICAL,
    PARTITION_COLUMNS,
    PROXIES,
    RANDOM,
    called,
    family_table,
    level,
    plot_effects,
    rank_correlations,
)
from common.errors import UserError, run_cli
from common.files import read_json
from common.flags import OutputStem, flag, parse_one
from common.markdown import markdown_table
from intrinsic import NO_BONUS
from intrinsic.rarity import PARTITIONS

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "results" / "metric_or_mechanism"
PARTITIONED = {"rarity" + f"_{name}" * (name != "exact"): f"rarity {name}" for name in PARTITIONS}  # arm -> its name
NAMES = {NO_BONUS: NO_BONUS} | PARTITIONED | {"maxrl": "maxrl", "repexp": "repexp"}
PRIMARY, MARGIN = "coverage@32", 0.1  # approaches
COLUMNS = (PRIMARY, "pass@32", "accuracy")
SHARE = "share_of_advantage"
SEEDS = range(5)


@dataclass
class Options:
    """Where the report goes."""

    output: OutputStem = flag(
        "benchmarks/results/metric_or_mechanism_countdown", "Path of report and picture, without extension."
    )


def planned(sweep: Sweep) -> tuple[Sweep, list[str]]:
    """(``sweep`` with the planned arms and seeds alone, names of the other records)."""
    arms, others = [], []
    for arm in sweep.arms:
        runs = {seed: run for seed, run in arm.runs.items() if arm.label in NAMES and seed in SEEDS}
        others += [run.path.stem for seed, run in arm.runs.items() if seed not in runs]
        if runs:
            arms.append(replace(arm, runs=runs))
    before = [run for run in sweep.before if run.path.stem not in others]
    return replace(sweep, arms=arms, before=before), sorted(others)


def by_name(sweep: Sweep) -> dict[str, Arm]:
    """The planned arms of ``sweep`` by the plan's names."""
    return {NAMES[arm.label]: arm for arm in sweep.arms}


def logged(sweep: Sweep) -> dict[str, dict[str, list[float]]]:
    """Name of a partition -> figure of `Rarity.update`, or `SHARE` -> its mean over the steps that have it, by seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for arm in sweep.arms:
        if arm.label in PARTITIONED:
            curves = [read_json(run.path, RECORD_FIX)["curves"] for run in arm.runs.values()]
            found[PARTITIONED[arm.label]] = {
                column: [float(np.mean(values)) for curve in curves if (values := _finite(curve, column))]
                for column in (*PARTITION_COLUMNS, SHARE)
            }
    return found


def _finite(curve: dict[str, list[float | None]], column: str) -> list[float]:
    values = curve.get(f"ir/rarity/{column}", [])
    return [value for value in values if value is not None and np.isfinite(value)]


def contrasts(sweep: Sweep, baseline: str, names: tuple[str, ...]) -> dict[str, dict[str, dict]]:
    """Outcome -> name -> its difference to ``baseline``, as one family: as `benchmarks.known_truth_report.comparisons`.

    Names without two seeds in common with the baseline are left out.
    """
    arms = by_name(sweep)
    base = arms.get(baseline)
    if base is None:
        return {}
    there = [arms[name] for name in names if name in arms and len(arms[name].runs.keys() & base.runs.keys()) > 1]
    if not there:
        return {}
    outcomes = compare_arms([base, *there], base, controls_apart=False)["outcomes"]
    return {
        outcome: {
            NAMES[arm.label]: row | {"half": row["high"] - row["difference"]}
            for arm in there
            for row in [outcomes[outcome][arm.label]]
        }
        for outcome in COLUMNS
    }


def report(sweep: Sweep) -> str:
    """Markdown: levels, both families of contrasts of every outcome, what the plan calls it, and what is missing.

    Of the arms and seeds of the plan alone.
    """
    sweep, others = planned(sweep)
    arms, figures = by_name(sweep), logged(sweep)
    heads = [*COLUMNS, *PARTITION_COLUMNS, SHARE]
    levels = []
    for name in NAMES.values():
        if name in arms:
            scores = {column: [run.scores[column].mean() for run in arms[name].runs.values()] for column in COLUMNS}
            cells = [level(values) for values in (scores | figures.get(name, {})).values()]
            cells += [""] * (len(heads) - len(cells))
            levels.append([f"`{name}`", len(arms[name].runs), *cells])
    families = {
        NO_BONUS: contrasts(sweep, NO_BONUS, tuple(name for name in NAMES.values() if name != NO_BONUS)),
        EXACT: contrasts(sweep, EXACT, (*PROXIES, RANDOM)),
    }
    parts = [markdown_table(["arm", "seeds", *heads], levels)]
    for column in COLUMNS:
        parts += [family_table(column, base, found[column]) for base, found in families.items() if found]
    empty = empty_cells(sweep)
    if not empty:
        names = called(families[NO_BONUS][PRIMARY], families[EXACT][PRIMARY], MARGIN)
        parts.append(f"By the plan's rules on {PRIMARY}: **{'**, **'.join(names)}**.")
    if effects := families[NO_BONUS].get(PRIMARY):
        parts += rank_correlations({name: effects[name] for name in effects if name in figures}, figures, PRIMARY)
    before = {column: np.mean([run.scores[column] for run in sweep.before]) for column in COLUMNS}
    start = ", ".join(f"{column} {value:.3f}" for column, value in before.items())
    parts += [
        f"{sweep.result['problems']} test problems. Levels: mean ± 95 % t interval over seeds; differences: over "
        f"seeds and problems. Before training: {start}. Holm: over the rows of a table.",
        f"`{IDENTICAL}` is the exact partition on this task, and {_identity(sweep)}.",
        f"Empty cells (arm: seeds without a record): {'; '.join(empty) or 'none'}."
        + " Without them the plan's rules are not applied." * bool(empty),
        *([f"Not of the plan, and left out: {', '.join(others)}."] if others else []),
        f"Code: {' and '.join(sorted({run.commit for run in sweep.before}))}.",
    ]
    return "\n\n".join(parts) + "\n"


def empty_cells(sweep: Sweep) -> list[str]:
    """One phrase for each arm that lacks records of some of the planned seeds."""
    there = {name: arm.runs.keys() for name, arm in by_name(sweep).items()}
    missing = {name: len(set(SEEDS) - there.get(name, set())) for name in NAMES.values()}
    return [f"{name}: {count} of {len(SEEDS)}" for name, count in missing.items() if count]


def _identity(sweep: Sweep) -> str:
    arms = by_name(sweep)
    seeds = sorted(arms[EXACT].runs.keys() & arms[IDENTICAL].runs.keys()) if {EXACT, IDENTICAL} <= arms.keys() else []
    if not seeds:
        return "the two cannot be compared yet"
    same = all((arms[EXACT].table(name, seeds) == arms[IDENTICAL].table(name, seeds)).all() for name in COLUMNS)
    return "gave the same numbers" if same else "did NOT give the same numbers: the apparatus is at fault"


def plot(sweep: Sweep, path: Path) -> None:
    """`benchmarks.metric_or_mechanism.plot_effects` of the partitions that can be compared with plain GRPO."""
    sweep, _ = planned(sweep)
    effects = contrasts(sweep, NO_BONUS, tuple(PARTITIONED.values())).get(PRIMARY)
    if effects:
        plot_effects(effects, logged(sweep), PRIMARY, path)


def main() -> None:
    """Command line: report and picture of the records that are there."""
    options = parse_one(Options)
    if not can_compare(RECORDS):
        raise UserError(f"{RECORDS} holds nothing to compare yet; run bash sweeps/metric_or_mechanism.sh.")
    sweep = read_sweep(RECORDS)
    publish_report(options.output, report(sweep), partial(plot, sweep))


if __name__ == "__main__":
    run_cli(main)
