"""What training did to what a policy can do at all: an evaluation against that of its base, problem by problem."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from common.errors import UserError
from evaluation.approaches import approach_counts, rare_at_k
from evaluation.metrics import KS, by_problem, paired_difference, pass_at_k

LEAST_SAMPLES = 8  # two k for a slope, each from twice as many samples


def trusted_ks(samples: int) -> list[int]:
    """The k of `KS` of which there are at least twice as many samples."""
    return [k for k in KS if 2 * k <= samples]


def slope_weights(ks: Sequence[int]) -> np.ndarray:
    """Weights whose sum with values at ``ks`` is the slope of the least-squares line of these values on ln k."""
    x = np.log(np.asarray(ks, dtype=float))
    centred = x - x.mean()
    return centred / (centred**2).sum()


def chance_entries(right: np.ndarray, samples: int) -> float:
    """Expected number of problems that one half of 2 S samples solves and the other does not, were halves drawn by lot.

    ``right``: (P,) right ones of the 2 S samples of each problem, ``samples``: S. C(2 S - c, S) / C(2 S, S) for c > 0.
    """
    missed = 1.0 - pass_at_k(2 * samples, right, samples)
    return float(np.where(right > 0, missed, 0.0).sum())


def first_pass(report: dict) -> list[dict]:
    """The records of the report's first pass."""
    name = report["records"][0].get("pass")
    return [record for record in report["records"] if record.get("pass") == name]


def against_base(base: dict, report: dict) -> dict[str, Any]:
    """An evaluation of a policy against one of its base, first pass against first pass.

    {} where the two hold different problems, or either has fewer than `LEAST_SAMPLES` samples of each.

    Returns:
        "shrinkage_slope": least-squares slope of pass@k minus the base's on ln k, over `trusted_ks`, as a share per
        factor e in k, with a bootstrap interval over problems; below 0 what is gained shrinks as k grows.
        "entries", "exits": problems that only the policy, or only its base, solves in as many samples (the first of
        whoever has more); "by_chance": how many of either kind two evaluations of one policy would leave, by lot over
        the same samples; "p": sign test of entries against exits.
        "rare@<k>": where records tell approaches. What is rare the first half of the base's samples says; the other
        half is the base's value, and all of the policy's samples are its own. `paired_difference` with the levels
        "base" and "policy".

    Raises:
        UserError: the problems of one side have different numbers of samples.
    """
    sides = [_samples(first_pass(side)) for side in (base, report)]
    if sides[0].keys() != sides[1].keys():
        return {}
    problems = list(sides[0])
    sizes = [len(side[problems[0]]) for side in sides]
    samples = min(sizes)
    if samples < LEAST_SAMPLES:  # a ranking of options has one record each, and no tiers
        return {}
    right = [np.array([[record["medium"] for record in side[name]] for name in problems]) for side in sides]
    found: dict[str, Any] = {"samples": samples, "slope_ks": trusted_ks(samples)}
    gains = [
        pass_at_k(sizes[1], right[1].sum(axis=1), k) - pass_at_k(sizes[0], right[0].sum(axis=1), k)
        for k in found["slope_ks"]
    ]
    slopes = slope_weights(found["slope_ks"]) @ np.stack(gains)
    found["shrinkage_slope"] = _shown(paired_difference(np.zeros_like(slopes), slopes))
    counts = [side[:, :samples].sum(axis=1) for side in right]
    entries = int(((counts[0] == 0) & (counts[1] > 0)).sum())
    exits = int(((counts[0] > 0) & (counts[1] == 0)).sum())
    found |= {"problems": len(problems), "entries": entries, "exits": exits}
    found["by_chance"] = chance_entries(counts[0] + counts[1], samples)
    found["p"] = float(stats.binomtest(entries, entries + exits).pvalue) if entries + exits else 1.0
    if any(record.get("approach") is not None for side in sides for problem in side.values() for record in problem):
        found |= _rare(*([side[name] for name in problems] for side in sides))
    return found


def _rare(base: list[list[dict]], policy: list[list[dict]]) -> dict[str, dict]:
    half, samples = len(base[0]) // 2, len(policy[0])
    references = [_counts(problem[:half]) for problem in base]
    rest, ours = [_counts(problem[half : 2 * half]) for problem in base], [_counts(problem) for problem in policy]
    found = {}
    for k in trusted_ks(min(half, samples)):
        values = rare_at_k(half, rest, references, k), rare_at_k(samples, ours, references, k)
        levels = {"base": float(values[0].mean()), "policy": float(values[1].mean())}
        found[f"rare@{k}"] = levels | _shown(paired_difference(*values))
    return found


def _counts(problem: list[dict]) -> Counter[str]:
    return approach_counts([record.get("approach") for record in problem], [record["medium"] for record in problem])


def _shown(difference: dict) -> dict:
    """Difference and interval; None for one that is not defined, which JSON has no number for."""
    values = {name: difference[name] for name in ("difference", "low", "high")}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def _samples(records: Sequence[dict]) -> dict[Any, list[dict]]:
    problems = by_problem(records, lambda record: record, lambda record: (record["id"], record.get("prompt")))
    sizes = {len(problem) for problem in problems.values()}
    if len(sizes) != 1:
        raise UserError(f"the problems have {sorted(sizes)} samples each; evaluate them with one --n.")
    return problems


def base_lines(found: dict[str, Any] | None) -> list[str]:
    """`against_base` as text; no line for {} or None."""
    if not found:
        return []
    ks = ", ".join(map(str, found["slope_ks"]))
    lines = [
        f"pass@k against the base: slope {_points(found['shrinkage_slope'])} per factor e in k (k = {ks})",
        f"solved in {found['samples']} samples: {found['entries']} problems more, {found['exits']} fewer, of "
        f"{found['problems']}; two evaluations of one policy: {found['by_chance']:.1f} each (p {found['p']:.3f})",
    ]
    return lines + [
        f"{name}, right by an approach that is rare in the base: {100 * value['base']:.1f} % -> "
        f"{100 * value['policy']:.1f} %, {_points(value)}"
        for name, value in found.items()
        if name.startswith("rare@")
    ]


def _points(value: dict) -> str:
    interval = "" if value["low"] is None else f" [{100 * value['low']:+.1f}, {100 * value['high']:+.1f}]"
    return f"{100 * value['difference']:+.1f} points{interval}"
