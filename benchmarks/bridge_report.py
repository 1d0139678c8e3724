"""Table and picture of `benchmarks.bridge`: accuracy from SFT to GRPO, and what was measured before GRPO."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from analysis.results_tables import interval_cell
from analysis.statistics import mean_t_interval
from analysis.style import SERIES, STYLE, save_figure

ACCURACY = "accuracy"
STAGES = {"after SFT": "before", "after GRPO": "after"}  # name of a stage -> of the evaluation in GRPO's run folder

# What is shown -> its name in the influence's metrics.
INFLUENCE = {"E[sqrt(a(1-a))] before GRPO": "accuracy_factor", "mean cosine before GRPO": "cosine"}


def seed_interval(values: list[float]) -> tuple[float, float]:
    """Mean over seeds and half width of its 95 % t interval; NaN for one seed."""
    if len(values) < 2:
        return values[0], float("nan")
    return mean_t_interval(values)


def table(found: dict[str, list[dict]]) -> str:
    """Markdown: accuracy, lengths and influence per style and seed, and means over seeds."""
    heads, parts = [f"seed {seed}" for seed in range(len(next(iter(found.values()))))], _parts(found)
    lines = [f"| traces | | {' | '.join(heads)} | mean |", "|---" * (len(heads) + 3) + "|"]
    for style, rows in found.items():
        for part in parts:
            for stage in STAGES:
                what = f"{ACCURACY} {stage}{part}, %"
                lines.append(_line(style, what, [interval_cell(row[stage][ACCURACY + part]) for row in rows]))
                lines[-1] += _mean([100 * row[stage][ACCURACY + part]["mean"] for row in rows], 1)
            lines.append(_points(style, f"gain by GRPO{part}, points", _gains(rows, part)))
        for stage in STAGES:
            cells = [f"{row[stage]['mean_length']:.0f}, {row[stage]['truncated']:.0%}" for row in rows]
            lines.append(_line(style, f"tokens, cut off, {stage}", cells) + " |")
        for name in INFLUENCE:
            if all(name in row for row in rows):
                lines.append(_line(style, name, [interval_cell(row[name], 1.0, 3) for row in rows]))
                lines[-1] += _mean([row[name]["mean"] for row in rows], 3)
    for part in parts:
        plain, injected = (_gains(found[style], part) for style in ("plain", "injected"))
        more = [own - other for own, other in zip(injected, plain, strict=True)]
        lines.append(_points("injected over plain", f"gain by GRPO{part}, points", more))
    notes = "95 % intervals over held-out problems; means over seeds ± half of a 95 % t interval."
    return "\n".join(lines) + f"\n\n{notes}\n"


def _parts(found: dict[str, list[dict]]) -> list[str]:
    """What follows "accuracy" in the names of the held-out parts; of a set without parts that is nothing, once."""
    names = found["plain"][0]["after SFT"]
    return [name.removeprefix(ACCURACY) for name in names if name.startswith(f"{ACCURACY},")] or [""]


def _gains(rows: list[dict], part: str) -> list[float]:
    before, after = ([row[stage][ACCURACY + part]["mean"] for row in rows] for stage in STAGES)
    return [100 * (own - other) for own, other in zip(after, before, strict=True)]


def _points(style: str, what: str, values: list[float]) -> str:
    return _line(style, what, [f"{value:+.1f}" for value in values]) + _mean(values, 1, "+")


def _line(style: str, what: str, cells: list[str]) -> str:
    return f"| {style} | {what} | {' | '.join(cells)} |"


def _mean(values: list[float], digits: int, sign: str = "") -> str:
    mean, half = seed_interval(values)
    return f" {mean:{sign}.{digits}f} ± {half:.{digits}f} |"


def plot(found: dict[str, list[dict]], path: Path) -> None:
    """Accuracy from SFT to GRPO, one thin line per seed; beside it what was measured of the theory before GRPO."""
    has_influence = all(name in row for rows in found.values() for row in rows for name in INFLUENCE)
    with plt.rc_context(STYLE):
        parts, measured = _parts(found), list(INFLUENCE) if has_influence else []
        sizes = [1.8] * len(parts) + [1.0] * len(measured)
        size = 3.0 + 2.6 * len(sizes), 4.2
        figure, axes = plt.subplots(
            1, len(sizes), figsize=size, width_ratios=sizes, layout="constrained", squeeze=False
        )
        for axis, part in zip(axes[0], parts, strict=False):  # those of the influence come after
            _plot_accuracy(axis, found, part)
        for axis, name in zip(axes[0, len(parts) :], measured, strict=True):
            _plot_before(axis, found, name)
        save_figure(figure, path, dpi=130)


def _plot_accuracy(axis, found: dict[str, list[dict]], part: str) -> None:
    for color, (style, rows) in zip(SERIES, found.items(), strict=False):
        lines = np.array([[100 * row[stage][ACCURACY + part]["mean"] for stage in STAGES] for row in rows])
        for number, (row, line) in enumerate(zip(rows, lines, strict=True)):
            bounds = [[100 * row[stage][ACCURACY + part][side] for stage in STAGES] for side in ("low", "high")]
            at = np.arange(len(STAGES)) + 0.03 * (number - (len(rows) - 1) / 2)
            axis.errorbar(at, line, yerr=np.abs(np.array(bounds) - line), color=color, alpha=0.35, capsize=3)
        axis.plot(range(len(STAGES)), lines.mean(axis=0), color=color, linewidth=3, label=style)
    axis.set(xticks=range(len(STAGES)), xticklabels=STAGES, ylabel=f"held-out accuracy{part}, %", xlim=(-0.3, 1.3))
    axis.legend()


def _plot_before(axis, found: dict[str, list[dict]], name: str) -> None:
    for place, (color, rows) in enumerate(zip(SERIES, found.values(), strict=False)):
        means = np.array([row[name]["mean"] for row in rows])
        error = np.abs(np.array([[row[name][side] for row in rows] for side in ("low", "high")]) - means)
        at = place + 0.12 * (np.arange(len(rows)) - (len(rows) - 1) / 2)
        axis.errorbar(at, means, yerr=error, color=color, fmt="o", capsize=3)
    axis.axhline(0, color="#BBBBBB", linewidth=0.8)
    axis.set(xticks=range(len(found)), xticklabels=list(found), xlim=(-0.5, len(found) - 0.5), title=name)
    axis.set_title(name, fontsize=9)
