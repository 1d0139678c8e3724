"""The figure of an influence analysis: rollout accuracy, the matrix of cosines, and their distribution."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis import style

BINS = 24


def save_plot(report: dict, path: Path) -> None:
    """Draw the three panels of a report of `analysis.influence.measure` into ``path``."""
    metrics, queries = report["metrics"], report["queries"]
    accuracy = np.array(queries["accuracy"])
    cosine = np.array(queries["cosine"], dtype=float)
    order = np.argsort(accuracy, kind="stable")
    learnable = [index for index in order if np.isfinite(cosine[index, index])]
    cosine = cosine[np.ix_(learnable, learnable)]
    panels = [
        lambda ax: draw_accuracy(ax, metrics),
        lambda ax: draw_matrix(ax, cosine),
        lambda ax: draw_cosines(ax, cosine, metrics["cosine"]),
    ]
    subset = report["subset"]
    note = (
        f"{len(accuracy)} queries of {report['task']}, {len(learnable)} of them with right and wrong samples. "
        f"Gradients on {len(subset['names'])} parameters ({subset['size']:,} values)."
    )
    with mpl.rc_context(style.STYLE):
        style.save_figure(style.make_figure(panels, f"Influence between queries, {report['model']}", note), path)


def draw_accuracy(ax: Axes, metrics: dict) -> None:
    """Queries by number of right samples, coloured where GRPO's advantage is not 0."""
    counts = metrics["histogram"]
    colors = [style.BEFORE, *[style.RIGHT] * (len(counts) - 2), style.BEFORE]
    ax.bar(range(len(counts)), counts, color=colors)
    factor = metrics["accuracy_factor"]
    ax.set(
        title="Rollout accuracy",
        xlabel=f"right samples of {len(counts) - 1} (grey: no influence)",
        ylabel="queries",
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.text(
        0.98,
        0.97,
        f"E[sqrt(a(1-a))] = {factor['mean']:.3f} [{factor['low']:.3f}, {factor['high']:.3f}]",
        transform=ax.transAxes,
        ha="right",
        va="top",
        color=style.NOTE,
    )
    ax.margins(y=0.18)


def draw_matrix(ax: Axes, cosine: np.ndarray) -> None:
    """Cosines between queries, those of low accuracy first; the colours reach to the largest one off the diagonal."""
    ax.set(title="Cosine of D_q", xlabel="query, by accuracy", ylabel="query, by accuracy")
    ax.grid(visible=False)
    if len(cosine) < 2:
        _no_pairs(ax)
        return
    reach = np.abs(cosine[~np.eye(len(cosine), dtype=bool)]).max() or 1.0
    image = ax.imshow(
        cosine, cmap="RdBu", vmin=-reach, vmax=reach, interpolation="nearest", origin="lower", aspect="auto"
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.figure.colorbar(image, ax=ax, extend="max")


def draw_cosines(ax: Axes, cosine: np.ndarray, mean: dict) -> None:
    """Histogram of the cosines between different queries with their mean and its interval."""
    ax.set(title="Cosines between queries", xlabel="cosine", ylabel="pairs")
    if len(cosine) < 2:
        _no_pairs(ax)
        return
    ax.hist(cosine[np.triu_indices(len(cosine), 1)], bins=BINS, color=style.color_of(5))
    ax.axvline(0.0, color=style.NOTE, linewidth=0.8)
    ax.axvline(mean["mean"], color=style.WRONG, linewidth=2, label=f"mean {mean['mean']:.3f}")
    if mean["low"] is not None:
        ax.axvspan(mean["low"], mean["high"], color=style.WRONG, alpha=0.2, linewidth=0)
    ax.legend(loc="upper right")


def _no_pairs(ax: Axes) -> None:
    ax.text(0.5, 0.5, "fewer than two queries\nwith right and wrong samples", transform=ax.transAxes, ha="center")
