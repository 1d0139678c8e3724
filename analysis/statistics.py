"""Paired differences over seeds and problems: a two-way bootstrap, t tests, Holm's adjustment, detectable effects."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from evaluation.metrics import CONFIDENCE, NUM_RESAMPLES, SEED

POWER = 0.8
BATCH = 1000  # resamples at once


def crossed_error(values) -> float:
    """Standard error of the mean of a seeds x problems table when both, seeds and problems, could have been others.

    Two-way ("pigeonhole") bootstrap: seeds and problems are resampled independently of each other, and each resampled
    mean is that of the crossed table (Owen 2007, doi:10.1214/07-AOAS122). It overstates the part of the noise that
    belongs to single cells, so it errs on the wide side. Of n levels n - 1 are drawn, which makes the variance between
    levels unbiased (Rao and Wu 1988, doi:10.1080/01621459.1988.10478591); with a handful of seeds drawing n would
    understate it by 1/n. A factor with one level is not resampled.

    Args:
        values: (S, P), one value per seed and problem.

    Returns:
        Standard deviation of `NUM_RESAMPLES` resampled means, drawn with a fixed seed; NaN for a single value.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size < 2:
        return float("nan")
    rng, means = np.random.default_rng(SEED), []
    for start in range(0, NUM_RESAMPLES, BATCH):
        count = min(BATCH, NUM_RESAMPLES - start)
        seeds, problems = (_resampling_weights(levels, count, rng) for levels in values.shape)
        means.append(((seeds @ values) * problems).sum(axis=1))
    return float(np.concatenate(means).std(ddof=1))


def _resampling_weights(levels: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, levels) shares of each level among ``levels`` - 1 draws with replacement."""
    drawn = max(1, levels - 1)
    return rng.multinomial(drawn, np.full(levels, 1.0 / levels), size=count) / drawn


def crossed_freedom(values) -> float:
    """Degrees of freedom of `crossed_error` for Student's t (Satterthwaite 1946, doi:10.2307/3002019).

    Near S - 1 where the seeds make the variance of the mean, near P - 1 where the problems do, between them else.
    """
    values = np.asarray(values, dtype=np.float64)
    parts = []
    for axis in (0, 1):
        levels = values.mean(axis=1 - axis)
        if len(levels) > 1:
            parts.append((levels.var(ddof=1) / len(levels), len(levels) - 1))
    total = sum(part for part, _ in parts)
    if total == 0:
        return float(min((freedom for _, freedom in parts), default=1))
    return float(total**2 / sum(part**2 / freedom for part, freedom in parts))


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
    mean, error, freedom = float(differences.mean()), crossed_error(differences), crossed_freedom(differences)
    found: dict[str, float | None] = {"difference": mean, "low": None, "high": None, "p": None, "mde": None}
    if np.isnan(error):
        return found
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * error
    found |= {"low": float(mean - half), "high": float(mean + half)}
    if len(differences) > 1:
        same = np.ptp(differences) == 0
        found["p"] = float(mean == 0) if same else float(2 * stats.t.sf(abs(mean) / error, freedom))
        found["mde"] = None if same else detectable_effect(error, freedom)
    return found


def detectable_effect(error: float, freedom: float) -> float:
    """Smallest true difference that a two-sided test at .05 finds in 80 % of repetitions.

    (t_.975 + t_.80) x standard error (Bloom 1995, doi:10.1177/0193841X9501900504).
    """
    return float((stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) + stats.t.ppf(POWER, freedom)) * error)


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
    return float(stats.trim_mean(values, proportiontocut=0.25))
