"""The picture of a sweep: differences to plain GRPO with intervals, and pass@k of every arm beside the base policy."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from analysis.arms import Arm
from analysis.evaluated import EvaluatedRun
from analysis.style import BEFORE, STYLE, TOTAL, color_of
from analysis.sweep import Sweep, short
from intrinsic import NO_BONUS

DIFFERENCES = {"accuracy": "right", "false_claims": "false claims", "pass@8": "pass@8"}


def draw_sweep(sweep: Sweep, path: Path) -> Path:
    """Draw ``sweep`` into ``path``, which is returned."""
    names = [name for name in DIFFERENCES if name in sweep.result["outcomes"]]
    with plt.rc_context(STYLE):
        height = 1.6 + 0.32 * len(sweep.arms)
        figure, axes = plt.subplots(1, len(names) + 1, figsize=(3.2 * (len(names) + 1), height), layout="constrained")
        for number, (ax, name) in enumerate(zip(axes, names, strict=False)):
            _draw_differences(ax, sweep.result["outcomes"][name], DIFFERENCES[name], labels=number == 0)
        _draw_pass_at_k(axes[-1], sweep.arms, sweep.before)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)
    return path


def _draw_differences(ax: Axes, rows: dict[str, dict], title: str, labels: bool) -> None:
    others = [(label, row) for label, row in rows.items() if row.get("low") is not None]
    ax.axvline(0, color=TOTAL, linewidth=0.8)
    for place, (_, row) in enumerate(others):
        low, middle, high = (100 * row[name] for name in ("low", "difference", "high"))
        ax.plot([low, high], [-place, -place], color=color_of(place), linewidth=2)
        ax.plot(middle, -place, "o", color=color_of(place), markersize=5)
    ax.set_yticks([-place for place in range(len(others))], [short(label) if labels else "" for label, _ in others])
    ax.margins(y=0.2)
    ax.set_title(title)
    ax.set_xlabel("minus plain GRPO, points, 95 % interval", fontsize="small")


def _draw_pass_at_k(ax: Axes, arms: list[Arm], before: list[EvaluatedRun]) -> None:
    curves = [("before training", BEFORE, _pass_at_k(before))]
    others = iter(range(len(arms)))
    for arm in arms:
        plain = arm.bonus == NO_BONUS
        curves.append(
            (short(arm.label), TOTAL if plain else color_of(next(others)), _pass_at_k(list(arm.runs.values())))
        )
    for label, color, (ks, means) in curves:
        ax.plot(ks, means, "o-", color=color, markersize=3, label=label)
    ks = curves[0][2][0]
    ax.set_xscale("log", base=2)
    ax.set_xticks(ks, list(map(str, ks)))
    ax.set_xlabel("k")
    ax.set_title("pass@k, per cent")
    ax.legend(fontsize="x-small", frameon=False)


def _pass_at_k(runs: list[EvaluatedRun]) -> tuple[list[int], list[float]]:
    """(ks, per cent of the problems with a right one among k samples, mean of ``runs``)."""
    names = [name for name in runs[0].scores if name.startswith("pass@")]
    ks = [1, *(int(name.removeprefix("pass@")) for name in names)]
    means = [100 * float(np.mean([run.scores[name].mean() for run in runs])) for name in ("accuracy", *names)]
    return ks, means
