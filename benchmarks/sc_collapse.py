"""Why self-certainty rises and falls: label-free rewards in worlds whose prior sets how certainty and truth agree.

python -m benchmarks.sc_collapse

benchmarks/plans/why_sc_rises_and_falls.md has the plan. Goes on where it stopped; a report is made of all records
there, and names the cells that are empty.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy import stats
from torch import Tensor

from analysis.statistics import holm, mean_t_interval, paired_t
from analysis.style import NOTE, SERIES, STYLE, save_figure
from benchmarks.known_truth_arms import (
    Arm,
    ArmTrial,
    empty_cells,
    right_above_wrong,
    run_experiment,
    text_certainties,
)
from benchmarks.known_truth_records import Curve
from benchmarks.known_truth_report import LEVEL, Curves
from common.errors import run_cli
from common.markdown import markdown_table

DECOYS = (0.0, 0.2, 0.4, 0.55, 0.7)
HALF_AGREEING = 0.4  # the decoy at which certainty is about unrelated to correctness
REWARDS = ("sc", "majority", "certain")
FALL = 0.05  # of pass@1 below its best
RIGHT_MASS = (0.15, 0.26)  # of a fitted policy; its cell is left out outside
FOLDER = "outputs/sc_collapse"
ARMS = [
    Arm(f"{name} {decoy:g}", name, {"sc_alone": True} if name != "no" else {}, {"two_forms": True, "decoy": decoy})
    for decoy in DECOYS
    for name in ("no", *REWARDS)
]


class CertaintyTrial(ArmTrial):
    """A trial whose measurements also hold what each label-free reward pays on average, and how it agrees with truth.

    "paid/NAME": mean of it over texts drawn from the policy; "agreement/NAME": `right_above_wrong`. Of "majority" the
    value of a text is the probability of its answer, 0 without one.
    """

    every = 2

    def figures(self, probability: Tensor) -> dict[str, float]:
        found, values = {}, text_certainties(self.policy, self.options.problems)
        values |= {"majority": self._answer_masses(probability)}
        for name, value in values.items():
            found[f"paid/{name}"] = (probability * value).sum(dim=1).mean().item()
            found[f"agreement/{name}"] = right_above_wrong(value, probability, self.world.right)
        return super().figures(probability) | found

    def _answer_masses(self, probability: Tensor) -> Tensor:
        """(P, S): the probability of each text's answer."""
        numbers = self.world.answer_numbers
        masses = torch.zeros(len(numbers), int(numbers.max()) + 1, dtype=probability.dtype)
        return masses.scatter_add(1, numbers, probability).gather(1, numbers) * (numbers > 0)


def collapse_step(curve: Curve, reward: str) -> int | None:
    """First measurement more than `FALL` below the best pass@1 so far, while ``reward`` pays more than at that one."""
    best = curve[0]
    for point in curve[1:]:
        if point["pass@1"] > best["pass@1"]:
            best = point
        elif best["pass@1"] - point["pass@1"] > FALL and point[f"paid/{reward}"] > best[f"paid/{reward}"]:
            return int(point["step"])
    return None


def correlations(curves: Curves, reward: str) -> list[float]:
    """Kendall's tau-b of agreement and step of collapse over the priors, of every seed that has all of them."""
    runs = [curves.get(f"{reward} {decoy:g}", {}) for decoy in DECOYS]
    taus = []
    for seed in sorted(set.intersection(*(set(run) for run in runs))):
        cells = [run[seed] for run in runs]
        steps = [collapse_step(curve, reward) for curve in cells]
        ranks = [curve[-1]["step"] + 1 if step is None else step for curve, step in zip(cells, steps, strict=True)]
        tau = stats.kendalltau([curve[0][f"agreement/{reward}"] for curve in cells], ranks).statistic
        taus.append(0.0 if np.isnan(tau) else float(tau))
    return taus


def called(found: dict[str, dict], collapsed: dict[float, int], seeds: int) -> list[str]:
    """The names of the plan that the correlations and the seeds of ``sc`` that collapse at each prior earn."""

    def is_above(row: dict) -> bool:
        return row["mean"] > 0 and row["p_holm"] < LEVEL

    names = ["agreement sets the step"] if is_above(found["sc"]) else []
    if names and all(map(is_above, found.values())):
        names.append("it holds for the family")
    if collapsed[HALF_AGREEING] >= 0.8 * seeds and collapsed[0.0] <= 0.2 * seeds:
        names.append("the mode decides, not the mean")
    if abs(found["sc"]["mean"]) + found["sc"]["half"] < 0.2:
        names.append("unrelated to agreement")
    return names or ["not shown"]


def kept(curves: Curves) -> Curves:
    """The cells whose fitted policy has the planned mass of right answers."""
    low, high = RIGHT_MASS
    return {name: {s: c for s, c in runs.items() if low <= c[0]["pass@1"] <= high} for name, runs in curves.items()}


def report(curves: Curves, commits: list[str], seeds: int) -> str:
    """Markdown: every cell, the rank correlations, and what the plan calls them."""
    rows = kept(curves)
    heads = ("agreement", "seeds that collapse", "median step", "rise", "pass@1 at the end")
    lines, collapsed = [], {}
    for arm in ARMS:
        runs, decoy = rows.get(arm.label, {}), arm.world["decoy"]
        if len(runs) < 2:
            continue
        shown = [f"`{arm.bonus}`", f"{decoy:g}", str(len(runs))]
        if arm.bonus in REWARDS:
            steps = [collapse_step(curve, arm.bonus) for curve in runs.values()]
            collapsed[arm.bonus, decoy] = sum(step is not None for step in steps)
            median = float(np.median([np.inf if step is None else step for step in steps]))
            agreement = np.mean([curve[0][f"agreement/{arm.bonus}"] for curve in runs.values()])
            shown += [f"{agreement:.3f}", str(collapsed[arm.bonus, decoy]), f"{median:g}".replace("inf", "none")]
        else:
            shown += ["", "", ""]
        best = [max(point["pass@1"] for point in curve) - curve[0]["pass@1"] for curve in runs.values()]
        last = [curve[-1]["pass@1"] for curve in runs.values()]
        shown += ["{:.3f} ± {:.3f}".format(*mean_t_interval(values)) for values in (best, last)]
        lines.append(shown)
    parts = [markdown_table(["reward", "decoy", "seeds", *heads], lines)]
    taus = {name: correlations(rows, name) for name in REWARDS}
    known = {name: values for name, values in taus.items() if len(values) > 1}
    found = {name: dict(zip(("mean", "half"), mean_t_interval(v), strict=True)) for name, v in known.items()}
    p_values = [paired_t(values) for values in known.values()]
    table = []
    for (name, row), p, adjusted in zip(found.items(), p_values, holm(p_values), strict=True):
        row["p_holm"] = adjusted
        tau = f"{row['mean']:+.3f} ± {row['half']:.3f}"
        table.append([f"`{name}`", len(known[name]), tau, f"{p:.4f}", f"{adjusted:.4f}"])
    parts.append(markdown_table(["reward", "seeds", "tau-b of agreement and step", "p", "Holm"], table))
    empty = empty_cells(ARMS, curves, seeds)
    if not empty:
        by_decoy = {decoy: collapsed[("sc", decoy)] for decoy in DECOYS}
        parts.append(f"By the plan's rules: **{'**, **'.join(called(found, by_decoy, seeds))}**.")
    count = sum(len(runs) for runs in curves.values()) - sum(len(runs) for runs in rows.values())
    parts += [
        "Mean ± 95 % t interval over seeds. Agreement: chance that a right text is paid more than a wrong one before "
        "training. Rise: best pass@1 minus that before training.",
        f"Empty cells (arm: seeds without a record): {'; '.join(empty) or 'none'}."
        + " Without them the plan's rules are not applied." * bool(empty),
        f"Cells left out for their fitted policy: {count}.",
        f"Code: {' and '.join(commits)}.",
    ]
    return "\n\n".join(parts) + "\n"


def plot(curves: Curves, path: Path) -> None:
    """Step of collapse against agreement, a point per cell (on the upper edge: none), and pass@1 by step."""
    rows = kept(curves)
    if not any(rows.values()):
        return
    last = max(curve[-1]["step"] for runs in rows.values() for curve in runs.values())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(REWARDS), figsize=(10.5, 3.4), sharey=True, layout="constrained")
        for axis, name in zip(axes, REWARDS, strict=True):
            for place, decoy in enumerate(DECOYS):
                runs = rows.get(f"{name} {decoy:g}", {}).values()
                steps = [collapse_step(curve, name) for curve in runs]
                shown = [last * 1.05 if step is None else step for step in steps]
                agreement = [curve[0][f"agreement/{name}"] for curve in runs]
                axis.scatter(agreement, shown, color=SERIES[place % len(SERIES)], s=18, label=f"decoy {decoy:g}")
            axis.set(title=name, xlabel="agreement before training", xlim=(-0.03, 1.03))
        axes[0].set_ylabel("step of collapse")
        axes[-1].legend(fontsize=8)
        figure.supxlabel("one point per seed and prior; highest: no collapse", fontsize=9, color=NOTE)
        save_figure(figure, path, dpi=130)


if __name__ == "__main__":
    run_cli(lambda: run_experiment(ARMS, FOLDER, CertaintyTrial, report, plot))
