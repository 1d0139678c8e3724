"""Does a bonus help at the edge of competence? Gains against the base policy's probability and the size of the group.

python -m benchmarks.edge_of_competence

benchmarks/plans/edge_of_competence.md has the plan. Goes on where it stopped; a report is made of all records there,
and names the cells that are empty. The figure also shows Countdown, from the records of sweeps/edge_of_competence.sh.
"""

from itertools import product

import torch

from analysis.statistics import mean_t_interval
from benchmarks.edge_cells import (
    BONUSES,
    CELLS,
    COLUMNS,
    CONTROL,
    GROUPS,
    PRIMARY,
    PRIORS,
    Cell,
    called,
    contrasts,
    gains,
    left_out,
)
from benchmarks.edge_figure import plot
from benchmarks.known_truth_arms import Arm, ArmTrial, empty_cells, run_experiment
from benchmarks.known_truth_env import FIT_STEPS
from benchmarks.known_truth_report import Curves
from common.errors import run_cli
from common.markdown import markdown_table
from intrinsic import NO_BONUS

RARE_PART = 1 / 40  # of a prior: the rare strategy
PROBLEMS, COMPLETIONS = 8, 64  # of the world, and of an update
LONGER_FITS = {0.01: 2000}  # by prior, where those of the other experiments do not bring the policy near it
FOLDER = "outputs/edge_of_competence"


ARMS = [
    Arm(
        cell.label(bonus),
        bonus,
        world={"common": cell.prior * (1 - RARE_PART), "rare": cell.prior * RARE_PART},
        options={"problems": PROBLEMS, "num_generations": cell.group},
        fit_steps=LONGER_FITS.get(cell.prior, FIT_STEPS),
    )
    for cell in CELLS
    for bonus in (NO_BONUS, *BONUSES)
]


class EdgeTrial(ArmTrial):
    """A trial in which every update has `COMPLETIONS`: groups of the next problems, in turn."""

    every = 50

    def train_step(self, step: int):
        """As `Trial.train_step`, of the problems whose turn it is."""
        groups = COMPLETIONS // self.options.num_generations
        turn = (torch.arange(groups) + step * groups) % self.options.problems
        self.problems = turn.repeat_interleave(self.options.num_generations)
        return super().train_step(step)


def report(curves: Curves, commits: list[str], seeds: int) -> str:
    """Markdown: the contrasts, what the plan calls each bonus, the gains of every cell, and what is empty."""
    empty, parts = empty_cells(ARMS, curves, seeds), []
    found = {column: gains(curves, column) for column in COLUMNS}
    families = contrasts(found[PRIMARY])
    if families["A"]:
        parts.append(_contrast_table(families, named=not empty))
    apart = contrasts(found[PRIMARY], [cell for cell in CELLS if cell.prior not in LONGER_FITS])
    if apart["A"]:
        priors = " and ".join(f"p = {prior:g}" for prior in LONGER_FITS)
        parts += [
            f"Not planned: without {priors}, whose policies were fitted again after the other cells had been read.",
            _contrast_table(apart, named=False),
        ]
    for column, of_bonus in found.items():
        rows = []
        for bonus, prior in product(BONUSES, PRIORS):
            cells = [_gain(of_bonus[bonus][Cell(prior, group)], Cell(prior, group).is_edge) for group in GROUPS]
            rows.append([f"`{bonus}`, p = {prior:g}", *cells])
        parts.append(markdown_table([f"{column} minus `no`", *(f"G = {group}" for group in GROUPS)], rows))
    missing = "; ".join(empty) if len(empty) <= 12 else f"{len(empty)} of {len(ARMS)} arms lack seeds"
    out = "; ".join(f"p = {prior:g}: {', '.join(map(str, own))}" for prior, own in left_out(curves).items() if own)
    parts += [
        "Mean ± 95 % t interval over seeds; bold: at the edge. Holm: over the bonuses of a contrast.",
        f"Empty cells (arm: seeds without a record): {missing or 'none'}."
        + " Without them the plan's names are not given." * bool(empty),
        f"Seeds left out for their fitted policy: {out or 'none'}.",
        f"Code: {' and '.join(commits) or 'no record yet'}.",
    ]
    return "\n\n".join(parts) + "\n"


def _contrast_table(families: dict[str, dict[str, dict]], named: bool) -> str:
    rows = []
    trusted = named and called(*(families[name][CONTROL] for name in families)) in ("no gain of 0.02", "not shown")
    for bonus in families["A"]:
        both = [families[name][bonus] for name in families]
        cells = [cell for own in both for cell in (f"{own['mean']:+.3f} ± {own['half']:.3f}", f"{own['p_holm']:.4f}")]
        name = (called(*both) if trusted or bonus == CONTROL else "no verdict") if named else ""
        rows.append([f"`{bonus}`", *cells, name])
    heads = ["bonus", "A: gain at the edge", "Holm", "B: more than elsewhere", "Holm", "called"]
    return markdown_table(heads, rows)


def _gain(by_seed: dict[int, float], is_edge: bool) -> str:
    if not by_seed:
        return ""
    values = list(by_seed.values())
    shown = f"{values[0]:+.3f} (1 seed)" if len(values) == 1 else "{:+.3f} ± {:.3f}".format(*mean_t_interval(values))
    return f"**{shown}**" if is_edge else shown


if __name__ == "__main__":
    run_cli(lambda: run_experiment(ARMS, FOLDER, EdgeTrial, report, plot))
