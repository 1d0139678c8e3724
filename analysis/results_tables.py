"""What the pages say of a sweep: tables, what they rest on, the sentence of an arm, and the answer of the README."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from analysis.arms import Arm
from analysis.comparison import UNITS, adjusted, chance_above, compare_arms
from analysis.statistics import crossed_difference
from analysis.sweep import Sweep
from common.errors import UserError
from common.markdown import markdown_table
from evaluation.table import MISSING, format_metric

CLEAR = 0.05  # Holm's p below which an arm is told apart from the baseline
ONE_SEED = "1 seed: no interval"
MANY = 7  # arms, of which the answer names the extremes alone
TITLES = {"accuracy": "right", "false_claims": "false claims"}


def title(outcome: str) -> str:
    """What tables and pictures call an outcome."""
    return TITLES.get(outcome, outcome)


def main_table(sweep: Sweep) -> str:
    """Every arm: right answers after training, their paired difference, and the probability of improvement."""
    base = sweep.result["baseline"]
    heads = ["arm", "seeds", "right, %", "IQM, %", f"difference to `{base}`", "Holm p", f"P(above `{base}`)"]
    rows = []
    for label, row in sweep.result["outcomes"]["accuracy"].items():
        rows.append([f"`{label}`", str(len(row["by_seed"])), f"{100 * row['mean']:.1f}", f"{100 * row['iqm']:.1f}"])
        rows[-1] += ["", "", ""] if label == base else [*difference_cells(row), _chance(row)]
    return markdown_table(heads, rows)


def _chance(row: dict) -> str:
    """`chance_above`, where the arm has more than one run."""
    return chance_above(row) if len(row["by_seed"]) > 1 else ""


def other_outcomes(sweep: Sweep) -> list[str]:
    """False claims, and pass@k and Coverage@k for the largest k that the samples give."""
    names = list(sweep.result["outcomes"])
    kinds = ([name for name in names if name.startswith(kind)] for kind in ("pass@", "coverage@"))
    return ["false_claims", *(found[-1] for found in kinds if found)]


def other_table(sweep: Sweep) -> str:
    """Every arm: the `other_outcomes`, each with its paired difference and Holm's p of its own family."""
    base, heads, rows = sweep.result["baseline"], ["arm"], {label: [f"`{label}`"] for label in sweep.result["runs"]}
    for name in other_outcomes(sweep):
        unit, scale = unit_of(name)
        heads += [f"{title(name)}, {unit}", f"difference to `{base}`", "Holm p"]
        for label, row in sweep.result["outcomes"][name].items():
            difference = ["", ""] if label == base else difference_cells(row, scale)
            rows[label] += [f"{row['mean'] * scale:.{_digits(scale)}f}", *difference]
    return markdown_table(heads, list(rows.values()))


def contrast_table(sweep: Sweep, which: str) -> str:
    """One planned family of comparisons: the arms of ``which`` against a baseline of its own, Holm over them alone.

    Args:
        which: outcome, baseline and arms, separated by spaces.

    Raises `UserError` where no record has that outcome. An arm without records is an empty row.
    """
    outcome, base, *others = which.split()
    arms = {arm.label: arm for arm in sweep.arms}
    if outcome not in sweep.result["outcomes"]:
        raise UserError(f"no record has the outcome {outcome!r}; they have {', '.join(sweep.result['outcomes'])}.")
    unit, scale = unit_of(outcome)
    found = {}
    if base in arms and (there := [arms[name] for name in others if name in arms]):
        found = compare_arms([arms[base], *there], arms[base], controls_apart=False)["outcomes"][outcome]
    rows = []
    for name in (base, *others):
        rows.append([f"`{name}`", "0", "", "", ""])
        if row := found.get(name):
            difference = ["", ""] if name == base else difference_cells(row, scale)
            rows[-1][1:] = [str(len(row["by_seed"])), f"{row['mean'] * scale:.{_digits(scale)}f}", *difference]
    return markdown_table(["arm", "seeds", f"{title(outcome)}, {unit}", f"difference to `{base}`", "Holm p"], rows)


def gains_table(sweep: Sweep) -> str:
    """Every arm: right answers before and after training, the gain, and by how much the baseline's is exceeded."""
    start = {run.path: run.scores["accuracy"] for run in sweep.before}
    base, arms = sweep.result["baseline"], {arm.label: arm for arm in sweep.arms}
    heads = ["arm", "seeds", "right before, %", "after, %", "gain", f"gain over that of `{base}`", "Holm p"]
    gains, more, rows = {}, {}, []
    for label in sweep.result["runs"]:  # the baseline is the first
        runs = arms[label].runs
        gains[label] = {seed: run.scores["accuracy"] - start[run.path] for seed, run in runs.items()}
        more[label] = _paired(gains[label], {} if label == base else gains[base])
    for label, p in adjusted({label: row["p"] for label, row in more.items()}, sweep.arms).items():
        more[label]["p_holm"] = p
    for label, arm in arms.items():
        before, after = ([tables[run.path].mean() for run in arm.runs.values()] for tables in (start, _after(arm)))
        levels = [f"{100 * np.mean(values):.1f}" for values in (before, after)]
        own = _paired(gains[label], dict.fromkeys(gains[label], 0.0))
        rows.append([f"`{label}`", str(len(arm.runs)), *levels, _points(own, 100.0)])
        rows[-1] += ["", ""] if label == base else difference_cells(more[label])
    return markdown_table(heads, rows)


def _after(arm: Arm) -> dict[Path, np.ndarray]:
    return {run.path: run.scores["accuracy"] for run in arm.runs.values()}


def _paired(ours: dict[int, np.ndarray], theirs: dict[int, np.ndarray | float]) -> dict:
    """`crossed_difference` over the seeds that both have, and those as "paired_seeds"; all None where there is none."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return {"paired_seeds": [], **dict.fromkeys(("difference", "low", "high", "p", "mde"))}
    return {"paired_seeds": seeds, **crossed_difference(np.stack([ours[seed] - theirs[seed] for seed in seeds]))}


def notes(sweep: Sweep) -> str:
    """What the tables rest on: problems, samples, steps, code, machine, and what limits them."""
    result, facts = sweep.result, sweep.facts
    detectable = [row["mde"] for row in result["outcomes"]["accuracy"].values() if row.get("mde")]
    plain = result["outcomes"]["accuracy"][result["baseline"]]["by_seed"]
    steps, samples, minutes = (_range([fact[name] for fact in facts]) for name in ("steps", "samples", "minutes"))
    before = 100 * sum(run.scores["accuracy"].mean() for run in sweep.before) / len(sweep.before)
    sentences = [
        f"{len(facts)} runs of {steps} steps; {result['problems']} held-out problems with {samples} samples each. "
        f"Before training {before:.1f} % were right. Differences are paired by seed and problem, with 95 % intervals "
        "over both; Holm's adjustment counts the arms of a column, controls apart. IQM: mean of "
        f"the middle half of the seeds. P(above): chance that a run is above one of `{result['baseline']}`."
    ]
    levels = [f"{100 * level:.1f} (seed {seed})" for seed, level in plain.items()]
    sentences.append(f"Right answers of `{result['baseline']}` by seed: {', '.join(levels)} %.")
    if detectable:
        shown = _range([round(100 * value, 1) for value in detectable])
        sentences.append(
            "A difference in right answers would have p below .05, before Holm's adjustment, with 80 % power from "
            f"{shown} points on."
        )
    sentences += result["notes"]
    machines = sorted({f"{fact['machine']['system']}, {fact['machine']['cores']} cores" for fact in facts})
    sentences.append(f"Machine: {'; '.join(machines)}; {minutes} minutes a run.")
    return " ".join(sentences)


def arm_sentence(sweep: Sweep, arm: str) -> str:
    """Right answers, false claims, pass@k and Coverage@k of an arm, for its card.

    Raises `UserError` where there is no such arm.
    """
    outcomes, base = sweep.result["outcomes"], sweep.result["baseline"]
    if arm not in outcomes["accuracy"] or arm == base:
        known = ", ".join(repr(label) for label in outcomes["accuracy"] if label != base)
        raise UserError(f"no arm {arm!r} beside the baseline {base!r}; the records have {known}.")
    parts = []
    for name in ("accuracy", *other_outcomes(sweep)):
        row, plain = outcomes[name][arm], outcomes[name][base]["by_seed"]
        unit, scale = unit_of(name)
        seeds = row["paired_seeds"]
        if not seeds:
            return f"`bash sweeps/{sweep.name}.sh {arm}`: no seed in common with `{base}`, so no difference."
        own, other = (scale * np.mean([by_seed[seed] for seed in seeds]) for by_seed in (row["by_seed"], plain))
        difference, p = difference_cells(row, scale)
        digits = _digits(scale)
        levels = f"{title(name)} {own:.{digits}f} {unit} against {other:.{digits}f} {unit} of `{base}`"
        parts.append(f"{levels}, difference {difference} {difference_unit(name)}" + (f", Holm p {p}" if p else ""))
    steps = _range([fact["steps"] for fact in sweep.facts])
    count = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    above = _chance(outcomes["accuracy"][arm])
    chance = f" A run has more right answers than one of `{base}` with a chance of {above}." if above else ""
    return f"`bash sweeps/{sweep.name}.sh {arm}`, {steps} steps, {count}: {'; '.join(parts)}.{chance}"


def metrics_table(sweep: Sweep, names: str) -> str:
    """Means over seeds of the metrics ``names`` of an evaluation, before training and of every arm after it.

    Raises `UserError` where no record has such a metric.
    """
    columns = names.split()
    before = {str(run.path): run for run in sweep.before}
    after = {str(run.path): run for arm in sweep.arms for run in arm.runs.values()}
    stored = {str(run.path): fact["metrics"] for run, fact in zip(sweep.before, sweep.facts, strict=True)}
    known = {name for run in after.values() for name in run.scores}
    known |= {name for metrics in stored.values() for name in metrics.get("after", ())}
    if unknown := [name for name in columns if name not in known]:
        raise UserError(f"no record has the metric {unknown[0]!r}; they have {', '.join(sorted(known)) or 'none'}.")

    def means(paths: list[str], which: str, name: str) -> list[float]:
        """Of each record: from its samples where they say it, as records keep the metrics in few digits."""
        runs = before if which == "before" else after
        sampled = {path: float(runs[path].scores[name].mean()) for path in paths if name in runs[path].scores}
        kept = {path: stored[path][which][name] for path in paths if name in stored[path].get(which, ())}
        return list((kept | sampled).values())

    def row(label: str, paths: list[str], which: str) -> list[str]:
        cells = [label, str(len(paths))]
        for name in columns:
            values = means(paths, which, name)
            cells.append(format_metric(name, sum(values) / len(values)) if values else MISSING)
        return cells

    arms = sweep.result["runs"].items()
    rows = [row("before training", list(before), "before")]
    rows += [row(f"`{label}`", list(map(str, runs.values())), "after") for label, runs in arms]
    return markdown_table(["arm", "seeds", *(f"`{name}`" for name in columns)], rows)


def answer(*sweeps: Sweep) -> str:
    """Which arms are told apart from the baseline, in a table of the same height for any number of arms."""
    places = ["above", "below", "undecided", ONE_SEED]
    bases = " and ".join(sorted({f"`{sweep.result['baseline']}`" for sweep in sweeps}))
    rows = [
        [f"{title(name)}, `{sweep.name}`, {_paired_counts(sweep, name)}", *_told_apart(sweep, name, places)]
        for sweep in sweeps
        for name in ("accuracy", "false_claims")
        if name == "accuracy" or not _always_claims(sweep)
    ]
    return markdown_table([f"against {bases}, points", *places], rows)


def _paired_counts(sweep: Sweep, outcome: str) -> str:
    """How many seeds the comparisons with the baseline are over."""
    rows = sweep.result["outcomes"][outcome].values()
    count = _range([len(row["paired_seeds"]) for row in rows if row.get("paired_seeds")] or [0])
    return "1 seed" if count == "1" else f"{count} seeds"


def _always_claims(sweep: Sweep) -> bool:
    """Whether all that is not right is a false claim, which then says nothing of its own."""
    outcomes = sweep.result["outcomes"]
    pairs = zip(outcomes["accuracy"].values(), outcomes["false_claims"].values(), strict=True)
    return all(right["mean"] + false["mean"] > 0.99 for right, false in pairs)


def _told_apart(sweep: Sweep, outcome: str, places: list[str]) -> list[str]:
    """The arms at each of ``places``, with their differences to the baseline in that outcome; of many the extremes."""
    base = sweep.result["baseline"]
    cells: dict[str, list[tuple[float, str]]] = {place: [] for place in places}
    for label, row in sweep.result["outcomes"][outcome].items():
        if label != base and row["paired_seeds"]:
            clear = row["p_holm"] is not None and row["p_holm"] < CLEAR
            place = ("above" if row["difference"] > 0 else "below") if clear else "undecided"
            one = len(row["paired_seeds"]) == 1
            shown = f"{100 * row['difference']:+.1f}" if one else _points(row, 100.0)
            cells[ONE_SEED if one else place].append((row["difference"], f"`{label}` {shown}"))
    return [_listed(found) for found in cells.values()]


def _listed(found: list[tuple[float, str]]) -> str:
    if len(found) < MANY:
        return "; ".join(text for _, text in found) or "none"
    return f"{len(found)} arms, from {min(found)[1]} to {max(found)[1]}"


def interval_cell(interval: Mapping[str, float | None], scale: float = 100.0, digits: int = 1, sign: str = "") -> str:
    """The "mean" with its "low" and "high" in brackets, times ``scale``; a hyphen for what is None or NaN.

    A mean that is not defined is a hyphen alone. ``sign``: "+" shows the sign of positive numbers too.
    """
    numbers = (interval[name] for name in ("mean", "low", "high"))
    cells = [
        MISSING if number is None or np.isnan(number) else f"{scale * number:{sign}.{digits}f}" for number in numbers
    ]
    return MISSING if cells[0] == MISSING else f"{cells[0]} [{cells[1]}, {cells[2]}]"


def difference_cells(row: dict, scale: float = 100.0) -> list[str]:
    """Difference with its interval, and Holm's p."""
    return [_points(row, scale), "" if row["p_holm"] is None else f"{row['p_holm']:.3f}"]


def _points(row: dict, scale: float) -> str:
    if not row["paired_seeds"]:
        return "no seed in common"
    if len(row["paired_seeds"]) == 1:
        return f"{row['difference'] * scale:+.{_digits(scale)}f} ({ONE_SEED})"
    difference, low, high = (f"{row[name] * scale:+.{_digits(scale)}f}" for name in ("difference", "low", "high"))
    return f"{difference} [{low}, {high}]"


def unit_of(outcome: str) -> tuple[str, float]:
    """(unit, factor of the scores) in which tables and pictures show an outcome."""
    return UNITS.get(outcome.partition("@")[0], ("%", 100.0))


def difference_unit(outcome: str) -> str:
    """The unit of a difference in an outcome: shares differ by points."""
    unit, _ = unit_of(outcome)
    return "points" if unit == "%" else unit


def _digits(scale: float) -> int:
    return 1 if scale == 100.0 else 2


def _range(values: list) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
