"""What a gold query determines: its rows, which of them may change places, and whether they are determined at all."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rewards.sql.rows import Row, plain_row, same_multiset, same_result
from rewards.sql.runner import Result, runner
from rewards.sql.text import reads_clock
from tasks.sql.clauses import SortedQuery, sorted_query


class Gold(NamedTuple):
    """A gold query on one database.

    Attributes:
        problem: why it cannot judge: it fails, exceeds a limit, or reads the clock; "" where it can.
        tie_groups: sizes of the runs of its rows with equal sort keys; empty where it does not sort.
        tied: two different rows may change places. cut: which rows it gives is not determined.
        rows, columns: the size of its result.
    """

    problem: str
    ordered: bool
    tie_groups: list[int]
    tied: bool
    cut: bool
    rows: int
    columns: int


def examine(path: str, shuffled: Sequence[str], sql: str) -> Gold:
    """`Gold` of ``sql`` on the database ``path``, of which ``shuffled`` are copies with the rows in other orders.

    Equal sort keys tell the ties, and whether a LIMIT cuts through some. Beside that the query runs on the copies: rows
    that come and go there are not determined, and those that change places there are tied, with all between them.
    """
    result = runner().run(path, sql)
    if reads_clock(sql):
        return _unusable("reads the clock, so that its result changes with the day")
    if result.status != "ok":
        return _unusable(f"gives {result.status}: {result.message}")
    order = sorted_query(sql)
    groups, cut = ([], False) if order is None else _key_groups(path, order, result)
    for copy in shuffled:
        other = runner().run(copy, sql)
        if other.status != "ok" or not same_multiset(other.rows, result.rows):
            cut = True
        elif not same_result(other.rows, result.rows, groups):
            groups = _joined(groups, result.rows, other.rows)
    tied = any(_differ(rows) for rows in _runs(result.rows, groups))
    return Gold("", order is not None, groups, tied, cut, len(result.rows), result.width)


def _unusable(problem: str) -> Gold:
    return Gold(problem, False, [], False, False, 0, 0)


def _key_groups(path: str, order: SortedQuery, result: Result) -> tuple[list[int], bool]:
    """(tie groups of the sorted ``result``, whether its LIMIT cuts through equal keys); all apart without keys."""
    apart = [1] * len(result.rows)
    if order.keyed is None:
        return apart, False
    keyed = runner().run(path, order.keyed)
    if keyed.status != "ok" or keyed.width != result.width + order.added:
        return apart, False
    groups: list[list[Row]] = []
    last = None
    for row in keyed.rows:
        key = tuple(row[place] for place in order.keys)
        if not groups or key != last:
            groups.append([])
        groups[-1].append(row[: result.width])
        last = key
    start, end = order.offset, order.offset + len(result.rows)
    sizes, cut, position = [], False, 0
    for group in groups:
        inside = min(end, position + len(group)) - max(start, position)
        if inside > 0:
            sizes.append(inside)
            cut |= inside < len(group) and _differ(group)
        position += len(group)
    if sum(sizes) != len(result.rows) or not (
        cut or same_result([row for g in groups for row in g][start:end], result.rows, sizes)
    ):
        return apart, False
    return sizes, cut


def _joined(groups: Sequence[int], rows: Sequence[Row], other: Sequence[Row]) -> list[int]:
    """``groups`` of ``rows``, joined where one alone does not hold the same rows in ``other``, which has all of them.

    Rows are counted by their `plain_row`, so that the noise of sums in another order joins none.
    """
    sizes, start, end = [], 0, 0
    balance: Counter[Row] = Counter()
    for size in groups:
        for row, sign in ((row, sign) for side, sign in ((rows, 1), (other, -1)) for row in side[end : end + size]):
            key = plain_row(row)
            balance[key] += sign
            if not balance[key]:
                del balance[key]
        end += size
        if not balance and same_multiset(rows[start:end], other[start:end]):
            sizes.append(end - start)
            start = end
    return sizes if start == end else [len(rows)]


def _runs(rows: list[Row], sizes: Sequence[int]) -> list[list[Row]]:
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [rows[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def _differ(rows: Sequence[Row]) -> bool:
    return any(row != rows[0] for row in rows)
