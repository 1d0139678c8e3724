"""pass@k, maj@k and intervals against hand-computed values and brute force."""

import itertools
import json
from operator import itemgetter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from evaluation.metrics import by_problem, maj_at_k, mean_interval, pass_at_k, summarize
from evaluation.table import closing_table


def brute_force_pass_at_k(verdicts, k):
    subsets = list(itertools.combinations(verdicts, k))
    return sum(any(subset) for subset in subsets) / len(subsets)


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(verdicts, data):
    k = data.draw(st.integers(1, len(verdicts)))
    estimate = pass_at_k(len(verdicts), sum(verdicts), k)
    assert estimate == pytest.approx(brute_force_pass_at_k(verdicts, k), abs=1e-12)


def test_pass_at_k_is_vectorised_over_problems():
    assert pass_at_k(4, np.array([0, 1, 3, 4]), 2) == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert pass_at_k(np.array([2, 5]), np.array([1, 1]), 2) == pytest.approx([1.0, 0.4])


def test_pass_at_k_stays_exact_where_binomials_overflow():
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 2), (4, -1, 2)])
def test_pass_at_k_refuses_impossible_counts(n, c, k):
    with pytest.raises(UserError):
        pass_at_k(n, c, k)


def test_one_sample_per_problem_gets_the_wilson_interval():
    # Wilson for 3 of 10 at 95 %, z = 1.959964: centre (3 + z^2/2) / (10 + z^2), computed by hand.
    interval = mean_interval([[1.0]] * 3 + [[0.0]] * 7)
    assert interval == pytest.approx({"mean": 0.3, "low": 0.107789, "high": 0.603222, "n": 10}, abs=1e-5)


def test_the_problem_is_the_unit_of_the_interval():
    """Eight identical samples of a problem are one observation: the interval must not shrink with them."""
    rng = np.random.default_rng(0)
    solved = (rng.random((60, 1)) < 0.4).astype(float)
    single, repeated = mean_interval(solved), mean_interval(np.repeat(solved, 8, axis=1))
    assert repeated["n"] == 60
    assert repeated["high"] - repeated["low"] == pytest.approx(single["high"] - single["low"], rel=0.1)


def test_bootstrap_interval_agrees_with_the_normal_approximation():
    values = np.random.default_rng(1).random((400, 4))
    interval = mean_interval(values)
    error = values.mean(axis=1).std(ddof=1) / 20
    assert interval["low"] == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval["high"] == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_interval_is_the_same_on_every_call():
    values = np.random.default_rng(2).random((30, 3))
    assert mean_interval(values) == mean_interval(values)


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("problems", [1, 2, 50])
def test_equal_problems_still_get_a_finite_interval_with_width(value, problems):
    interval = mean_interval(np.tile([1.0, 0.0, 0.0, 0.0] if value == 0.25 else [value] * 4, (problems, 1)))
    assert interval["mean"] == value
    assert 0.0 <= interval["low"] <= value <= interval["high"] <= 1.0
    assert interval["high"] - interval["low"] > 0.01


@pytest.mark.parametrize("values", [[], [[]], [1.0, 0.0], [[1.2]], [[-0.1]], [[float("nan")]]])
def test_interval_refuses_what_is_no_table_of_shares(values):
    with pytest.raises(UserError):
        mean_interval(values)


def test_majority_vote_by_hand():
    answers = [["4", "4", "7"], ["1", "2", "3"], [None, None, "9"], [None, None, None]]
    correct = [[True, True, False], [False, True, False], [False, False, True], [False, False, False]]
    assert maj_at_k(answers, correct, 3) == pytest.approx([1.0, 1 / 3, 1.0, 0.0])


def test_majority_vote_averages_disjoint_blocks():
    """Four samples hold two votes of two; a fifth belongs to no full vote."""
    answers = [["4", "4", "7", "7", "4"]]
    assert maj_at_k(answers, [[True, True, False, False, True]], 2) == pytest.approx([0.5])


def test_equal_answers_with_different_verdicts_vote_as_one():
    for correct in ([True, False, False], [False, True, False]):
        assert maj_at_k([["7", "7", "5"]], [correct], 3) == pytest.approx([0.5])


def test_majority_vote_refuses_ragged_answers_and_large_k():
    with pytest.raises(UserError):
        maj_at_k([["1", "2"], ["1"]], [[True, False], [True, False]], 2)
    with pytest.raises(UserError):
        maj_at_k([["1", "2"]], [[True, False]], 3)


def test_summary_holds_each_metric_and_is_json():
    correct = np.array([[True, False, False, False], [True, True, True, True], [False] * 4])
    summary = summarize(correct, ks=(1, 2, 4, 8), answers=[["a", "b", "b", "c"], ["a"] * 4, ["c"] * 4])
    assert list(summary) == ["accuracy", "pass@1", "pass@2", "pass@4", "maj@2", "maj@4"]
    means = {name: metric["mean"] for name, metric in summary.items()}
    expected = {"accuracy": 5 / 12, "pass@1": 5 / 12, "pass@2": 0.5, "pass@4": 2 / 3, "maj@2": 1.25 / 3, "maj@4": 1 / 3}
    assert means == pytest.approx(expected)
    assert json.loads(json.dumps(summary)) == summary


def test_closing_table_shows_values_intervals_and_factor():
    before = {"accuracy": {"mean": 0.1, "low": 0.05, "high": 0.15, "n": 200}, "mean_length": 200.0, "truncated": 0.0}
    after = {"accuracy": {"mean": 0.25, "low": 0.2, "high": 0.3, "n": 200}, "mean_length": 150.0, "truncated": 0.01}
    lines = closing_table({"metrics": before}, {"metrics": after}).splitlines()
    assert lines[0].split() == ["metric", "before", "after", "factor"]
    assert lines[2] == "accuracy     10.0 % [5.0, 15.0]  25.0 % [20.0, 30.0]  2.50x"
    assert lines[3].split() == ["mean_length", "200", "150", "0.75x"]
    assert lines[4].split() == ["truncated", "0.0", "%", "1.0", "%", "-"]
    assert "200 problems" in lines[-1]


def test_closing_table_marks_what_one_side_lacks():
    lines = closing_table(None, {"accuracy": 0.5, "note": "text", "pass@1": 0.5}).splitlines()
    assert lines[2].split() == ["accuracy", "-", "50.0", "%", "-"]
    assert len(lines) == 3


def test_records_are_grouped_by_problem_in_their_order():
    records = [{"id": id, "prompt": prompt, "right": place} for place, (id, prompt) in enumerate(["bx", "ax", "by"])]
    assert list(by_problem(records, itemgetter("right")).items()) == [("b", [0, 2]), ("a", [1])]
    assert by_problem(records, itemgetter("id"), itemgetter("prompt")) == {"x": ["b", "a"], "y": ["b"]}
