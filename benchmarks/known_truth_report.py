"""Tables and plot of `benchmarks.known_truth`: means over seeds with intervals, and paired differences to "no"."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from analysis.statistics import holm, mean_t_interval, paired_t
from analysis.style import NOTE, SERIES, STYLE, TOTAL, UNPARSABLE, save_figure
from benchmarks.known_truth_records import Curve
from common.markdown import markdown_table
from intrinsic import NO_BONUS, SHUFFLE

COLUMNS = ("pass@1", "rare_share", "rare@64", "rare_found", "right_found", "coverage")
JUDGED = ("rare@64", "pass@1")  # columns of which every difference to "no" gets a verdict
PANELS = {"pass@1": "pass@1", "rare@64": "rare strategy in 64 samples", "coverage": "expressions tried"}
LEVEL = 0.05

Curves = dict[str, dict[int, Curve]]  # label of a row -> seed -> measurements


def final(curves: dict[int, Curve], column: str, seeds: Sequence[int]) -> np.ndarray:
    """The last measurement of every one of ``seeds``."""
    return np.array([curves[seed][-1][column] for seed in seeds])


def paired_seeds(curves: Curves, label: str, baseline: str = NO_BONUS) -> list[int]:
    """Seeds of a row that ``baseline`` has too."""
    return sorted(curves[label].keys() & curves.get(baseline, {}).keys())


def complete(curves: Curves) -> Curves:
    """The rows with at least two such seeds, of which a spread can be told."""
    return {label: runs for label, runs in curves.items() if len(paired_seeds(curves, label)) > 1}


def comparisons(curves: Curves, column: str, baseline: str = NO_BONUS, looks: int = 1) -> dict[str, dict]:
    """The differences of every row to ``baseline`` with the same seeds, as one family.

    Args:
        looks: how often such differences were read while seeds were added, this time included. Each look is a chance to
            stop at what chance brought, so p is adjusted for their number too (Bonferroni).

    Returns:
        label -> {"difference", "half" (of its 95 % t interval over seeds), "p" (paired t test), "p_holm" (adjusted for
        the number of rows and looks), "verdict" ("more" or "less" where that is below `LEVEL`, else
        "indistinguishable")}.
    """
    found = {}
    for label, runs in curves.items():
        if label != baseline:
            seeds = paired_seeds(curves, label, baseline)
            differences = final(runs, column, seeds) - final(curves[baseline], column, seeds)
            mean, half = mean_t_interval(differences)
            found[label] = {"difference": mean, "half": half, "p": paired_t(differences)}
    for row, p in zip(found.values(), holm([row["p"] for row in found.values()]), strict=True):
        word, p_holm = "more" if row["difference"] > 0 else "less", min(1.0, looks * p)
        row |= {"p_holm": p_holm, "verdict": word if p_holm < LEVEL else "indistinguishable"}
    return found


def report(curves: Curves, commits: Sequence[str], looks: int = 1) -> str:
    """Markdown: the last figures of every row, its differences to plain GRPO, and what they rest on.

    ``looks``: as `comparisons` takes it.
    """
    rows = complete(curves)
    if NO_BONUS not in rows:
        return "Plain GRPO has fewer than two seeds yet, so nothing is compared.\n"
    before = [curve[0] for runs in rows.values() for curve in runs.values()]
    start = ", ".join(f"{column} {np.mean([point[column] for point in before]):.3f}" for column in COLUMNS[:3])
    left_out = [label for label in curves if label not in rows]
    notes = [
        f"Mean ± 95 % t interval over seeds. Before training: {start}.",
        f"Differences are to `no` with the same seeds; p: paired t test over seeds; Holm: adjusted for the "
        f"{len(rows) - 1} rows{_looked(looks)}; verdict: at {LEVEL} after Holm.",
        *([f"Left out, with fewer than two seeds in common with `no`: {', '.join(left_out)}."] if left_out else []),
        f"Code: {' and '.join(commits)}.",
    ]
    return "\n\n".join([_levels(rows), _differences(rows, looks), *notes]) + "\n"


def _looked(looks: int) -> str:
    return f" and, as seeds were added after a look at the first ones, times {looks} looks" if looks > 1 else ""


def _levels(curves: Curves) -> str:
    rows = []
    for label, runs in curves.items():
        cells = ["{:.3f} ± {:.3f}".format(*mean_t_interval(final(runs, column, list(runs)))) for column in COLUMNS]
        rows.append([f"`{label}`", len(runs), *cells])
    return markdown_table(["bonus", "seeds", *COLUMNS], rows)


def _differences(curves: Curves, looks: int) -> str:
    families = {column: comparisons(curves, column, looks=looks) for column in JUDGED}
    heads, rows = ["bonus"], []
    for column in JUDGED:
        heads += [f"{column} minus no", "p", "Holm", "verdict"]
    for label in families[JUDGED[0]]:
        rows.append([f"`{label}`"])
        for row in (family[label] for family in families.values()):
            difference = f"{row['difference']:+.3f} ± {row['half']:.3f}"
            rows[-1] += [difference, f"{row['p']:.4f}", f"{row['p_holm']:.4f}", row["verdict"]]
    return markdown_table(heads, rows)


def plot(curves: Curves, path: Path, looks: int = 1) -> None:
    """Last figures of every row minus those of "no" with the same seeds, with intervals; filled: clear after Holm.

    ``looks``: as `comparisons` takes it. Draws nothing where there is no row to compare yet.
    """
    rows = complete(curves)
    labels = [label for label in rows if label != NO_BONUS]
    if not labels:
        return
    size = (4.2 * len(PANELS) + 1.5, 0.3 * len(labels) + 1.8)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(PANELS), figsize=size, sharey=True, layout="constrained")
        for axis, (column, title) in zip(axes, PANELS.items(), strict=True):
            family = comparisons(rows, column, looks=looks)
            for place, label in enumerate(labels):
                found = family[label]
                is_control = label == "noise" or label.startswith(SHUFFLE)
                color = UNPARSABLE if is_control else SERIES[0]
                face = color if found["p_holm"] < LEVEL else "white"
                style = {"fmt": "o", "color": color, "markerfacecolor": face, "markersize": 6}
                axis.errorbar(found["difference"], place, xerr=found["half"], **style)
            axis.axvline(0.0, color=TOTAL, linewidth=1)
            axis.set(title=title, xlabel="difference to no", yticks=range(len(labels)), yticklabels=labels)
        axes[0].invert_yaxis()
        counts = sorted({len(paired_seeds(rows, label)) for label in labels})
        seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        note = f"{seeds} seeds, means of paired differences with unadjusted 95 % intervals"
        figure.supxlabel(f"{note}; filled: clear of 0 after Holm; grey: controls", fontsize=9, color=NOTE)
        save_figure(figure, path, dpi=130)
