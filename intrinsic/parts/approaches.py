"""Which completions of a group solve the problem in the same way: equal keys, or clusters of near texts."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

NONE = -1  # the number of a completion whose approach is not known


def numbered(keys: Sequence[Hashable | None]) -> list[int]:
    """The number of each key, equal for equal keys, counted from 0 by first appearance; `NONE` for None."""
    places: dict[Hashable, int] = {}
    return [NONE if key is None else places.setdefault(key, len(places)) for key in keys]


def clusters(distances: np.ndarray, threshold: float) -> list[int]:
    """The cluster of each of n items, counted from 0 by first appearance, by average linkage.

    The two clusters whose items lie nearest to each other on average are merged, again and again, while that mean
    distance is at most ``threshold``. ``distances``: (n, n), symmetric, 0 on the diagonal.
    """
    if len(distances) < 2:
        return [0] * len(distances)
    tree = linkage(squareform(distances, checks=False), method="average")
    return numbered(fcluster(tree, threshold, criterion="distance").tolist())


def bigram_distances(texts: Sequence[str]) -> np.ndarray:
    """(n, n) Jaccard distances between the sets of word pairs of ``texts``: 1 - common / all; 0 between empty sets."""
    sets = [_bigrams(text) for text in texts]
    size = len(sets)
    distances = np.zeros((size, size))
    for one in range(size):
        for other in range(one):
            whole = len(sets[one] | sets[other])
            common = len(sets[one] & sets[other])
            distances[one, other] = distances[other, one] = 1.0 - common / whole if whole else 0.0
    return distances


def _bigrams(text: str) -> frozenset[tuple[str, ...]]:
    """Pairs of neighbouring words; of a text of one word, the word."""
    words = text.split()
    return frozenset(zip(words, words[1:], strict=False)) if len(words) != 1 else frozenset([(words[0],)])


def cosine_distances(vectors: Tensor) -> np.ndarray:
    """(n, n) distances 1 - cos in [0, 2] of unit vectors (n, d), in float64."""
    unit = vectors.detach().double().cpu().numpy()
    distances = np.clip(1.0 - unit @ unit.T, 0.0, 2.0)
    np.fill_diagonal(distances, 0.0)
    return (distances + distances.T) / 2


def partition_figures(exact: Tensor, labels: Tensor | None) -> dict[str, float]:
    """How a partition of right answers looks, and how well it agrees with the exact one; both (groups, n) long.

    Over groups with two labelled members and more: "approaches" and "clusters" (mean number of labels in ``exact`` and
    in ``labels``), "split" (share of the groups with more than one cluster), "alike" (share of pairs of a group that
    are one approach) and "agreement" (share of pairs on which both say the same). Each only where there is one.
    """
    metrics = {}
    if counts := _counts(exact):
        metrics["approaches"] = sum(counts) / len(counts)
        metrics["alike"] = _same(exact)[_pairs(exact)].float().mean().item()
    if labels is None:
        return metrics
    if counts := _counts(labels):
        metrics["clusters"] = sum(counts) / len(counts)
        metrics["split"] = sum(count > 1 for count in counts) / len(counts)
    both = _pairs(labels) & _pairs(exact)
    if both.any():
        metrics["agreement"] = (_same(labels) == _same(exact))[both].float().mean().item()
    return metrics


def _same(labels: Tensor) -> Tensor:
    """(groups, n) -> (groups, n, n): pairs with the same label."""
    return labels[:, :, None] == labels[:, None, :]


def _pairs(labels: Tensor) -> Tensor:
    """(groups, n) -> (groups, n, n): pairs of two labelled members, each once."""
    known = labels != NONE
    return (known[:, :, None] & known[:, None, :]).triu(diagonal=1)


def _counts(labels: Tensor) -> list[int]:
    """Different labels of each group that has two labelled members or more."""
    return [row[row != NONE].unique().numel() for row in labels if (row != NONE).sum() > 1]
