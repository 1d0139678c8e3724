"""Accuracy, pass@k and maj@k of sampled completions, with 95 % intervals whose unit is the problem."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from scipy import stats

from common.errors import UserError
from evaluation.options import LARGEST_K

CONFIDENCE = 0.95
NUM_RESAMPLES = 9999
SEED = 0
KS = (1, 4, 8, 16, 32, LARGEST_K)  # of pass@k, maj@k and Coverage@N, beside the number of samples itself


def by_problem(
    records: Iterable[dict], read: Callable[[dict], Any], problem: Callable[[dict], Hashable] = itemgetter("id")
) -> dict[Hashable, list]:
    """What ``read`` finds in each record, in lists by its ``problem``; problems and records keep their order."""
    found: dict[Hashable, list] = {}
    for record in records:
        found.setdefault(problem(record), []).append(read(record))
    return found


def pass_at_k(num_samples, num_correct, k: int) -> np.ndarray:
    """Unbiased estimate of the chance that at least one of ``k`` samples is right.

    Computes 1 - C(n - c, k) / C(n, k) for n samples of which c are right (Chen et al. 2021, arXiv:2107.03374,
    section 2.1) as the product over j < k of (n - c - j) / (n - j), which needs no large factorial.

    Args:
        num_samples: n, an int or an array that broadcasts with ``num_correct``.
        num_correct: c, an int or an array.
        k: how many of the n samples are drawn, without replacement.

    Returns:
        float64 array of the broadcast shape, in [0, 1].

    Raises:
        UserError: k below 1, n below k, or c outside [0, n].
    """
    n, c = np.broadcast_arrays(np.asarray(num_samples), np.asarray(num_correct))
    if k < 1 or (n < k).any():
        raise UserError(f"pass@{k} needs k >= 1 and at least k samples per problem, got {n.min()} samples; lower k.")
    if ((c < 0) | (c > n)).any():
        raise UserError(f"num_correct={c.tolist()} must lie between 0 and num_samples={n.tolist()}.")
    drawn = np.arange(k)
    factors = np.clip(n[..., None] - c[..., None] - drawn, 0, None) / (n[..., None] - drawn)
    return 1.0 - factors.prod(axis=-1)


def mean_interval(values_by_problem) -> dict[str, float]:
    """Mean over problems with a 95 % interval that treats the problem, not the sample, as the unit.

    One right-or-wrong value per problem: Wilson's score interval. Otherwise: bias-corrected bootstrap (BCa) over the
    problems' means with `NUM_RESAMPLES` resamples and a fixed seed. Where all problems have the same mean the bootstrap
    has no spread to resample; Wilson's interval, the widest that values in [0, 1] with this mean allow, stands in.

    Args:
        values_by_problem: (n_problems, n_samples), values in [0, 1].

    Returns:
        {"mean", "low", "high", "n"}, n being the number of problems.

    Raises:
        UserError: not a non-empty two-dimensional array, or a value outside [0, 1] (NaN included).
    """
    values = np.asarray(values_by_problem, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise UserError(f"values of shape {values.shape} must be (problems, samples) with at least one of each.")
    if not ((values >= 0) & (values <= 1)).all():
        raise UserError(f"values must lie in [0, 1], got a range of {values.min()} to {values.max()}.")
    means = values.mean(axis=1)
    spread = means.max() - means.min()
    if spread < 1e-12 or (values.shape[1] == 1 and np.isin(means, (0.0, 1.0)).all()):
        low, high = _wilson(means)
    else:
        low, high = _bca(means)
    return {"mean": float(means.mean()), "low": float(low), "high": float(high), "n": len(means)}


def _bca(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean of ``values`` (n,), which differ, by bias-corrected accelerated bootstrap."""
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=NUM_RESAMPLES, batch=1000, confidence_level=CONFIDENCE, rng=SEED
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _wilson(means: np.ndarray) -> tuple[float, float]:
    successes = round(float(means.sum()), 9)
    low = stats.binomtest(int(np.floor(successes)), len(means)).proportion_ci(CONFIDENCE, method="wilson").low
    high = stats.binomtest(int(np.ceil(successes)), len(means)).proportion_ci(CONFIDENCE, method="wilson").high
    return low, high


def maj_at_k(answers: Sequence[Sequence[Hashable | None]], correct, k: int) -> np.ndarray:
    """Share of majority votes of ``k`` samples that are right, per problem (self-consistency, arXiv:2203.11171).

    A problem's samples are cut into S // k disjoint blocks of k, each block votes, and the blocks are averaged. An
    answer of None (nothing could be parsed) has no vote; a block without votes is wrong. A tie between answers counts
    as the share of the tied answers that are right, the expectation of a random tie break. Where equal answers have
    different verdicts, as an answer that stands in the wrong place, theirs is the mean.

    Args:
        answers: P lists of S canonical answers; equal answers are one candidate.
        correct: (P, S) bool, the verdict of each answer.
        k: size of a vote.

    Returns:
        (P,) float64 in [0, 1].

    Raises:
        UserError: k outside [1, S], or ``answers`` and ``correct`` of different shapes.
    """
    correct = np.asarray(correct, dtype=bool)
    if correct.ndim != 2 or len(answers) != len(correct) or any(len(row) != correct.shape[1] for row in answers):
        raise UserError(f"maj@{k} needs one answer per verdict, got verdicts of shape {correct.shape}.")
    if not 1 <= k <= correct.shape[1]:
        raise UserError(f"maj@{k} needs 1 <= k <= {correct.shape[1]}, the samples per problem; lower k.")
    starts = range(0, correct.shape[1] - k + 1, k)
    return np.array(
        [
            np.mean([_vote(row[start : start + k], right[start : start + k]) for start in starts])
            for row, right in zip(answers, correct, strict=True)
        ]
    )


def _vote(answers: Sequence[Hashable | None], correct: np.ndarray) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    right = Counter(answer for answer, is_right in zip(answers, correct, strict=True) if is_right)
    most = max(votes.values())
    return float(np.mean([right[answer] / count for answer, count in votes.items() if count == most]))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Mean of second - first over the same problems, with a 95 % interval (BCa bootstrap over the problems).

    Also how many problems only one of them did better on, and the exact p-value of these counts (two-sided binomial,
    one half): the sign test, which is McNemar's where every score is 0 or 1. Where all differences agree there is
    nothing to resample and the interval is NaN.
    """
    differences = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    low = high = float("nan")
    if np.ptp(differences) > 0:
        low, high = _bca(differences)
    worse, better = int((differences < 0).sum()), int((differences > 0).sum())
    p_value = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    return {
        "difference": float(differences.mean()),
        "low": low,
        "high": high,
        "only_first": worse,
        "only_second": better,
        "p": float(p_value),
        "n": len(differences),
    }


def summarize(correct, ks: Sequence[int] = (1, 4, 8), answers=None) -> dict[str, dict[str, float]]:
    """Accuracy, pass@k and, where ``answers`` are given, maj@k with their intervals.

    Args:
        correct: (P, S) bool, verdicts of S samples of P problems.
        ks: the k of pass@k and maj@k; those above S are left out, as is maj@1, which is noise around the accuracy.
        answers: P lists of S canonical answers (see `maj_at_k`), or None.

    Returns:
        {"accuracy": {"mean", "low", "high", "n"}, "pass@<k>": {...}, "maj@<k>": {...}}, plain numbers fit for JSON.

    Raises:
        UserError: ``correct`` is not a non-empty (P, S) array.
    """
    correct = np.asarray(correct, dtype=bool)
    metrics = {"accuracy": mean_interval(correct)}
    num_samples = correct.shape[1]
    ks = [k for k in ks if k <= num_samples]
    for k in ks:
        metrics[f"pass@{k}"] = mean_interval(pass_at_k(num_samples, correct.sum(axis=1), k)[:, None])
    if answers is not None:
        for k in (k for k in ks if k > 1):
            metrics[f"maj@{k}"] = mean_interval(maj_at_k(answers, correct, k)[:, None])
    return metrics
