"""The figure of the edge of competence: gains against the base policy's probability, a column for each size of group.

Above the known world, where the probability is exact; below Countdown, where it is estimated from the records of
sweeps/edge_of_competence.sh and, for groups of eight, of sweeps/countdown.sh.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from analysis.arms import check_same_problems
from analysis.evaluated import EvaluatedRun, read_evaluated
from analysis.statistics import crossed_difference, mean_t_interval
from analysis.style import NOTE, STYLE, TOTAL, UNPARSABLE, color_of, save_figure
from analysis.sweep import arm_of
from benchmarks.edge_cells import BONUSES, CONTROL, GROUPS, PRIMARY, PRIORS, Cell, gains, is_edge
from benchmarks.known_truth_report import Curves
from intrinsic import NO_BONUS
from intrinsic.base import LEVELS

ROOT = Path(__file__).parents[1]
SWEEPS = ("edge_of_competence", "countdown")  # folders of results/
BINS = (0.0, 0.02, 0.1, 0.3, 0.6, 1.0)
BIN_NAMES = ("< .02", ".02 to .1", ".1 to .3", ".3 to .6", "> .6")
EMPTY = "no record yet"

Point = tuple[float, float | None, float | None]  # gain, low, high; no interval from one seed


def countdown_records(root: Path) -> list[Path]:
    """The records under results/ of ``root`` that the figure is about, sorted.

    Arms called as a bonus, with or without a group size behind it: variants of them, such as plain GRPO at another
    temperature, have other names and the same bonus.
    """
    found = sorted(path for name in SWEEPS for path in (root / "results" / name).glob("*.json"))
    return [path for path in found if arm_of(path).partition("_G")[0] in (NO_BONUS, *BONUSES)]


def base_probability(before: Sequence[EvaluatedRun]) -> np.ndarray:
    """(P,) share of right samples of each problem, over all runs before training: all are of one policy."""
    return np.mean([run.scores["accuracy"] for run in before], axis=0)


def countdown_gains(
    before: Sequence[EvaluatedRun], after: Sequence[EvaluatedRun]
) -> dict[int, dict[str, dict[int, Point]]]:
    """Right answers minus those of plain GRPO with the same group size and seed, by base probability.

    Runs with another bonus than the figure's, or paid at another level than the default, are left out.

    Returns:
        group size -> bonus -> place in `BIN_NAMES` -> gain in [-1, 1], 95 % interval over seeds and problems.
    """
    check_same_problems([*before, *after])
    arms: dict[tuple[int, str], dict[int, np.ndarray]] = {}
    for run in after:
        bonus, group = run.flags.get("use_ir"), run.flags.get("num_generations")
        if bonus in (NO_BONUS, *BONUSES) and group in GROUPS and run.flags.get("ir_level") == LEVELS[0]:
            arms.setdefault((group, bonus), {})[run.seed] = run.scores["accuracy"]
    # A problem at an inner bound belongs to the bin above it.
    bins = np.digitize(base_probability(before), BINS[1:-1])
    found: dict[int, dict[str, dict[int, Point]]] = {group: {} for group in GROUPS}
    for (group, bonus), runs in arms.items():
        plain = arms.get((group, NO_BONUS), {})
        seeds = sorted(runs.keys() & plain.keys())
        if bonus == NO_BONUS or not seeds:
            continue
        differences = np.stack([runs[seed] - plain[seed] for seed in seeds])
        found[group][bonus] = {
            int(place): _point(crossed_difference(differences[:, bins == place]), len(seeds))
            for place in np.unique(bins)
        }
    return found


def _point(found: dict, seeds: int) -> Point:
    return (found["difference"], *((found["low"], found["high"]) if seeds > 1 else (None, None)))


def known_gains(curves: Curves) -> dict[int, dict[str, dict[int, Point]]]:
    """Group size -> bonus -> place in `PRIORS` -> gain in exact pass@1 with its 95 % t interval over seeds."""
    found: dict[int, dict[str, dict[int, Point]]] = {group: {} for group in GROUPS}
    for bonus, cells in gains(curves, PRIMARY).items():
        for cell, by_seed in cells.items():
            values = list(by_seed.values())
            if len(values) > 1:
                mean, half = mean_t_interval(values)
                found[cell.group].setdefault(bonus, {})[PRIORS.index(cell.prior)] = (mean, mean - half, mean + half)
            elif values:
                found[cell.group].setdefault(bonus, {})[PRIORS.index(cell.prior)] = (values[0], None, None)
    return found


def plot(curves: Curves, path: Path, root: Path = ROOT) -> None:
    """Draw the figure from the known world's ``curves`` and the records of Countdown under ``root`` into ``path``."""
    records = countdown_records(root)
    before, after = ([read_evaluated(record, which) for record in records] for which in ("before", "after"))
    shares = base_probability(before) if before else np.zeros(0)
    at_edge = {
        group: [place for place in range(len(BIN_NAMES)) if _bin_at_edge(shares, place, group)] for group in GROUPS
    }
    rows = (
        (
            "known world: gain in pass@1",
            [f"{prior:g}" for prior in PRIORS],
            known_gains(curves),
            {group: [n for n, prior in enumerate(PRIORS) if Cell(prior, group).is_edge] for group in GROUPS},
        ),
        (
            "Countdown: gain in right answers",
            list(BIN_NAMES),
            countdown_gains(before, after) if before else {},
            at_edge,
        ),
    )
    with plt.rc_context(STYLE):
        size = (3.3 * len(GROUPS), 6.6)
        figure, axes = plt.subplots(len(rows), len(GROUPS), figsize=size, sharey="row", layout="constrained")
        for line, (name, ticks, found, edges) in zip(axes, rows, strict=True):
            line[0].set_ylabel(name)
            for ax, group in zip(line, GROUPS, strict=True):
                _draw(ax, found.get(group, {}), ticks, edges[group])
                ax.set_title(f"groups of {group}")
                ax.set_xlabel("base policy's probability")
        handles = [plt.Line2D([], [], color=_color(bonus), marker="o", label=bonus) for bonus in BONUSES]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(BONUSES))
        note = (
            "minus plain GRPO, 95 % intervals; cross: one seed, no interval; shaded: the edge, 10 to 90 % mixed groups"
        )
        figure.supxlabel(note, fontsize=9, color=NOTE)
        save_figure(figure, path, dpi=130)


def _bin_at_edge(shares: np.ndarray, place: int, group: int) -> bool:
    inside = shares[np.digitize(shares, BINS[1:-1]) == place]
    return bool(len(inside)) and is_edge(float(inside.mean()), group)


def _color(bonus: str) -> str:
    return UNPARSABLE if bonus == CONTROL else color_of(BONUSES.index(bonus))


def _draw(ax: Axes, found: dict[str, dict[int, Point]], ticks: Sequence[str], edges: Sequence[int]) -> None:
    for place in edges:
        ax.axvspan(place - 0.5, place + 0.5, color="#F1EBD8", zorder=0, linewidth=0)
    ax.axhline(0.0, color=TOTAL, linewidth=0.8)
    for number, bonus in enumerate(name for name in BONUSES if name in found):
        shift = 0.12 * (number - (len(found) - 1) / 2)
        places = sorted(found[bonus])
        at, color = [place + shift for place in places], _color(bonus)
        ax.plot(at, [found[bonus][place][0] for place in places], color=color, linewidth=1, alpha=0.6)
        for x, place in zip(at, places, strict=True):
            gain, low, high = found[bonus][place]
            if low is not None:
                ax.plot([x, x], [low, high], color=color, linewidth=1.6)
            ax.plot(x, gain, "x" if low is None else "o", color=color, markersize=5)
    if not found:
        ax.text(0.5, 0.6, EMPTY, transform=ax.transAxes, ha="center", va="center", color=NOTE)
    ax.set_xticks(range(len(ticks)), ticks, fontsize="small")
    ax.set_xlim(-0.6, len(ticks) - 0.4)
