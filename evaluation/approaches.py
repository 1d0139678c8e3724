"""In how many ways a policy is right (Coverage@N), how reliably (Cover@tau), and with what that is rare (rare@k).

An approach is the normal form of the way to an answer, `rewards.grade.Grade.approach`: equal texts are one approach.
Right answers whose approach cannot be read count as no approach. All estimators are per problem, from S samples.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from common.errors import UserError
from evaluation.metrics import mean_interval, pass_at_k

TAUS = (0.03125, 0.1, 0.25, 0.5)  # of Cover@tau
RARE_SHARE = 0.1  # of a problem's right answers, up to which an approach is rare


def approach_counts(approaches: Sequence[str | None], right: Sequence[bool]) -> Counter[str]:
    """Approach -> how many right samples of one problem took it."""
    pairs = zip(approaches, right, strict=True)
    return Counter(approach for approach, is_right in pairs if is_right and approach is not None)


def coverage_at_n(num_samples: int, counts: Sequence[Mapping[str, int]], n: int) -> np.ndarray:
    """Unbiased estimate of the expected number of different right approaches in ``n`` samples.

    Coverage@N = sum over approaches j of 1 - C(S - s_j, N) / C(S, N), where s_j of S samples are right by approach j:
    `pass_at_k` of every approach, added up. N = S is the number of those seen.

    Args:
        num_samples: S.
        counts: `approach_counts` of P problems.
        n: N, 1 to S.

    Returns:
        (P,) float64 in [0, N].
    """
    return np.array([pass_at_k(num_samples, list(found.values()), n).sum() if found else 0.0 for found in counts])


def cover_at_tau(correct, tau: float) -> np.ndarray:
    """Whether a problem is solved in a share ``tau`` of its samples or more, (P,) float64, 0 or 1 (arXiv:2510.08325).

    The share of samples is plugged in for the probability, as there, so a problem near tau may fall on either side.

    Args:
        correct: (P, S) bool.
        tau: in (0, 1]; below 1 / S it would say no more than pass@S.

    Raises:
        UserError: tau outside (0, 1].
    """
    if not 0.0 < tau <= 1.0:
        raise UserError(f"Cover@{tau} needs a share above 0 and up to 1.")
    correct = np.asarray(correct, dtype=bool)
    # Shares such as .1 have no exact binary form.
    return (correct.sum(axis=1) >= tau * correct.shape[1] - 1e-9).astype(float)


def is_rare(approach: str, reference: Counter[str]) -> bool:
    """Whether at most `RARE_SHARE` of the right answers in ``reference``, `approach_counts` of other samples of the
    same problem, take ``approach``; every approach is, where there are none."""
    return reference[approach] <= RARE_SHARE * reference.total()


def rare_at_k(num_samples: int, counts: Sequence[Counter[str]], references: Sequence[Counter[str]], k: int):
    """Unbiased estimate of the chance that ``k`` samples hold a right answer whose approach is rare (`is_rare`).

    Unbiased where ``references`` are of samples that are not among those counted.

    Args:
        num_samples: S.
        counts: `approach_counts` of P problems.
        references: those that say what is rare, of the same problems.
        k: 1 to S.

    Returns:
        (P,) float64 in [0, 1].
    """
    pairs = list(zip(counts, references, strict=True))
    rare = [sum(count for name, count in found.items() if is_rare(name, known)) for found, known in pairs]
    return pass_at_k(num_samples, np.array(rare, dtype=int), k)


def approach_metrics(correct, approaches: Sequence[Sequence[str | None]], ks: Sequence[int]) -> dict[str, dict]:
    """``right_approaches`` (different ones among all samples) and ``coverage@N`` with intervals over problems.

    Args:
        correct: (P, S) bool.
        approaches: P lists of S normal forms or None.
        ks: the N of Coverage@N; those below 2 and above S are left out.
    """
    correct = np.asarray(correct, dtype=bool)
    counts = [approach_counts(*problem) for problem in zip(approaches, correct, strict=True)]
    samples = correct.shape[1]
    metrics = {"right_approaches": _count_interval(coverage_at_n(samples, counts, samples), samples)}
    for n in (n for n in ks if 1 < n <= samples):
        metrics[f"coverage@{n}"] = _count_interval(coverage_at_n(samples, counts, n), n)
    return metrics


def distinct_metrics(**values: Sequence[Sequence[str | None]]) -> dict[str, dict]:
    """``distinct_<name>``: how many different values the samples of a problem have, with intervals over problems.

    Args:
        values: name -> P lists of as many samples each; None is no value.
    """
    return {
        f"distinct_{name}": _count_interval(
            np.array([len(set(problem) - {None}) for problem in problems], dtype=float), len(problems[0])
        )
        for name, problems in values.items()
    }


def cover_metrics(correct) -> dict[str, dict]:
    """``cover@<tau>`` of `TAUS` with intervals over problems, as far as 1 / S reaches; ``correct`` is (P, S) bool."""
    correct = np.asarray(correct, dtype=bool)
    taus = [tau for tau in TAUS if tau * correct.shape[1] >= 1.0 and correct.shape[1] > 1]
    return {f"cover@{tau:g}": mean_interval(cover_at_tau(correct, tau)[:, None]) for tau in taus}


def group_columns(
    approaches: Sequence[str | None], right: Sequence[bool], num_generations: int
) -> dict[str, list[float]]:
    """Of every completion, what its group of ``num_generations`` adjacent ones holds: ``right_approaches``, and
    ``coverage@N`` for N = 2, 4, 8, ... below the size of the group."""
    starts = range(0, len(approaches), num_generations)
    parts = [slice(start, start + num_generations) for start in starts]
    counts = [approach_counts(approaches[part], right[part]) for part in parts]
    columns = {"right_approaches": [len(found) for found in counts]}
    n = 2
    while n < num_generations:
        columns[f"coverage@{n}"] = coverage_at_n(num_generations, counts, n).tolist()
        n *= 2
    return {name: np.repeat(values, num_generations).tolist() for name, values in columns.items()}


def _count_interval(values: np.ndarray, most: int) -> dict[str, float]:
    """`mean_interval` of counts in [0, ``most``]."""
    found = mean_interval(values[:, None] / most)
    return {name: value if name == "n" else value * most for name, value in found.items()}
