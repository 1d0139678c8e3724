"""The one look of all figures: palette, sizes, smoothed lines and labels at the end of lines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.optimize import isotonic_regression

from common.files import write_atomically

# One colour per meaning, from the colour-blind-safe sets of Okabe & Ito and of Paul Tol.
RIGHT = "#0072B2"
WRONG = "#D55E00"
UNPARSABLE = "#9A9A9A"
TRAINING = "#117733"
HELD_OUT = "#222222"
BEFORE = "#9A9A9A"
TOTAL = "#222222"
NOTE = "#666666"
SERIES = ("#332288", "#CC6677", "#2A9D8F", "#999933", "#882255", "#3B9BD1", "#117733", "#AA4499")

STYLE = {
    "font.size": 10.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "savefig.dpi": 140,
    "text.parse_math": False,  # a "$" in a run's name is a dollar
}

Panel = Callable[[Axes], None]


@dataclass(frozen=True)
class Line:
    """A metric by step with its label and colour; an exact one (a schedule) is drawn as it is, without averaging."""

    series: pd.Series
    label: str
    color: str
    dash: str = "-"
    exact: bool = False

    @property
    def trend(self) -> pd.Series:
        """The series as its thick line shows it."""
        return self.series if self.exact else smooth(self.series)


def color_of(index: int) -> str:
    """The index-th colour for series without a meaning of their own."""
    return SERIES[index % len(SERIES)]


def smoothing_span(length: int) -> int:
    """Span, in logged steps, of the moving average of a series of this length."""
    return min(50, max(1, length // 10))


def smooth(values):
    """Exponential moving average of a series or of each column of a frame."""
    return values.ewm(span=smoothing_span(len(values))).mean()


def make_figure(panels: Sequence[Panel], title: str, note: str = "") -> Figure:
    """A grid of panels under a title; a single panel is drawn larger."""
    count = len(panels)
    cols = 2 if count in (2, 4) else min(count, 3)
    rows = -(-count // cols)
    size = (7.6, 4.2) if count == 1 else (5.3, 3.5)
    figure = Figure(figsize=(size[0] * cols, size[1] * rows + 0.7), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12, wspace=0.03, hspace=0.05)
    grid = figure.add_gridspec(rows, cols)
    for index, panel in enumerate(panels):
        panel(figure.add_subplot(grid[index // cols, index % cols]))
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=13.5, color="#111111")
    if note:
        figure.supxlabel(note, x=0.012, ha="left", fontsize=8.5, color=NOTE)
    return figure


def save_figure(figure: Figure, path: Path, **settings: Any) -> Path:
    """Write ``figure`` to ``path``, which is returned, in one step, in the format that its ending names, and close it.

    ``settings``: as `matplotlib.figure.Figure.savefig` takes them. The folder is made where there is none.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: figure.savefig(temporary, **settings))
    finally:
        plt.close(figure)
    return path


def draw_line(ax: Axes, line: Line, raw: bool = True) -> None:
    """The series as a faint line under its moving average; a dot where it has a single step."""
    if len(line.series) == 1:
        ax.plot(line.series.index, line.series, "o", color=line.color, markersize=6)
        return
    if raw and not line.exact and smoothing_span(len(line.series)) > 1:
        ax.plot(line.series.index, line.series, color=line.color, linewidth=0.9, alpha=0.28)
    ax.plot(line.series.index, line.trend, line.dash, color=line.color, linewidth=2)


def finish_axes(ax: Axes, title: str, ylabel: str, percent: bool = False) -> None:
    """Title, axis names and limits; a share is shown in per cent from 0 and never above 100."""
    ax.set(title=title, xlabel="optimiser step", ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    low, high = ax.get_xlim()
    if high - low < 1:
        ax.set_xlim(low - 1, high + 1)
    if percent:
        top = min(1.0, max(0.05, ax.dataLim.y1 * 1.12))
        ax.set_ylim(-0.02 * top, top * 1.02)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.08 else 1))
    else:
        ax.margins(y=0.08)


def label_ends(ax: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write labels right of the axes at the heights ``ends`` = (y in data units, text, colour), pushed apart.

    Call after the limits are final.
    """
    if not ends:
        return
    low, high = ax.get_ylim()
    size = 10
    gap = 1.45 * size / 72 * ax.figure.dpi / ax.get_window_extent().height
    ends = sorted(ends, key=lambda end: end[0])
    offsets = gap * np.arange(len(ends))
    heights = np.clip([(y - low) / (high - low) for y, _, _ in ends], 0.0, 1.0)
    # Monotone regression of height minus offset is the least-squares placement with at least `gap` between neighbours.
    placed = np.clip(isotonic_regression(heights - offsets).x, 0.0, max(0.0, 1.0 - offsets[-1])) + offsets
    for position, (_, text, color) in zip(placed, ends, strict=True):
        ax.annotate(
            text,
            xy=(1.0, position),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=size,
            color=color,
            annotation_clip=False,
        )


def line_panel(title: str, ylabel: str, lines: Sequence[Line], percent: bool = False, labels: bool = True) -> Panel:
    """A panel of lines; with several lines each one's label stands at its end unless ``labels`` is off."""

    def draw(ax: Axes) -> None:
        for line in lines:
            draw_line(ax, line, raw=len(lines) <= 4)
        finish_axes(ax, title, ylabel, percent)
        if labels and len(lines) > 1:
            label_ends(ax, [(float(line.trend.iloc[-1]), line.label, line.color) for line in lines])

    return draw
