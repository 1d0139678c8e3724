"""Comparison of results of SQL queries: values, multisets, and sequences up to ties."""

import pytest

from rewards.sql.rows import digest, loosely_same, same_multiset, same_result, same_value


@pytest.mark.parametrize(
    "a, b, equal",
    [
        (20, 20.0, True),
        (1, 1.0000005, True),
        (0, 1e-7, True),
        (1, 1.001, False),
        (1_234_567, 1_234_568, False),
        (1_234_567, 1_234_568.0, True),
        ("20", 20, False),
        (None, None, True),
        (None, "", False),
        (b"x", "x", False),
        (float("inf"), float("inf"), True),
        (float("inf"), 1.0, False),
    ],
)
def test_values(a, b, equal):
    assert same_value(a, b) is same_value(b, a) is equal


def test_rows_count_as_often_as_they_stand_and_columns_keep_their_order():
    twice = [(1, "x"), (1, "x")]
    assert same_multiset(twice, list(twice))
    assert not same_multiset(twice, [(1, "x")])
    assert not same_multiset(twice, [("x", 1), ("x", 1)])
    assert not same_multiset([(1,)], [(1, 2)])
    # Noise in the first column does not decide which rows are paired.
    assert same_multiset([(1 + 1e-12, 2), (1, 3)], [(1, 2), (1 + 1e-12, 3)])
    # Nor does noise right at a limit of rounding, or integers that rounding makes the same.
    assert same_multiset([(1.000000005, 2), (1.0000000049, 3)], [(1.0000000051, 2), (1.000000005, 3)])
    assert same_multiset([(1234567891, 1), (1234567890, 2)], [(1234567890, 2), (1234567891, 1)])


def test_sorted_results_may_change_places_within_ties_alone():
    gold = [("sofa",), ("chair",), ("lamp",), ("torch",), ("stool",)]  # prices 250, 35.5, 20, 20, 15
    tied = [gold[0], gold[1], gold[3], gold[2], gold[4]]
    assert same_result(tied, gold, [1, 1, 2, 1])
    assert not same_result(tied, gold, [1, 1, 1, 1, 1])
    assert not same_result(gold[::-1], gold, [1, 1, 2, 1]) and same_result(gold[::-1], gold)
    assert not same_result(gold[:4], gold, [1, 1, 2, 1])


def test_the_loose_comparison_takes_sets_in_any_order_of_columns_and_numbers_in_text():
    assert loosely_same([(1, "x"), (1, "x")], [(1, "x")]) and loosely_same([("x", 1)], [(1, "x")])
    assert loosely_same([("20", 1e-7)], [(20, 0)]) and not loosely_same([("20", "y")], [(20, "x")])
    assert loosely_same([], []) and not loosely_same([], [(1,)]) and not loosely_same([(1,)], [(1, 1)])
    # The columns hold the same values, but not the same rows.
    assert not loosely_same([(1, 2), (2, 1)], [(1, 1), (2, 2)])


def test_equal_results_share_a_digest():
    rows = [(250, "sofa"), (20.0, "lamp"), (20, "torch")]
    assert digest(rows) == digest(rows[::-1]) == digest([(250.0, "sofa"), (20, "lamp"), (20, "torch")])
    assert digest(rows) != digest(rows[:2]) and digest([(1,)]) != digest([("1",)])
    tied = [rows[0], rows[2], rows[1]]
    assert digest(rows, [1, 2]) == digest(tied, [1, 2]) != digest(tied[::-1], [1, 2])
    assert digest(rows[:2], [1, 2]) != digest(rows[1::-1], [1, 2]), "a sequence where its length is not the gold's"
