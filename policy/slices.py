"""Sampling a generation batch in slices, so that keys, values and scores of a few completions exist at once.

The completions come in order, and each from the same distribution. Which ones a seed draws depends on the slices, as
every call of ``generate`` draws for all its completions token by token.
"""

from collections.abc import Callable, Sequence

Generate = Callable[[Sequence[int], list[list[int]], int], list[list[int]]]


def in_slices(generate: Generate, size: int) -> Generate:
    """``generate`` in calls of at most ``size`` rows; 0: as it is.

    Args:
        generate: (row numbers, their token ids to go on from, most new tokens) -> new token ids, up to the end token.
    """
    if not size:
        return generate

    def sliced(rows: Sequence[int], ids: list[list[int]], most: int) -> list[list[int]]:
        completions = []
        for start in range(0, len(rows), size):
            completions += generate(rows[start : start + size], ids[start : start + size], most)
        return completions

    return sliced
