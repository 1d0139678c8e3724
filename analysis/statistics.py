"""Paired differences over seeds and problems with their tests, and rliable's measures of a set of runs."""

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special, stats

from evaluation.metrics import CONFIDENCE

POWER = 0.8


def crossed_error(values) -> float:
    """Standard error of the mean of a seeds x problems table when both, seeds and problems, could have been others.

    V_seeds and V_problems are the variances of the seeds' and of the problems' means over their number, V_cells that of
    what neither explains. The two-way ("pigeonhole") bootstrap, which resamples seeds and problems independently of
    each other, has the variance V_seeds + V_problems + V_cells (Owen 2007, doi:10.1214/07-AOAS122; with n - 1 of n
    levels drawn, Rao and Wu 1988, doi:10.1080/01621459.1988.10478591). That needs no drawing, and it counts the noise
    of single cells three times. Returned is the root of V_seeds + V_problems - V_cells, which counts it once and is
    unbiased (Cameron, Gelbach and Miller 2011, doi:10.1198/jbes.2010.07136), but not less than any of the three.

    Args:
        values: (S, P), one value per seed and problem. A factor with one level is taken as it is.

    Returns:
        The standard error; NaN for a single value.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size < 2:
        return float("nan")
    seeds, problems = values.mean(axis=1), values.mean(axis=0)  # (S, P) to (S,) and (P,)
    parts = [levels.var(ddof=1) / len(levels) for levels in (seeds, problems) if len(levels) > 1]
    if len(parts) < 2:
        return float(np.sqrt(parts[0]))
    rest = values - seeds[:, None] - problems + values.mean()
    cells = np.square(rest).sum() / np.prod([levels * (levels - 1) for levels in values.shape])
    return float(np.sqrt(max(sum(parts) - cells, *parts, cells)))


def crossed_freedom(values) -> int:
    """Degrees of freedom of `crossed_error` for Student's t: the smaller number of levels, less one.

    The usual choice for two-way clusters (Cameron and Miller 2015, doi:10.3368/jhr.50.2.317). Satterthwaite's number is
    larger where few seeds agree by luck, and then too large: of differences between two pairs of runs that vary by seed
    alone it would find one in ten below .05, and one in fifty below .0001. A factor with one level does not count.
    """
    return max(1, min(levels for levels in np.shape(values) if levels > 1) - 1)


def crossed_difference(differences) -> dict[str, float | None]:
    """The mean of paired differences with interval, p value and minimum detectable effect, over seeds and problems.

    All follow from one standard error (`crossed_error`) and Student's t with `crossed_freedom`. One seed tells nothing
    of other seeds: its interval is one over problems alone, and it has neither p value nor detectable effect.

    Args:
        differences: (S, P), an arm minus the baseline for each seed and problem.

    Returns:
        {"difference", "low", "high" (95 % interval), "p" (two-sided, of no difference), "mde"}. Where all differences
        are the same number the interval has no width and p is 1 if that number is 0, else 0. None where undefined.
    """
    differences = np.asarray(differences, dtype=np.float64)
    mean, error = float(differences.mean()), crossed_error(differences)
    found: dict[str, float | None] = {"difference": mean, "low": None, "high": None, "p": None, "mde": None}
    if np.isnan(error):
        return found
    freedom = crossed_freedom(differences)
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * error
    found |= {"low": float(mean - half), "high": float(mean + half)}
    if len(differences) > 1:
        same = np.ptp(differences) == 0
        found["p"] = float(mean == 0) if same else float(2 * stats.t.sf(abs(mean) / error, freedom))
        found["mde"] = None if same else detectable_effect(error, freedom)
    return found


def detectable_effect(error: float, freedom: float) -> float:
    """Smallest true difference that a two-sided t test at .05, not adjusted, finds in 80 % of repetitions.

    The noncentrality that has this power, in standard errors (Cohen 1988, section 2.5; the chance of a find with the
    wrong sign is left out). The usual t_.975 + t_.80 (Bloom 1995, doi:10.1177/0193841X9501900504) has a power of 73 %
    with 1 degree of freedom, 77 % with 2.

    Args:
        error: standard error of the difference.
        freedom: degrees of freedom of the test.
    """
    return float(special.nctdtrinc(freedom, 1 - POWER, stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * error)


def mean_t_interval(values) -> tuple[float, float]:
    """Mean of two or more independent values, and the half width of its 95 % t interval."""
    values = np.asarray(values, dtype=np.float64)
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def paired_t(differences) -> float:
    """Two-sided p value of Student's t test that the mean of two or more paired differences is 0.

    Differences that are all 0 give 1, and all the same other number 0.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if np.ptp(differences) == 0:
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for the size of their family by Holm's step-down method (Holm 1979), in the given order.

    Those below .05 hold together with a chance of at most 5 % that any is false, however the tests depend on each
    other. None, a comparison without p value, stays None and does not count.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = highest
    return adjusted


def interquartile_mean(values) -> float:
    """Mean of the middle half of the values (Agarwal et al. 2021, arXiv:2108.13264, on runs of one task)."""
    return float(stats.trim_mean(values, proportiontocut=0.25, axis=None))


def probability_of_improvement(ours, theirs) -> dict[str, float | None]:
    """Chance that a run of one arm scores above a run of another, ties half (Agarwal et al. 2021, one task).

    It is Mann and Whitney's U over the number of pairs of runs. The interval is `mann_whitney_interval`: that of
    rliable, a percentile bootstrap over runs, shrinks to a point where no two runs overlap.

    Args:
        ours, theirs: scores of the runs of each arm, taken as independent.

    Returns:
        {"chance", "low", "high"}; no bounds where an arm has one run, which tells nothing of other runs.
    """
    pairs = len(ours) * len(theirs)
    chance = float(stats.mannwhitneyu(ours, theirs, alternative="greater").statistic / pairs)
    low = high = None
    if min(len(ours), len(theirs)) > 1:
        low, high = mann_whitney_interval(chance, len(ours), len(theirs))
    return {"chance": chance, "low": low, "high": high}


def mann_whitney_interval(chance: float, first: int, second: int) -> tuple[float, float]:
    """95 % interval of a `probability_of_improvement` of ``first`` against ``second`` runs.

    Newcombe's method 5 (2006, doi:10.1002/sim.2324): the chances q from which the observed one lies no further than
    1.96 standard errors of Hanley and McNeil's variance at q, with both numbers of runs in its brackets at their mean.
    Within [0, 1], and no point where the runs do not overlap: 1.0 of 5 against 5 has [0.64, 1].
    """
    return _lower_bound(chance, first, second), 1.0 - _lower_bound(1.0 - chance, first, second)


def _lower_bound(chance: float, first: int, second: int) -> float:
    if chance == 0:
        return 0.0
    wide, others = stats.norm.ppf(0.5 + CONFIDENCE / 2), (first + second) / 2 - 1

    def beyond(q: float) -> float:
        spread = 1 + others * (1 - q) / (2 - q) + others * q / (1 + q)
        return chance - q - wide * (q * (1 - q) * spread / (first * second)) ** 0.5

    # At 0 this is the chance; just below the chance, or below 1, where the error is 0, it is negative.
    return float(optimize.brentq(beyond, 0.0, min(chance, 1 - 1e-9)))


def performance_profile(scores, thresholds) -> np.ndarray:
    """Share of the scores above each threshold (Agarwal et al. 2021): of an (S, P) table the mean over runs and tasks.

    Returns (number of thresholds,) values, which never rise with the threshold.
    """
    scores = np.asarray(scores, dtype=np.float64).ravel()
    return (scores > np.asarray(thresholds, dtype=np.float64)[:, None]).mean(axis=1)
