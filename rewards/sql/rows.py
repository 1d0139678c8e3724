"""Whether two results of SQL queries are the same: rows as a multiset, or as a sequence up to ties of the sort keys.

Rows are tuples of what `sqlite3` returns: int, float, str, bytes or None.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import permutations

TOLERANCE = 1e-6  # of max(1, |a|, |b|), between numbers of which one is a float
SORTED_DIGITS = 9  # significant digits by which rows are paired, so that noise in one column does not decide the order
LOOSE_DIGITS = 6  # significant digits of numbers in the loose comparison and in `digest`
MAX_PERMUTED = 6  # columns of which the loose comparison tries every order
MAX_MATCHED = 1_000  # rows that are paired one by one where sorting does not pair them

Value = int | float | str | bytes | None
Row = tuple[Value, ...]


def same_value(a: Value, b: Value) -> bool:
    """Numbers within `TOLERANCE`, two integers exactly; text and blobs exactly; NULL equals NULL alone; '5' is not 5.

    A tolerance between integers would make neighbouring keys from a million on the same.
    """
    if isinstance(a, int | float) and isinstance(b, int | float):
        if a == b or (isinstance(a, int) and isinstance(b, int)):
            return a == b
        return abs(a - b) <= TOLERANCE * max(1.0, abs(a), abs(b)) < float("inf")
    return type(a) is type(b) and a == b


def same_multiset(a: Sequence[Row], b: Sequence[Row]) -> bool:
    """Whether ``a`` and ``b`` hold the same rows equally often, in any order.

    Rows that agree in all but their numbers are paired in the order of their rounded numbers, in n log n. Where that
    fails, up to `MAX_MATCHED` such rows are paired one by one.
    """
    if len(a) != len(b):
        return False
    first, second = _by_exact_part(a), _by_exact_part(b)
    return first.keys() == second.keys() and all(_paired(rows, second[key]) for key, rows in first.items())


def same_result(result: Sequence[Row], gold: Sequence[Row], tie_groups: Sequence[int] = ()) -> bool:
    """Whether ``result`` is the gold result: same columns in the same order, and the same rows.

    Args:
        tie_groups: sizes of the runs of ``gold`` with equal sort keys, in order, which sum to its length; rows may
            change places within a run alone. Empty where the gold query does not sort: any order is right.
    """
    return len(result) == len(gold) and all(
        same_multiset(result[start:end], gold[start:end]) for start, end in _runs(len(gold), tie_groups)
    )


def loosely_same(result: Sequence[Row], gold: Sequence[Row]) -> bool:
    """Whether the sets of rows are the same, in any order of up to `MAX_PERMUTED` columns.

    Text that reads as a number is that number, and numbers are rounded to `LOOSE_DIGITS`.
    """
    left, right = ([tuple(map(_loose_value, row)) for row in rows] for rows in (result, gold))
    if not left or not right:
        return not left and not right
    width = len(right[0])
    if len(left[0]) != width:
        return False
    wanted = set(right)
    columns = [{row[index] for row in left} for index in range(width)]
    targets = [{row[index] for row in right} for index in range(width)]
    orders = permutations(range(width)) if width <= MAX_PERMUTED else [tuple(range(width))]
    return any(
        {tuple(row[index] for index in order) for row in left} == wanted
        for order in orders
        if all(columns[index] == target for index, target in zip(order, targets, strict=True))
    )


def digest(rows: Sequence[Row], tie_groups: Sequence[int] = ()) -> str:
    """A hash that equal results share: rows sorted, or sorted within the runs of the gold's ties where it sorts."""
    ends = _runs(len(rows), tie_groups if sum(tie_groups) == len(rows) else [1] * len(rows) * bool(tie_groups))
    parts = [sorted(repr(plain_row(row)) for row in rows[start:end]) for start, end in ends]
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _runs(length: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(start, end) of each run; one run of ``length`` where there are no sizes."""
    ends = [0]
    for size in sizes or [length]:
        ends.append(ends[-1] + size)
    return list(zip(ends, ends[1:], strict=False))


def _paired(a: list[Row], b: list[Row]) -> bool:
    if len(a) != len(b) or all(map(_same_row, a, b)):
        return len(a) == len(b)
    if len(a) > MAX_MATCHED:
        return False
    left = list(b)
    for row in a:
        found = next((index for index, other in enumerate(left) if _same_row(row, other)), None)
        if found is None:
            return False
        del left[found]
    return True


def _same_row(a: Row, b: Row) -> bool:
    return all(map(same_value, a, b))  # both come from one bucket, so they are equally long


def _by_exact_part(rows: Sequence[Row]) -> dict[tuple, list[Row]]:
    """The rows by their columns that are no numbers, each list in the order of its rounded numbers."""
    buckets = defaultdict(list)
    for row in rows:
        buckets[tuple("number" if isinstance(v, int | float) else (type(v), v) for v in row)].append(row)
    for bucket in buckets.values():
        bucket.sort(key=_sort_key)
    return buckets


def _sort_key(row: Row) -> tuple[list[float], list[int | float]]:
    numbers = [value for value in row if isinstance(value, int | float)]
    return [float(f"{value:.{SORTED_DIGITS - 1}e}") for value in numbers], numbers


def _loose_value(value: Value) -> Value:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if not isinstance(value, int | float):
        return value
    return round(float(value), LOOSE_DIGITS - 1) if abs(value) < 1 else float(f"{value:.{LOOSE_DIGITS - 1}e}")


def plain_row(row: Row) -> Row:
    """``row`` as `digest` counts it: 20.0 is 20, and other floats have `LOOSE_DIGITS`."""
    return tuple(map(_plain_value, row))


def _plain_value(value: Value) -> Value:
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else float(f"{value:.{LOOSE_DIGITS - 1}e}")
