"""Arms against a baseline: for each outcome the paired differences, with Holm's adjustment over families of them."""

from collections.abc import Sequence

from analysis.arms import Arm
from analysis.statistics import crossed_difference, holm, interquartile_mean, probability_of_improvement
from common.errors import UserError

FEW_SEEDS = 5  # below it a spread over seeds is itself hardly known
HEADER = ("arm", "seeds", "mean", "IQM", "difference", "95 % interval", "p", "Holm p", "detectable", "P(above)")
# Outcome, up to an @ -> unit and scale; all others are shares.
UNITS = {"length": ("tokens", 1.0), "coverage": ("approaches", 1.0)}
DASH = "-"


def choose_baseline(arms: Sequence[Arm], wanted: str) -> Arm:
    """The arm whose label, or whose ``--use_ir``, is ``wanted``; raises `UserError` unless there is exactly one."""
    found = [arm for arm in arms if arm.label == wanted] or [arm for arm in arms if arm.bonus == wanted]
    if len(found) != 1:
        raise UserError(
            f"--baseline={wanted!r} names {len(found)} arms; give one of {', '.join(repr(arm.label) for arm in arms)}."
        )
    return found[0]


def compare_arms(arms: Sequence[Arm], baseline: Arm, controls_apart: bool = True) -> dict:
    """Every outcome that all runs have, of every arm, and its paired difference to the baseline.

    Differences are taken seed by seed and problem by problem, over the seeds that both have. The comparisons of one
    outcome are one family, and those of controls one of their own: a question about methods gets no harder to answer
    by running more controls. With ``controls_apart`` False all are one family.

    Returns:
        {"baseline": label, "problems": P, "runs": label -> seed -> folder,
        "outcomes": outcome -> label -> {"mean", "iqm" (over seeds), "by_seed", and but for the baseline "paired_seeds",
        "difference", "low", "high", "p", "mde", "p_holm", "above" (`probability_of_improvement` over the baseline, over
        all seeds of both)}, "notes": sentences on what limits the figures}. The differences are None where no seed is
        common.
    """
    runs = [run for arm in arms for run in arm.runs.values()]
    outcomes = [name for name in runs[0].scores if all(name in run.scores for run in runs)]
    others = [arm for arm in arms if arm is not baseline]
    return {
        "baseline": baseline.label,
        "problems": len(runs[0].problems),
        "runs": {arm.label: {seed: str(run.path) for seed, run in arm.runs.items()} for arm in [baseline, *others]},
        "outcomes": {name: _rows(name, baseline, others, controls_apart) for name in outcomes},
        "notes": _notes(baseline, others),
    }


def _rows(outcome: str, baseline: Arm, others: Sequence[Arm], controls_apart: bool) -> dict[str, dict]:
    rows = {arm.label: _level(outcome, arm) for arm in [baseline, *others]}
    for arm in others:
        seeds = _paired_seeds(arm, baseline)
        rows[arm.label]["paired_seeds"] = seeds
        ours, theirs = (list(rows[label]["by_seed"].values()) for label in (arm.label, baseline.label))
        rows[arm.label]["above"] = probability_of_improvement(ours, theirs)
        if seeds:
            differences = arm.table(outcome, seeds) - baseline.table(outcome, seeds)
            rows[arm.label] |= crossed_difference(differences)
        else:
            rows[arm.label] |= dict.fromkeys(("difference", "low", "high", "p", "mde"))
    p_values = {arm.label: rows[arm.label]["p"] for arm in others}
    for label, p in adjusted(p_values, others if controls_apart else ()).items():
        rows[label]["p_holm"] = p
    return rows


def adjusted(p_values: dict[str, float | None], arms: Sequence[Arm]) -> dict[str, float | None]:
    """Holm's adjustment by label, over those that are no control among ``arms``, and over those that are one."""
    controls = {arm.label for arm in arms if arm.is_control}
    found = {}
    for family in ([name for name in p_values if (name in controls) == apart] for apart in (False, True)):
        found |= zip(family, holm([p_values[name] for name in family]), strict=True)
    return found


def _level(outcome: str, arm: Arm) -> dict:
    means = arm.table(outcome, list(arm.runs)).mean(axis=1)
    by_seed = dict(zip(arm.runs, map(float, means), strict=True))
    return {"mean": float(means.mean()), "iqm": interquartile_mean(means), "by_seed": by_seed}


def _paired_seeds(arm: Arm, baseline: Arm) -> list[int]:
    return sorted(arm.runs.keys() & baseline.runs.keys())


def _notes(baseline: Arm, others: Sequence[Arm]) -> list[str]:
    notes, partly = [], {}
    for arm in others:
        common = tuple(_paired_seeds(arm, baseline))
        if not common:
            notes.append(f"{arm.label}: no seed in common with {baseline.label}, so no difference.")
        elif arm.runs.keys() != baseline.runs.keys():
            partly.setdefault(common, []).append(arm.label)
    for common, labels in partly.items():
        seeds = ", ".join(map(str, common))
        notes.append(f"{', '.join(labels)}: differences are over the seeds that {baseline.label} has too: {seeds}.")
    few = [count for arm in others if 1 < (count := len(_paired_seeds(arm, baseline))) < FEW_SEEDS]
    if few:
        notes.append(
            f"{min(few)} paired seeds: with fewer than {FEW_SEEDS} the spread over seeds is hardly known, so only "
            "large differences are found."
        )
    commits = {run.commit for arm in [baseline, *others] for run in arm.runs.values()}
    if len(commits) > 1:
        notes.append(f"The runs are of {len(commits)} states of the code: {', '.join(sorted(commits))}.")
    return notes


def comparison_table(result: dict) -> str:
    """The result of `compare_arms` as Markdown that reads as plain text too: one table per outcome, then the notes."""
    blocks = []
    for outcome, rows in result["outcomes"].items():
        unit, scale = UNITS.get(outcome.partition("@")[0], ("per cent", 100.0))
        lines = [HEADER, *(_cells(label, row, scale) for label, row in rows.items())]
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
        lines.insert(1, tuple("-" * width for width in widths))
        text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
        blocks.append("\n".join([f"{outcome}, {unit}", "", *text]))
    notes = list(result["notes"])
    if any(len(row.get("paired_seeds", [])) == 1 for row in next(iter(result["outcomes"].values())).values()):
        notes.append("With one seed the interval is over problems alone and says nothing of other seeds; no p value.")
    blocks.append(
        f"{result['problems']} problems. Differences: arm minus {result['baseline']}, paired by seed and problem; "
        "intervals over both; p for the size of the family after Holm, controls apart; detectable: the "
        "difference found with 80 % power at .05; P(above): chance that a run of the arm is above one of the baseline."
    )
    return "\n\n".join([*blocks, *notes])


def _cells(label: str, row: dict, scale: float) -> tuple[str, ...]:
    level = (f"{row['mean'] * scale:.1f}", f"{row['iqm'] * scale:.1f}")
    if "paired_seeds" not in row:
        return (label, str(len(row["by_seed"])), *level, *[DASH] * 6)
    found = {name: row[name] for name in ("difference", "low", "high", "mde")}
    shown = {name: DASH if value is None else f"{value * scale:+.1f}" for name, value in found.items()}
    interval = DASH if row["low"] is None else f"[{shown['low']}, {shown['high']}]"
    p_values = [DASH if row[name] is None else f"{row[name]:.4f}" for name in ("p", "p_holm")]
    detectable = shown["mde"].removeprefix("+")
    return (
        label,
        str(len(row["paired_seeds"])),
        *level,
        shown["difference"],
        interval,
        *p_values,
        detectable,
        chance_above(row),
    )


def chance_above(row: dict) -> str:
    """The probability of improvement of a row of `compare_arms`, with its interval where there is one."""
    chance, low, high = (row["above"][name] for name in ("chance", "low", "high"))
    return f"{chance:.2f}" if low is None else f"{chance:.2f} [{low:.2f}, {high:.2f}]"
