"""Table and plot of `benchmarks.known_truth`: means over seeds with 95 % intervals, and paired differences to "no"."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from scipy import stats

from analysis.style import STYLE

COLUMNS = ("pass@1", "rare_share", "rare@64", "rare_found", "right_found", "coverage")
PANELS = {
    "pass@1": "accuracy (exact)",
    "rare_share": "rare strategy's share of right texts (exact)",
    "coverage": "expressions tried so far",
}


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
    """One panel per quantity of `PANELS`: mean over seeds by step, every bonus with the band of its interval."""
    matplotlib.use("Agg")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(PANELS), figsize=(5 * len(PANELS), 5), layout="constrained")
    colors = matplotlib.colormaps["tab20"].resampled(20)
    for axis, (column, title) in zip(axes, PANELS.items(), strict=True):
        for number, (name, runs) in enumerate(curves.items()):
            steps = [point["step"] for point in runs[0]]
            values = np.array([[point[column] for point in curve] for curve in runs])
            bands = [interval(values[:, place]) for place in range(len(steps))]
            mean, half = np.array(bands).T
            style = {"color": "black", "linewidth": 2.5} if name == "no" else {"color": colors(number % 20)}
            dashes = "--" if name == "noise" or name.startswith("shuffle:") else "-"
            axis.plot(steps, mean, dashes, label=name, **style)
            axis.fill_between(steps, mean - half, mean + half, color=style["color"], alpha=0.08, linewidth=0)
        axis.set(title=title, xlabel="updates")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
