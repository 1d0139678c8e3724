"""Whether an arm gets with half of the rollouts where plain GRPO gets with all of them, from the curves of training.

Every step of a sweep takes as many rollouts, so half of the steps is half of the rollouts. Compared is the accuracy of
the completions trained on: of an arm around the middle of its steps, of the baseline at the end of its own, as means
over a tenth of the steps. Runs of one seed see the same problems in the same order, so differences are paired by seed.
"""

import numpy as np

from analysis.comparison import adjusted
from analysis.results_tables import ONE_SEED
from analysis.statistics import mean_t_interval, paired_t
from analysis.sweep import Sweep, curves_of
from common.markdown import markdown_table

NOT_REACHED = "not reached"


def half_table(sweep: Sweep) -> str:
    """Every arm at half of the steps against the baseline at the end, and when it first was there (median of seeds).

    Intervals are 95 % t intervals over seeds.
    """
    base, curves = sweep.result["baseline"], curves_of(sweep)
    ends = {seed: level_at(curve, len(curve)) for seed, curve in curves[base].items()}
    heads = ["arm", "seeds", "right in training, half of the steps, %", f"minus `{base}` at the end", "Holm p"]
    rows: dict[str, list[str]] = {}
    p_values: dict[str, float | None] = {}
    for label, by_seed in curves.items():
        seeds = [seed for seed in by_seed if seed in ends]
        halves = [level_at(by_seed[seed], len(by_seed[seed]) // 2) for seed in seeds]
        differences = [half - ends[seed] for half, seed in zip(halves, seeds, strict=True)]
        reached = [first_at(by_seed[seed], ends[seed]) for seed in seeds]
        if label != base:  # a question about other arms; its own row shows how far it gets by itself
            p_values[label] = paired_t(differences) if len(seeds) > 1 else None
        rows[label] = [f"`{label}`", str(len(seeds)), *_levels(halves, differences), _median(reached)]
    adjusted_p = adjusted(p_values, sweep.arms)
    for label, row in rows.items():
        p = adjusted_p.get(label)
        row.insert(4, "" if p is None else f"{p:.3f}")
    return markdown_table([*heads, f"first at the end of `{base}`, % of the steps"], list(rows.values()))


def level_at(curve: np.ndarray, step: int) -> float:
    """Mean of the tenth of ``curve`` that ends with ``step``, counted from 1."""
    return float(curve[max(0, step - _tenth(curve)) : step].mean())


def first_at(curve: np.ndarray, level: float) -> float:
    """The first step with `level_at` of ``level`` or more, as a share of all steps; infinite where there is none."""
    steps = range(_tenth(curve), len(curve) + 1)
    return next((step / len(curve) for step in steps if level_at(curve, step) >= level), np.inf)


def _tenth(curve: np.ndarray) -> int:
    return max(1, len(curve) // 10)


def _levels(halves: list[float], differences: list[float]) -> list[str]:
    if not halves:
        return ["", ""]
    if len(differences) == 1:
        return [f"{100 * halves[0]:.1f}", f"{100 * differences[0]:+.1f}, {ONE_SEED}"]
    mean, half_width = mean_t_interval(differences)
    interval = f"[{100 * (mean - half_width):+.1f}, {100 * (mean + half_width):+.1f}]"
    return [f"{100 * np.mean(halves):.1f}", f"{100 * mean:+.1f} {interval}"]


def _median(reached: list[float]) -> str:
    middle = float(np.median(reached)) if reached else np.inf
    return f"{100 * middle:.0f}" if np.isfinite(middle) else NOT_REACHED
