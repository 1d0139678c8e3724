"""Cells of the experiment at the edge of competence, what a bonus gains in them, and what the plan calls it.

benchmarks/plans/edge_of_competence.md has the plan.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from analysis.statistics import holm, mean_t_interval, paired_t
from benchmarks.known_truth_report import LEVEL, Curves
from intrinsic import NO_BONUS

PRIORS = (0.01, 0.05, 0.2, 0.5)  # of a right answer
GROUPS = (4, 8, 16, 32)
CONTROL = "noise"
BONUSES = ("knn+", "repexp", "entropy-adv", "passk", "rnd", CONTROL)
MIXED = (0.1, 0.9)  # chance of a mixed group at the edge
MARGIN = 0.02  # of pass@1
FIT = 0.25  # how far, relative to the prior, a fitted policy may be off
PRIMARY = "pass@1"
COLUMNS = (PRIMARY, "rare@64")


def is_edge(probability: float, group: int) -> bool:
    """Whether the chance of a group with right and wrong answers is neither near 0 nor near 1."""
    return MIXED[0] <= 1 - probability**group - (1 - probability) ** group <= MIXED[1]


class Cell(NamedTuple):
    """A prior probability of a right answer, and a number of completions per group."""

    prior: float
    group: int

    @property
    def is_edge(self) -> bool:
        """`is_edge` of its problems."""
        return is_edge(self.prior, self.group)

    def label(self, bonus: str) -> str:
        """Name of the arm of ``bonus`` in this cell."""
        return f"{bonus} {self.prior:g} {self.group}"


CELLS = [Cell(prior, group) for prior, group in product(PRIORS, GROUPS)]
Gains = dict[str, dict[Cell, dict[int, float]]]  # bonus -> cell -> seed -> gain


def gains(curves: Curves, column: str) -> Gains:
    """Bonus -> cell -> seed -> last measurement of ``column`` minus that of `no`, where both have a record.

    Seeds whose policy `FIT` excludes at a prior are left out of its cells.
    """
    out = left_out(curves)
    found: Gains = {bonus: {} for bonus in BONUSES}
    for bonus, cell in product(BONUSES, CELLS):
        ours, plain = (curves.get(cell.label(name), {}) for name in (bonus, NO_BONUS))
        seeds = [seed for seed in sorted(ours.keys() & plain.keys()) if seed not in out[cell.prior]]
        found[bonus][cell] = {seed: ours[seed][-1][column] - plain[seed][-1][column] for seed in seeds}
    return found


def left_out(curves: Curves) -> dict[float, list[int]]:
    """Prior -> seeds whose fitted policy is off by more than `FIT`."""
    found: dict[float, set[int]] = {prior: set() for prior in PRIORS}
    for cell, name in product(CELLS, (NO_BONUS, *BONUSES)):
        for seed, curve in curves.get(cell.label(name), {}).items():
            if abs(curve[0][PRIMARY] / cell.prior - 1) > FIT:
                found[cell.prior].add(seed)
    return {prior: sorted(seeds) for prior, seeds in found.items()}


def contrasts(found: Gains, among: Sequence[Cell] = CELLS) -> dict[str, dict[str, dict]]:
    """The plan's A (gain at the edge) and B (that minus the gain elsewhere) of every bonus with two seeds or more, of
    the cells ``among``.

    Returns:
        "A", "B" -> bonus -> {"mean", "half" (of the 95 % t interval), "p", "p_holm"}.
    """
    values: dict[str, dict[str, list[float]]] = {"A": {}, "B": {}}
    for bonus, cells in found.items():
        seeds = sorted(set.intersection(*(set(cells[cell]) for cell in among)))
        if len(seeds) > 1:
            edge, other = (
                np.mean([[cells[cell][seed] for seed in seeds] for cell in among if cell.is_edge is wanted], axis=0)
                for wanted in (True, False)
            )
            values["A"][bonus], values["B"][bonus] = list(edge), list(edge - other)
    result: dict[str, dict[str, dict]] = {}
    for name, family in values.items():
        adjusted = holm([paired_t(own) for own in family.values()])
        result[name] = {
            bonus: {**dict(zip(("mean", "half"), mean_t_interval(own), strict=True)), "p": paired_t(own), "p_holm": p}
            for (bonus, own), p in zip(family.items(), adjusted, strict=True)
        }
    return result


def called(edge: dict, more: dict) -> str:
    """The plan's name for the contrasts A and B of one bonus."""

    def within(found: dict) -> bool:
        return abs(found["mean"]) + found["half"] < MARGIN

    if edge["p_holm"] < LEVEL:
        if edge["mean"] < 0:
            return "costs"
        if more["p_holm"] < LEVEL and more["mean"] > 0:
            return "gains at the edge"
        return "gains everywhere" if within(more) else "gains, where is open"
    return "no gain of 0.02" if within(edge) else "not shown"
