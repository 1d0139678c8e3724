"""Rollout accuracy and co-influence of queries as numbers with intervals: the two factors of BRIDGE's influence.

One GRPO step on query q changes the group-normalised objective of query q' by

    eta * w_q * w_q' * <D_q, D_q'>      w = sqrt(a (1 - a)), a = rollout accuracy

(BRIDGE, project page, with the training query's factor spelt out; see docs/influence.md). All intervals are 95 % and
have the query as their unit.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

from evaluation.metrics import CONFIDENCE, mean_interval


def accuracy_factor(accuracy) -> np.ndarray:
    """w = sqrt(a (1 - a)) of rollout accuracies a in [0, 1]; exactly 0 at 0 and 1, most at 1/2."""
    accuracy = np.asarray(accuracy, dtype=np.float64)
    return np.sqrt(accuracy * (1.0 - accuracy))


def accuracy_statistics(correct) -> dict:
    """What the verdicts (m, N) bool say: histogram, mean accuracy, E[sqrt(a(1-a))] and E[a(1-a)] with intervals.

    Returns:
        "histogram": N + 1 counts of queries by number of right samples; "accuracy", "accuracy_factor" (mean w),
        "learnable" (share of queries with a right and a wrong sample): {"mean", "low", "high", "n"} each.
        "accuracy_variance": estimate of E[a(1-a)] free of the bias that N samples bring.
    """
    correct = np.asarray(correct, dtype=bool)
    samples = correct.shape[1]
    right = correct.sum(axis=1)
    factors = accuracy_factor(right / samples)
    # w lies in [0, 1/2]; doubled, it uses the whole range that the interval is made for.
    doubled = mean_interval(2.0 * factors[:, None])
    return {
        "histogram": np.bincount(right, minlength=samples + 1).tolist(),
        "accuracy": mean_interval(correct.astype(float)),
        "accuracy_factor": {key: value if key == "n" else value / 2.0 for key, value in doubled.items()},
        "accuracy_variance": float(np.mean(factors**2) * samples / (samples - 1)),
        "learnable": mean_interval((factors > 0).astype(float)[:, None]),
    }


def cosines(products) -> np.ndarray:
    """Cosines (m, m) of inner products (m, m); NaN in the rows and columns of vectors that are 0."""
    norms = np.sqrt(np.diag(products))
    scale = np.outer(norms, norms)
    return np.divide(products, scale, out=np.full_like(scale, np.nan), where=scale > 0)


def influences(products, accuracy) -> np.ndarray:
    """w_i w_j <D_i, D_j>, (m, m): influence per unit of learning rate; exactly 0 where an accuracy is 0 or 1."""
    factors = accuracy_factor(accuracy)
    return np.outer(factors, factors) * products


def off_diagonal_mean(matrix) -> float:
    """Mean of the entries off the diagonal."""
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


def jackknife(statistic: Callable[[np.ndarray], float], count: int) -> dict[str, float | None]:
    """A statistic of ``count`` queries with its jackknife interval.

    Pairs of queries share queries, so their values are not independent; leaving out one query at a time accounts for
    it (Arvesen 1969, for U-statistics). Student's t with count - 1 degrees of freedom.

    Args:
        statistic: indices of queries -> number; has to take count - 1 of them.

    Returns:
        {"mean", "low", "high", "n"}; the ends are None below three queries, all are None below two.
    """
    everyone = np.arange(count)
    if count < 2:
        return {"mean": None, "low": None, "high": None, "n": count}
    whole = statistic(everyone)
    if count < 3:
        return {"mean": whole, "low": None, "high": None, "n": count}
    left_out = np.array([statistic(np.delete(everyone, index)) for index in everyone])
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1) * np.sqrt((count - 1) * left_out.var())
    return {"mean": whole, "low": float(whole - half), "high": float(whole + half), "n": count}


def _pairs(matrix) -> dict[str, float | None]:
    return jackknife(lambda kept: off_diagonal_mean(matrix[np.ix_(kept, kept)]), len(matrix))


def influence_statistics(products, accuracy, self_terms=None) -> dict:
    """Means over pairs of different queries.

    Args:
        products: (m, m) inner products <D_i, D_j>.
        accuracy: (m,) rollout accuracies.
        self_terms: (m,) estimates of |D_i|^2 without sampling noise, NaN where there is none; or None.

    Returns:
        "cosine" and "share_positive" over learnable queries, "influence" over all queries, those at 0 included as in
        the theory's expectation, "self_influence" over all. With ``self_terms``, over queries that have one:
        "self_influence_split", the mean w_i^2 |D_i|^2 without sampling noise, and "relative_influence", the mean
        influence on another query over it, which noise does not pull to 0; None where that divisor's interval holds 0.
    """
    products, accuracy = np.asarray(products, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    learnable = np.flatnonzero(np.diag(products) > 0)
    cosine = cosines(products)[np.ix_(learnable, learnable)]
    influence = influences(products, accuracy)
    found = {
        "cosine": _pairs(cosine),
        "share_positive": _pairs((cosine > 0).astype(np.float64)),
        "influence": _pairs(influence),
        "self_influence": float(np.mean(np.diag(influence))),
    }
    if self_terms is None:
        return found
    known = np.flatnonzero(np.isfinite(self_terms))
    own = (accuracy_factor(accuracy) ** 2 * np.nan_to_num(self_terms))[known]
    split = jackknife(lambda kept: float(own[kept].mean()), len(own))
    ratio = {"mean": None, "low": None, "high": None, "n": len(own)}
    if split["low"] is not None and split["low"] > 0:
        between = influence[np.ix_(known, known)]
        ratio = jackknife(lambda kept: off_diagonal_mean(between[np.ix_(kept, kept)]) / own[kept].mean(), len(own))
    return found | {"self_influence_split": split, "relative_influence": ratio}
