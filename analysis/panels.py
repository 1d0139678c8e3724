"""What each topic of a run shows: for every topic a list of panels, empty where the run logged nothing of it."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import style
from analysis.runs import Run
from analysis.style import Line, Panel, line_panel
from evaluation.table import point

# Colour by kind of verdict, in the order of the stack from the bottom; kinds not named here come before the last three.
VERDICT_COLORS = {
    "right": style.RIGHT,
    "correct": style.RIGHT,
    "wrong": style.WRONG,
    "wrong_value": style.WRONG,
    "wrong_numbers": "#E69F00",
    "no_answer": "#9F9F9F",
    "syntax": "#5C5C5C",
    "unparsable": style.UNPARSABLE,
}
OTHER_VERDICTS = ("#CC79A7", "#999933", "#44AA99", "#882255", "#332288")


def lines_of(run: Run, pattern: str, label: Callable) -> list[Line]:
    """One line per metric whose name matches ``pattern``, labelled by ``label(match)``."""
    found = run.columns(pattern).items()
    return [Line(run.series(c), label(match), style.color_of(i)) for i, (c, match) in enumerate(found)]


def single_panel(run: Run, column: str, title: str, ylabel: str, color: str, percent: bool = False) -> list[Panel]:
    """A panel of one metric, or none where it was never logged."""
    series = run.series(column)
    return [line_panel(title, ylabel, [Line(series, column, color)], percent)] if len(series) else []


def training_accuracy(run: Run) -> tuple[pd.Series, str]:
    """Share of right answers on training prompts by step with its axis name; the reward where verdicts are missing."""
    for column in ("verdict/right", "verdict/correct"):
        if len(run.series(column)):
            return run.series(column), "share right"
    for column in ("rewards/correctness/mean", "reward"):
        series = run.series(column)
        if len(series):
            is_share = column != "reward" and series.between(0, 1).all()
            return series, "share right" if is_share else "mean reward"
    return pd.Series(dtype=float), "share right"


def held_out(run: Run, metric: str = "accuracy") -> pd.DataFrame:
    """Evaluations of a metric by step: columns mean, below and above (lengths of the error bars, 0 where unknown).

    The evaluation files count; "eval_accuracy" of the log fills the steps that have no file.
    """
    rows = {}
    if metric == "accuracy":
        rows = {int(step): (value, 0.0, 0.0) for step, value in run.series("eval_accuracy").items()}
    for name, evaluation in run.evals.items():
        value = evaluation["metrics"].get(metric)
        mean = point(value)
        if mean is None or not np.isfinite(mean):
            continue
        interval = value if isinstance(value, dict) else {}
        low, high = interval.get("low"), interval.get("high")
        rows[run.eval_step(name)] = (
            mean,
            max(0.0, mean - low) if low is not None else 0.0,
            max(0.0, high - mean) if high is not None else 0.0,
        )
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "below", "above"]).sort_index()


def draw_held_out(ax: Axes, frame: pd.DataFrame, color: str) -> None:
    """Evaluations as dots with error bars joined by a thin line."""
    ax.errorbar(
        frame.index,
        frame["mean"],
        yerr=frame[["below", "above"]].to_numpy().T,
        fmt="o-",
        color=color,
        markersize=6,
        linewidth=1.2,
        elinewidth=1.4,
        capsize=3.5,
        zorder=5,
    )


def accuracy_panels(run: Run) -> list[Panel]:
    """Training accuracy with the held-out evaluations, and pass@k before against after."""
    series, unit = training_accuracy(run)
    frame = held_out(run)
    panels = []
    if unit != "share right" and len(frame):
        panels.append(_accuracy_panel(pd.Series(dtype=float), frame, "share right"))
        panels.append(line_panel("Training reward", unit, [Line(series, "training", style.TRAINING)]))
    elif len(series) or len(frame):
        panels.append(_accuracy_panel(series, frame, unit))
    return panels + _pass_at_k_panels(run)


def _accuracy_panel(series: pd.Series, frame: pd.DataFrame, unit: str) -> Panel:
    def draw(ax: Axes) -> None:
        ends = []
        if len(series):
            style.draw_line(ax, Line(series, "training", style.TRAINING))
            ends.append((float(style.smooth(series).iloc[-1]), "training", style.TRAINING))
        if len(frame):
            draw_held_out(ax, frame, style.HELD_OUT)
            ends.append((float(frame["mean"].iloc[-1]), "held-out", style.HELD_OUT))
        title = "Accuracy" if unit == "share right" else "Training reward"
        style.finish_axes(ax, title, unit, percent=unit == "share right")
        style.label_ends(ax, ends)

    return draw


def _pass_at_k_panels(run: Run) -> list[Panel]:
    curves = {name: _pass_at_k(run.evals[name]["metrics"]) for name in ("before", "after") if name in run.evals}
    curves = {name: curve for name, curve in curves.items() if len(curve) > 1}
    if not curves:
        return []
    colors = {"before": style.BEFORE, "after": style.HELD_OUT}

    def draw(ax: Axes) -> None:
        for name, curve in curves.items():
            draw_held_out(ax, curve, colors[name])
        style.finish_axes(ax, "Held-out pass@k", "problems solved", percent=True)
        ks = sorted({k for curve in curves.values() for k in curve.index})
        ax.set_xscale("log", base=2)
        ax.set_xticks(ks, [str(k) for k in ks])
        ax.set_xlabel("k, samples per problem")
        ax.minorticks_off()
        style.label_ends(ax, [(curve["mean"].iloc[-1], name, colors[name]) for name, curve in curves.items()])

    return [draw]


def _pass_at_k(metrics: dict) -> pd.DataFrame:
    values = {
        int(name[5:]): value for name, value in metrics.items() if name.startswith("pass@") and name[5:].isdigit()
    }
    if "accuracy" in metrics:
        values.setdefault(1, metrics["accuracy"])
    rows = {
        k: (value["mean"], max(0.0, value["mean"] - value["low"]), max(0.0, value["high"] - value["mean"]))
        for k, value in values.items()
        if isinstance(value, dict) and None not in (value.get("mean"), value.get("low"), value.get("high"))
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "below", "above"]).sort_index()


def reward_panels(run: Run) -> list[Panel]:
    """Each reward column and their weighted sum."""
    lines = lines_of(run, r"rewards/(.+)/mean", lambda match: match.group(1))
    total = run.series("reward")
    if len(total):
        lines.append(Line(total, "total", style.TOTAL))
    return [line_panel("Reward parts", "mean reward per completion", lines)] if lines else []


def right_wrong_panels(run: Run, measure: str, title: str, ylabel: str) -> list[Panel]:
    """A panel for each ir/<bonus>[/<part>] with ``measure`` on right against wrong answers."""
    panels = []
    for prefix in sorted({match.group(1) for match in run.columns(rf"ir/(.+)/{measure}_(?:right|wrong)").values()}):
        lines = [
            Line(run.series(f"ir/{prefix}/{measure}_{side}"), f"{side} answers", color)
            for side, color in (("right", style.RIGHT), ("wrong", style.WRONG))
        ]
        lines = [line for line in lines if len(line.series)]
        panels.append(line_panel(f"{title} {prefix.replace('/', ': ')}", ylabel, lines))
    return panels


def bonus_panels(run: Run) -> list[Panel]:
    """Raw bonus of right against wrong answers: a bonus as a whole, then each of its parts."""
    return right_wrong_panels(run, "raw", "Bonus", "mean raw bonus")


def length_panels(run: Run) -> list[Panel]:
    """Completion length, and the share cut off at the length limit."""
    return single_panel(
        run, "completions/mean_length", "Completion length", "tokens, mean", style.SERIES[0]
    ) + single_panel(
        run, "completions/clipped_ratio", "Completions cut off at the limit", "share", style.SERIES[1], percent=True
    )


def entropy_panels(run: Run) -> list[Panel]:
    """Policy entropy, and the divergence from the reference policy."""
    return single_panel(run, "entropy", "Policy entropy", "nats per token", style.SERIES[2]) + single_panel(
        run, "kl", "KL from the reference policy", "nats per token", style.SERIES[4]
    )


def zero_variance_panels(run: Run) -> list[Panel]:
    """Groups that teach nothing because all their rewards are equal, and the spread within groups."""
    return single_panel(
        run, "frac_reward_zero_std", "Groups with equal rewards", "share of groups", style.SERIES[5], percent=True
    ) + single_panel(run, "reward_std", "Reward spread within groups", "standard deviation", style.SERIES[3])


def advantage_share_panels(run: Run) -> list[Panel]:
    """How much of the advantage each bonus makes, for whom, and its weight where that changes."""
    shares = lines_of(run, r"ir/([^/]+)/share_of_advantage", lambda match: match.group(1))
    weights = [
        replace(line, exact=True, dash=("-", "--", ":", "-.")[index % 4])
        for index, line in enumerate(lines_of(run, r"ir/([^/]+)/weight", lambda match: match.group(1)))
    ]
    panels = [line_panel("Bonus share of the advantage", "share", shares, percent=True)] if shares else []
    panels += right_wrong_panels(run, "advantage", "Advantage from", "mean change of advantage")
    if any(line.series.nunique() > 1 for line in weights):
        panels.append(line_panel("Bonus weight", "weight", weights))
    return panels


def verdict_panels(run: Run) -> list[Panel]:
    """Share of each kind of verdict on training completions, stacked."""
    found = {column: match.group(1) for column, match in run.columns(r"verdict/(.+)").items()}
    if not any(run.series(column).any() for column in found):
        return []
    frame = pd.DataFrame({kind: run.series(column) for column, kind in found.items()}).fillna(0.0)
    frame = frame.loc[:, frame.max() > 0]
    named = list(VERDICT_COLORS)
    rank = {kind: named.index(kind) if kind in named else len(named) - 3.5 for kind in frame}
    kinds = sorted(frame, key=lambda kind: (rank[kind], kind))
    others = itertools.cycle(OTHER_VERDICTS)
    colors = [VERDICT_COLORS.get(kind) or next(others) for kind in kinds]
    shares = style.smooth(frame[kinds])
    if len(shares) == 1:
        step = shares.index[0]
        shares = pd.DataFrame([shares.iloc[0]] * 2, index=[step - 0.5, step + 0.5])

    def draw(ax: Axes) -> None:
        ax.stackplot(shares.index, shares.to_numpy().T, colors=colors, alpha=0.85, linewidth=0)
        style.finish_axes(ax, "Verdicts on training completions", "share", percent=True)
        ax.set_ylim(0, 1)
        ax.margins(x=0)
        if len(frame) == 1:
            ax.set_xticks(frame.index)
        tops = shares.iloc[-1].cumsum()
        ends = [(top - share / 2, kind) for kind, top, share in zip(kinds, tops, shares.iloc[-1], strict=True)]
        style.label_ends(ax, [(y, kind, color) for (y, kind), color in zip(ends, colors, strict=True)])

    return [draw]


TOPICS: dict[str, tuple[str, Callable[[Run], list[Panel]]]] = {
    "accuracy": ("Accuracy on training and held-out problems", accuracy_panels),
    "verdicts": ("Verdicts on training completions", verdict_panels),
    "rewards": ("Rewards", reward_panels),
    "bonus_right_wrong": ("Raw intrinsic bonus of right against wrong answers", bonus_panels),
    "advantage_share": ("What the intrinsic bonus adds to the advantage", advantage_share_panels),
    "zero_variance": ("Groups without a learning signal", zero_variance_panels),
    "entropy": ("Entropy and divergence of the policy", entropy_panels),
    "length": ("Length and truncation of completions", length_panels),
}
