"""Table and plot of `benchmarks.known_truth`: means over seeds with 95 % intervals, and paired differences to "no"."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from scipy import stats

from analysis.style import NOTE, SERIES, STYLE, TOTAL, UNPARSABLE

COLUMNS = ("pass@1", "rare_share", "rare@64", "rare_found", "right_found", "coverage")
PANELS = {"pass@1": "pass@1", "rare@64": "rare strategy in 64 samples", "coverage": "expressions tried"}


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half width of its 95 % t interval over seeds."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def final(curves: list[list[dict]], column: str) -> np.ndarray:
    """The last measurement of every seed."""
    return np.array([curve[-1][column] for curve in curves])


def table(curves: dict[str, list[list[dict]]]) -> str:
    """Markdown: every bonus with its last figures, and the difference of rare@64 to "no" with the same seeds."""
    lines = [f"| bonus | {' | '.join(COLUMNS)} | rare@64 minus no |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, runs in curves.items():
        cells = ["{:.3f} ± {:.3f}".format(*interval(final(runs, column))) for column in COLUMNS]
        difference = final(runs, "rare@64") - final(curves["no"], "rare@64")
        paired = "" if name == "no" else "{:+.3f} ± {:.3f}".format(*interval(difference))
        lines.append(f"| `{name}` | {' | '.join(cells)} | {paired} |")
    before = [curve[0] for runs in curves.values() for curve in runs]
    start = ", ".join(f"{column} {np.mean([point[column] for point in before]):.3f}" for column in COLUMNS[:3])
    seeds = len(curves["no"])
    return "\n".join(lines) + f"\n\n{seeds} seeds, mean ± 95 % t interval over seeds. Before training: {start}.\n"


def plot(curves: dict[str, list[list[dict]]], path: Path) -> None:
    """Last figures of every bonus minus those of "no" with the same seed, with intervals; controls hollow and grey."""
    names = [name for name in curves if name != "no"]
    size = (4.2 * len(PANELS) + 1.5, 0.3 * len(names) + 1.6)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(PANELS), figsize=size, sharey=True, layout="constrained")
        for axis, (column, title) in zip(axes, PANELS.items(), strict=True):
            for row, name in enumerate(names):
                mean, half = interval(final(curves[name], column) - final(curves["no"], column))
                control = name == "noise" or name.startswith("shuffle:")
                color, face = (UNPARSABLE, "white") if control else (SERIES[0], SERIES[0])
                axis.errorbar(mean, row, xerr=half, fmt="o", color=color, markerfacecolor=face, markersize=6)
            axis.axvline(0.0, color=TOTAL, linewidth=1)
            axis.set(title=title, xlabel="difference to no", yticks=range(len(names)), yticklabels=names)
        axes[0].invert_yaxis()
        seeds = f"{len(curves['no'])} seeds, means of paired differences with 95 % intervals"
        figure.supxlabel(f"{seeds}; hollow: controls", fontsize=9, color=NOTE)
        figure.savefig(path, dpi=130)
        plt.close(figure)
