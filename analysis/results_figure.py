"""The picture of a sweep: differences to its baseline; training; pass@k and profiles beside the base policy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from analysis.evaluated import EvaluatedRun
from analysis.results_tables import CLEAR, difference_unit, other_outcomes, title, unit_of
from analysis.statistics import crossed_difference, performance_profile
from analysis.style import BEFORE, NOTE, STYLE, TOTAL, UNPARSABLE, color_of, save_figure
from analysis.sweep import Sweep, curves_of

DIGEST = "Records"  # text field of the picture: hash of the records it was drawn from
BASE = "base policy"
DASHES = ("-", "--", ":")  # of the first arms of each colour, the second, ...
THRESHOLDS = np.linspace(0.0, 1.0, 65)[:-1]

Look = tuple[str, str, float]  # colour, dash, width
Others = dict[str, bool]  # label of an arm that is not the baseline -> whether it is a control


def draw_sweep(sweep: Sweep, path: Path) -> Path:
    """Draw ``sweep`` into ``path``, which is returned."""
    controls = {arm.label: arm.is_control for arm in sweep.arms}
    others = {label: controls[label] for label in sweep.result["runs"] if label != sweep.result["baseline"]}
    names = ["accuracy", *other_outcomes(sweep)]
    rows = (1.3 + 0.3 * (len(others) + 1), 3.4)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12.5, sum(rows) + 0.3), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=rows)
        axes = upper.subplots(1, 1 + len(names), sharey=True)
        _draw_levels(axes[0], sweep, others)
        for ax, name in zip(axes[1:], names, strict=True):
            _draw_differences(ax, sweep, others, name)
        training, fan, profile, key = lower.subplots(1, 4, width_ratios=(1, 1, 1, 0.7))
        _draw_training(training, sweep, others)
        curves = _curves(sweep, others)
        _draw_fan(fan, curves)
        _draw_profile(profile, curves)
        key.axis("off")
        key.legend(*fan.get_legend_handles_labels(), loc="center left", ncols=1 + (len(curves) > 12))
        note = (
            "95 % intervals; filled: clear of 0 after Holm; cross: one seed, no interval; grey: controls, base policy"
        )
        figure.supxlabel(note, fontsize=9, color=NOTE)
        save_figure(figure, path, dpi=130, metadata={DIGEST: sweep.digest})
    return path


def _look(label: str, others: Others) -> Look:
    """That of an arm; the baseline is black, controls are grey."""
    if label not in others:
        return TOTAL, "-", 2.4
    place = [name for name, is_control in others.items() if is_control == others[label]].index(label)
    if others[label]:
        return UNPARSABLE, DASHES[place % len(DASHES)], 1.2
    return color_of(place), DASHES[place // 8 % len(DASHES)], 1.6


def _draw_levels(ax: Axes, sweep: Sweep, others: Others) -> None:
    base = 100 * float(np.mean([run.scores["accuracy"].mean() for run in sweep.before]))
    ax.axvline(base, color=BEFORE, linestyle="--", linewidth=1.6)
    ax.text(base, 1.01, BASE, transform=ax.get_xaxis_transform(), fontsize=8, color=NOTE, ha="left", va="bottom")
    labels = [sweep.result["baseline"], *others]
    for place, label in enumerate(labels):
        row = sweep.result["outcomes"]["accuracy"][label]
        color = _look(label, others)[0]
        seeds = [100 * value for value in row["by_seed"].values()]
        ax.plot(seeds, [-place] * len(seeds), "o", color=color, alpha=0.4)
        ax.plot(100 * row["mean"], -place, "|", color=color, markersize=16, markeredgewidth=2.4)
    ax.set_yticks([-place for place in range(len(labels))], labels)
    ax.set_ylim(-len(labels) + 0.4, 0.6)
    ax.set_xlabel("right, per cent: seeds and their mean", fontsize="small")


def _draw_differences(ax: Axes, sweep: Sweep, others: Others, name: str) -> None:
    ax.axvline(0, color=TOTAL, linewidth=0.8)
    _, scale = unit_of(name)
    for place, label in enumerate(others, start=1):
        row, color = sweep.result["outcomes"][name][label], _look(label, others)[0]
        if len(row["paired_seeds"]) == 1:
            ax.plot(scale * row["difference"], -place, "x", color=color, markersize=7, markeredgewidth=2)
        elif row["low"] is not None:
            clear = row["p_holm"] is not None and row["p_holm"] < CLEAR
            ax.plot([scale * row["low"], scale * row["high"]], [-place, -place], color=color, linewidth=2)
            ax.plot(scale * row["difference"], -place, "o", color=color, markerfacecolor=color if clear else "white")
    ax.set_title(title(name))
    ax.set_xlabel(f"minus {sweep.result['baseline']}, {difference_unit(name)}", fontsize="small")


def _curves(sweep: Sweep, others: Others) -> list[tuple[str, Look, list[EvaluatedRun]]]:
    """(label, look, runs): the base policy, the baseline, then the other arms."""
    arms = {arm.label: list(arm.runs.values()) for arm in sweep.arms}
    labels = [sweep.result["baseline"], *others]
    base = (BASE, (BEFORE, "--", 2.4), sweep.before)
    return [base, *((label, _look(label, others), arms[label]) for label in labels)]


def _draw_training(ax: Axes, sweep: Sweep, others: Others) -> None:
    """Accuracy of the completions trained on, mean over seeds, smoothed over steps."""
    for label, by_seed in curves_of(sweep).items():
        color, dash, width = _look(label, others)
        mean = pd.concat([pd.Series(curve) for curve in by_seed.values()], axis=1).mean(axis=1)
        # A step of a few problems says more of them than of the policy, so a fifth of the steps is looked at.
        smoothed = mean.ewm(span=max(1, len(mean) // 5)).mean()
        ax.plot(mean.index + 1, 100 * smoothed, dash, color=color, linewidth=width)
    ax.set(title="right in training", xlabel="step, smoothed over a fifth", ylabel="per cent of completions")


def _draw_fan(ax: Axes, curves: list[tuple[str, Look, list[EvaluatedRun]]]) -> None:
    names = ["accuracy", *(name for name in curves[0][2][0].scores if name.startswith("pass@"))]
    ks = [int(name.partition("@")[2] or 1) for name in names]
    for place, (label, (color, dash, width), runs) in enumerate(curves):
        tables = [np.stack([run.scores[name] for run in runs]) for name in names]
        ax.plot(ks, [100 * table.mean() for table in tables], dash, color=color, linewidth=width, label=label)
        if _is_shaded(place, runs):
            _shade(ax, ks, tables, color, of_one_policy=place == 0)
    ax.set_xscale("log", base=2)
    ax.set_xticks(ks, list(map(str, ks)))
    ax.set(title="pass@k", xlabel="k", ylabel="per cent of problems")


def _draw_profile(ax: Axes, curves: list[tuple[str, Look, list[EvaluatedRun]]]) -> None:
    for place, (_, (color, dash, width), runs) in enumerate(curves):
        scores = np.stack([run.scores["accuracy"] for run in runs])
        shares = performance_profile(scores, THRESHOLDS)
        ax.plot(THRESHOLDS, 100 * shares, dash, color=color, linewidth=width, drawstyle="steps-post")
        if _is_shaded(place, runs):
            steps = np.unique(scores)
            at = steps[steps < 1]
            above = [scores > threshold for threshold in at]
            _shade(ax, at, above, color, of_one_policy=place == 0, step="post")
    ax.set(title="performance profile", xlabel="t: more than this share of the samples is right")
    ax.set_ylabel("per cent of problems")


def _is_shaded(place: int, runs: list[EvaluatedRun]) -> bool:
    """Whether the curve at ``place`` has its interval drawn: the base policy's, and from three seeds on the baseline's,
    which from two would take up the whole picture."""
    return place == 0 or (place == 1 and len(runs) > 2)


def _shade(
    ax: Axes, at, tables: Sequence[np.ndarray], color: str, of_one_policy: bool, step: str | None = None
) -> None:
    """The 95 % interval of the mean of each (S, P) table of shares, over seeds and problems.

    Of one seed, and of evaluations of one policy, it is over problems. With few seeds a t interval can reach beyond
    what a share can be, and is cut off there.
    """
    if of_one_policy:
        tables = [table.mean(axis=0, keepdims=True) for table in tables]  # (S, P) to (1, P)
    found = [crossed_difference(table) for table in tables]
    low, high = (np.clip([100 * row[name] for row in found], 0, 100) for name in ("low", "high"))
    ax.fill_between(at, low, high, color=color, alpha=0.13, linewidth=0, step=step)
