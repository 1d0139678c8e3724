"""Metric or mechanism? One rule of rarity with six partitions of the right answers: benchmarks/plans has the plan.

python -m benchmarks.metric_or_mechanism

Goes on where it stopped; a report is made of all records there, and names the cells that are empty.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy import stats
from torch import Tensor

from analysis.statistics import mean_t_interval
from analysis.style import NOTE, SERIES, STYLE, TOTAL, save_figure
from benchmarks.known_truth import Step
from benchmarks.known_truth_arms import Arm, ArmTrial, empty_cells, run_experiment
from benchmarks.known_truth_report import LEVEL, Curves, comparisons, complete, final
from common.errors import run_cli
from common.markdown import markdown_table
from intrinsic.rarity import PARTITIONS, Rarity

WORLD = {"two_forms": True, "rare": 0.02}
EXACT, IDENTICAL, RANDOM = "rarity exact", "rarity answer", "rarity random"
PROXIES = ("rarity bigram", "rarity embedding", "rarity likelihood")
ARMS = [
    Arm("no", "no", world=WORLD),
    *(Arm(f"rarity {name}", "rarity", {"rarity_partition": name}, WORLD) for name in PARTITIONS),
    Arm("maxrl", "maxrl", world=WORLD),
    Arm("repexp", "repexp", world=WORLD),
]
# Not in the plan: run after its outcome was known, since UCPO's default moves a fifth of the credit.
FULL_LIKELIHOOD = "rarity likelihood tau 1"
AFTERWARDS = [Arm(FULL_LIKELIHOOD, "rarity", {"rarity_partition": "likelihood", "rarity_tau": 1.0}, WORLD)]
PRIMARY, MARGIN = "rare@64", 0.05
COLUMNS = (PRIMARY, "coverage@8", "pass@1")
PARTITION_COLUMNS = ("agreement", "alike", "correlation")
AGAINST = ("agreement", "correlation")  # what the effects of the partitions are held against
MASSES = {"common": (0.15, 0.25), "rare": (0.01, 0.03)}  # of a fitted policy; its seed is left out outside them
FOLDER = "outputs/metric_or_mechanism"


class PartitionTrial(ArmTrial):
    """A trial whose measurements also hold how the partition did so far, as far as it has one:

    "agreement" and "alike", means over batches of what `Rarity.update` logs, and "correlation", Pearson's, of the
    factors that its bonus and the exact partition give to the same right answers.
    """

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.exact = Rarity("exact")
        self.logged: dict[str, list[float]] = {"agreement": [], "alike": []}
        self.factors: list[Tensor] = []

    def train_step(self, step: int) -> Step:
        found = super().train_step(step)
        for item in found.scored:
            if isinstance(item.bonus, Rarity):
                for name, values in self.logged.items():
                    if f"ir/rarity/{name}" in found.learnt:
                        values.append(found.learnt[f"ir/rarity/{name}"])
                inside = self.exact.eligible(found.rollout)
                pairs = torch.stack([self.exact.score(found.rollout), item.raw["rarity"]], dim=1)
                self.factors.append(pairs[inside])
        return found

    def figures(self, probability: Tensor) -> dict[str, float]:
        found = {name: float(np.mean(values)) for name, values in self.logged.items() if values}
        pairs = torch.cat(self.factors).double().numpy() if self.factors else np.zeros((0, 2))
        if len(pairs) > 1 and (np.ptp(pairs, axis=0) > 0).all():
            found["correlation"] = float(np.corrcoef(pairs.T)[0, 1])
        return super().figures(probability) | found


def left_out(curves: Curves) -> list[int]:
    """Seeds whose fitted policy misses `MASSES`."""
    first = {seed: curve[0] for runs in curves.values() for seed, curve in runs.items()}
    return [
        seed
        for seed, point in sorted(first.items())
        if any(not low <= point[name] <= high for name, (low, high) in MASSES.items())
    ]


def called(against_no: dict[str, dict], against_exact: dict[str, dict], margin: float) -> list[str]:
    """The names of the plan that the two families of contrasts earn; less than ``margin`` counts as equal."""

    def is_above(found: dict) -> bool:
        return found["difference"] > 0 and found["p_holm"] < LEVEL

    def within(found: dict) -> bool:
        return abs(found["difference"]) + found["half"] < margin

    exact = against_no[EXACT]
    beaten = [name for name, found in against_exact.items() if found["difference"] < 0 and found["p_holm"] < LEVEL]
    if not is_above(exact):
        fails = exact["difference"] + exact["half"] < margin
        return ["the mechanism fails" if fails else "undecided"]
    if RANDOM not in beaten:
        return ["not by what it knows"]
    names = ["the metric matters"] if set(PROXIES) & set(beaten) else []
    if any(is_above(against_no[name]) and within(against_exact[name]) for name in PROXIES):
        names.append("proxies suffice")
    return names or ["undecided"]


def report(curves: Curves, commits: list[str], seeds: int) -> str:
    """Markdown: levels, both families of contrasts, how each partition agrees, and what the plan calls it.

    Then what was not planned, in tables of its own without Holm's adjustment.
    """
    out = left_out(curves)
    all_rows = complete({name: {s: c for s, c in runs.items() if s not in out} for name, runs in curves.items()})
    rows = {name: runs for name, runs in all_rows.items() if name != FULL_LIKELIHOOD}
    if "no" not in rows:
        return "Plain GRPO has fewer than two seeds yet, so nothing is compared.\n"
    heads = [*COLUMNS, *PARTITION_COLUMNS]
    levels = [
        [f"`{label}`", len(runs), *(level(_values(runs, column)) for column in heads)]
        for label, runs in all_rows.items()
    ]
    parts = [markdown_table(["arm", "seeds", *heads], levels)]
    partitions = {name: runs for name, runs in rows.items() if name in (EXACT, RANDOM, *PROXIES)}
    families = [("no", rows, column) for column in COLUMNS] + [(EXACT, partitions, column) for column in COLUMNS]
    found = {}
    for baseline, members, column in families:
        if baseline not in members or len(members) < 2:
            continue
        found[baseline, column] = comparisons(members, column, baseline)
        parts.append(family_table(column, baseline, found[baseline, column]))
    empty = empty_cells(ARMS, curves, seeds)
    if not empty:
        names = called(found["no", PRIMARY], found[EXACT, PRIMARY], MARGIN)
        parts.append(f"By the plan's rules on {PRIMARY}: **{'**, **'.join(names)}**.")
    parts += rank_correlations(found.get(("no", PRIMARY), {}), _partition_levels(rows), PRIMARY)
    parts += _afterwards(all_rows)
    before = np.mean([curve[0][PRIMARY] for runs in rows.values() for curve in runs.values()])
    parts += [
        f"Mean ± 95 % t interval over seeds; {PRIMARY} before training {before:.3f}. Holm: over the rows of a table.",
        f"`{IDENTICAL}` is the exact partition on this task, and {_identity(rows)}.",
        f"Empty cells (arm: seeds without a record): {'; '.join(empty) or 'none'}."
        + " Without them the plan's rules are not applied." * bool(empty),
        f"Seeds left out for their fitted policy: {', '.join(map(str, out)) or 'none'}.",
        f"Code: {' and '.join(commits)}.",
    ]
    return "\n\n".join(parts) + "\n"


def family_table(column: str, baseline: str, family: dict[str, dict]) -> str:
    """One family of contrasts as Markdown: differences to ``baseline`` with half an interval, p and Holm's p."""
    rows = [
        [f"`{label}`", f"{row['difference']:+.3f} ± {row['half']:.3f}", f"{row['p']:.4f}", f"{row['p_holm']:.4f}"]
        for label, row in family.items()
    ]
    return markdown_table([f"{column} minus `{baseline}`", "difference", "p", "Holm"], rows)


def level(values: list[float]) -> str:
    """Mean and half of its t interval over seeds; empty for fewer than two values."""
    return "{:.3f} ± {:.3f}".format(*mean_t_interval(values)) if len(values) > 1 else ""


def _values(runs: dict, column: str) -> list[float]:
    return [curve[-1][column] for curve in runs.values() if column in curve[-1]]


def _identity(rows: Curves) -> str:
    if not {EXACT, IDENTICAL} <= rows.keys():
        return "the two cannot be compared yet"
    seeds = sorted(rows[EXACT].keys() & rows[IDENTICAL].keys())
    same = all((final(rows[EXACT], name, seeds) == final(rows[IDENTICAL], name, seeds)).all() for name in COLUMNS)
    return "gave the same numbers" if same else "did NOT give the same numbers: the apparatus is at fault"


def _partition_levels(rows: Curves) -> dict[str, dict[str, list[float]]]:
    """Partition -> figure of it -> a value per seed."""
    names = [name for name in rows if name.startswith("rarity ")]
    return {name: {column: _values(rows[name], column) for column in PARTITION_COLUMNS} for name in names}


def _afterwards(rows: Curves) -> list[str]:
    """The arm that was not planned, against plain GRPO and the exact partition, without adjustment."""
    tables = []
    for baseline in ("no", EXACT):
        if baseline in rows and FULL_LIKELIHOOD in rows:
            pair = {name: rows[name] for name in (baseline, FULL_LIKELIHOOD)}
            for column in (PRIMARY, "pass@1"):
                tables.append(family_table(column, baseline, comparisons(pair, column, baseline)))
    note = f"`{FULL_LIKELIHOOD}` was not planned: all credit moves by likelihood, as by clusters. No adjustment:"
    return [note, *tables] if tables else []


def rank_correlations(effects: dict[str, dict], levels: dict[str, dict[str, list[float]]], outcome: str) -> list[str]:
    """A sentence on Spearman's correlation of effect and `AGAINST` over the partitions, as in `plot_effects`."""
    found = []
    for column in AGAINST:
        points = _points(effects, levels, column)
        rho = _rank_correlation(points)
        if rho is not None:
            found.append(f"{rho:+.2f} with {column} ({len(points)} partitions)")
    return [f"Rank correlation of {outcome} minus `no`: {', '.join(found)}."] if found else []


def _points(effects: dict[str, dict], levels: dict[str, dict[str, list[float]]], column: str) -> list[tuple]:
    """(mean of ``column``, effect) of the partitions that have both."""
    there = [name for name in effects if levels.get(name, {}).get(column)]
    return [(float(np.mean(levels[name][column])), effects[name]["difference"]) for name in there]


def plot(curves: Curves, path: Path) -> None:
    """`plot_effects` of the known world, where any partition can be compared."""
    rows = {name: runs for name, runs in complete(curves).items() if name != FULL_LIKELIHOOD}
    levels = _partition_levels(rows)
    if "no" not in rows or not levels:
        return
    family = comparisons(rows, PRIMARY)
    plot_effects({name: family[name] for name in levels}, levels, PRIMARY, path)


def plot_effects(effects: dict[str, dict], levels: dict[str, dict[str, list[float]]], outcome: str, path: Path) -> None:
    """Effect of each partition against its agreement with the exact one, and against the correlation of the credit.

    Args:
        effects: partition -> "difference" to plain GRPO in ``outcome`` and "half" of its interval.
        levels: partition -> "agreement" and "correlation" -> a value per seed; none where it is not defined.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), sharey=True, layout="constrained")
        for axis, column in zip(axes, AGAINST, strict=True):
            for place, (name, effect) in enumerate(effects.items()):
                for point in _points({name: effect}, levels, column):
                    # An open ring, since the exact partition lies in the same place.
                    ring = {"mfc": "none", "markersize": 11} if name == IDENTICAL else {}
                    look = {"label": name.removeprefix("rarity "), "color": SERIES[place % len(SERIES)], **ring}
                    axis.errorbar(*point, yerr=effect["half"], fmt="o", **look)
            rho = _rank_correlation(_points(effects, levels, column))
            axis.axhline(0.0, color=TOTAL, linewidth=1)
            title = "" if rho is None else f"rank correlation {rho:.2f}"
            axis.set(xlabel=f"{column} with the exact partition", title=title)
        axes[0].set_ylabel(f"{outcome} minus no")
        figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right center", fontsize=9)
        figure.supxlabel("means over seeds with unadjusted 95 % intervals", fontsize=9, color=NOTE)
        save_figure(figure, path, dpi=130)


def _rank_correlation(points: list[tuple[float, float]]) -> float | None:
    """Spearman's, of three points or more that are not all alike in either; else None."""
    if len(points) < 3 or any(len(set(values)) == 1 for values in zip(*points, strict=True)):
        return None
    return float(stats.spearmanr(*zip(*points, strict=True)).statistic)


if __name__ == "__main__":
    run_cli(lambda: run_experiment([*ARMS, *AFTERWARDS], FOLDER, PartitionTrial, report, plot))
