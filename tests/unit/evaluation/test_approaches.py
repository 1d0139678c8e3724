"""Known approaches: Coverage@N, Cover@tau, rare@k and what changed against the base, by vectors and by force."""

import json
from collections import Counter
from contextlib import nullcontext
from itertools import combinations
from random import Random

import numpy as np
import pytest
from datasets import Dataset

from common.errors import UserError
from evaluation.against_base import against_base, base_lines, chance_entries, slope_weights, trusted_ks
from evaluation.approaches import (
    approach_counts,
    approach_metrics,
    cover_at_tau,
    cover_metrics,
    coverage_at_n,
    distinct_metrics,
    group_columns,
    is_rare,
    rare_at_k,
)
from evaluation.evaluate import BASE, HeldOut, Pass, record_summary, summarize_records
from evaluation.generate import Decoding
from evaluation.options import EvalOptions
from evaluation.table import closing_table, format_metric, sample_note
from evaluation.tasks import TASKS
from intrinsic.flags.rarity import APPROACH_TASKS
from tasks.igsm.dataset import prompt
from tasks.igsm.solution import approach, grade_solution

LABELS = list("aabcbdac")  # eight right answers in four ways: 3, 2, 2 and 1
QUESTION = (
    "The number of each Oak Crate's Apple equals 3.\n"
    "The number of each Oak Crate's Pear equals 2 more than each Oak Crate's Apple.\n"
    "How many Pear does each Oak Crate have?"
)
SOLUTION = (
    "- It is stated that the number of each Oak Crate's Apple equals 3. Its letter is a. So a = 3.\n"
    "- Let b stand for the number of each Oak Crate's Pear. So b = 2 + a = 2 + 3 = 5.\n"
)
COMPLETION = f"<think>\n{SOLUTION}</think>\n<answer>\n\\boxed{{5}}\n</answer>"


def test_coverage_is_the_expected_number_of_approaches_in_n_samples():
    """The vector of the estimator's publication, then every subset of samples, wrong and unread ones among them."""
    counts = [approach_counts(LABELS, [True] * 8)]
    vector = {n: coverage_at_n(8, counts, n)[0] for n in (1, 2, 4, 8)}
    assert vector == pytest.approx({1: 1.0, 2: 1.8214, 4: 3.0, 8: 4.0}, abs=1e-4)
    labels, right = ["a", "a", "b", "c", None, "b"], [True, True, False, True, True, True]
    found = approach_counts(labels, right)
    assert found == Counter(a=2, c=1, b=1)
    pairs = [(label if is_right else None) for label, is_right in zip(labels, right, strict=True)]
    for n in range(1, 7):
        drawn = [len(set(subset) - {None}) for subset in combinations(pairs, n)]
        assert coverage_at_n(6, [found, Counter()], n) == pytest.approx([np.mean(drawn), 0.0])


def test_different_answers_and_texts_are_counted_per_problem():
    answers = [["a", "a", None, "b"], [None] * 4]
    found = distinct_metrics(answers=answers, texts=[["x", "y", "z", "w"], ["x"] * 4])
    assert (found["distinct_answers"]["mean"], found["distinct_texts"]["mean"]) == (1.0, 2.5)
    assert 1.0 <= found["distinct_texts"]["low"] <= 2.5 <= found["distinct_texts"]["high"] <= 4.0


def test_cover_is_the_share_of_problems_solved_that_often():
    """p_hat 1, .5, .25, 1/32 and 0 of 32 samples."""
    correct = np.array([[place < count for place in range(32)] for count in (32, 16, 8, 1, 0)])
    shares = {tau: cover_at_tau(correct, tau).mean() for tau in (1 / 32, 0.1, 0.25, 0.5)}
    assert shares == pytest.approx({1 / 32: 0.8, 0.1: 0.6, 0.25: 0.6, 0.5: 0.4})
    assert cover_at_tau(np.ones((1, 10), bool) & (np.arange(10) < 3), 0.3) == [1.0], "0.3 * 10 is above 3 in floats"
    assert list(cover_metrics(correct[:, :8])) == ["cover@0.25", "cover@0.5"], "what 8 samples can tell apart"
    assert cover_metrics(correct[:, :1]) == {}
    with pytest.raises(UserError, match="above 0"):
        cover_at_tau(correct, 0.0)


def test_rare_is_what_other_samples_say_and_its_estimate_is_the_share_of_subsets():
    reference = Counter(a=9, b=1)
    assert [is_rare(name, reference) for name in "abc"] == [False, True, True]
    assert is_rare("a", Counter()), "of a problem that was never solved"
    labels = ["a", "b", "a", None, "c", "a"]
    counts = [approach_counts(labels, [True] * 6)]
    for k in (1, 2, 5):
        force = np.mean([bool({"b", "c"} & set(subset)) for subset in combinations(labels, k)])
        assert rare_at_k(6, counts, [reference], k) == pytest.approx([force])


def test_the_slope_is_least_squares_on_the_logarithm_of_k():
    ks, base, run = (1, 8, 64), [0.2, 0.474, 0.924], [0.3, 0.55, 0.90]
    slope = slope_weights(ks) @ (np.array(run) - base)
    assert 100 * slope == pytest.approx(-2.98, abs=0.005)
    assert slope == pytest.approx(np.polyfit(np.log(ks), np.array(run) - base, 1)[0])
    assert trusted_ks(128) == [1, 4, 8, 16, 32, 64] and trusted_ks(64)[-1] == 32 and trusted_ks(8) == [1, 4]


def test_chance_entries_are_those_of_random_halves():
    right = [0, 1, 3]
    samples = [np.arange(6) < count for count in right]
    force = 0.0
    for verdicts in samples:
        halves = [set(half) for half in combinations(range(6), 3)]
        force += np.mean([verdicts.any() and not verdicts[list(half)].any() for half in halves])
    assert chance_entries(np.array(right), 3) == pytest.approx(force)


def report_of(rows, samples=8):
    """An evaluation from (approaches of the right samples) of each problem; the rest of ``samples`` are wrong."""
    records = []
    for identity, found in enumerate(rows):
        for number in range(samples):
            # Spread, so that either half of the samples holds every approach.
            way = found[number // 2] if number % 2 == 0 and number // 2 < len(found) else None
            verdict = {"medium": way is not None, "approach": way, "strict": False, "loose": way is not None}
            about = {"id": identity, "pass": "main", "sample": number, "prompt": f"Q{identity}", "answer": way}
            shape = {"verdict": "correct" if way else "wrong", "length": 1, "truncated": False, "well_formed": True}
            records.append(about | verdict | shape)
    return {"records": records, "decoding": {"samples": samples}, "task": "toy"}


def test_against_the_base_counts_problems_slopes_and_rare_ways():
    base = report_of([["a", "a", "a", "a"], [], ["a"], ["a", "b"], ["a", "a", "a", "b"]])
    policy = report_of([["b", "a", "b", "a"], ["a"], [], ["a", "b"], ["a", "a"]])
    found = against_base(base, policy)
    assert (found["entries"], found["exits"], found["samples"], found["problems"]) == (1, 1, 8, 5) and found["p"] == 1.0
    assert found["slope_ks"] == [1, 4] and found["shrinkage_slope"]["difference"] > 0
    # Problem 1, which the base never solved, has one rare answer of 8; in problem 0 "b" is rare, 2 of 8; problem 2 has
    # none; in problem 3 the base's first half has both ways; in problem 4 only its second half has "b", 1 of 4.
    assert found["rare@1"]["policy"] == pytest.approx((2 / 8 + 1 / 8) / 5)
    assert found["rare@1"]["base"] == pytest.approx(1 / 4 / 5)
    assert found["rare@1"]["difference"] == pytest.approx((3 / 8 - 1 / 4) / 5)
    json.dumps(found, allow_nan=False)
    lines = base_lines(found)
    assert len(lines) == 3 and "1 problems more, 1 fewer, of 5" in lines[1] and lines[2].startswith("rare@1")
    assert against_base(base, base)["shrinkage_slope"]["low"] is None
    assert against_base(report_of([["a"]], 4), report_of([["a"]], 4)) == {} == against_base(base, report_of([["a"]]))
    assert base_lines({}) == base_lines(None) == []


def test_the_slope_falls_where_what_is_gained_shrinks():
    """A policy that turns luck into certainty on half of the problems and loses the others."""
    rng = Random(0)
    base = report_of([["a"] * rng.choice((1, 2)) for _ in range(20)], samples=16)
    policy = report_of([["a"] * (8 if place % 2 else 0) for place in range(20)], samples=16)
    slope = against_base(base, policy)["shrinkage_slope"]
    assert slope["high"] < 0.0 and slope["low"] < slope["difference"] < slope["high"]


def test_an_evaluation_reports_approaches_where_its_task_tells_them():
    records = report_of([["a", "b", "a", "a"], ["c"]])["records"]
    metrics = summarize_records(records)
    assert metrics["right_approaches"]["mean"] == 1.5 and metrics["coverage@8"]["mean"] == 1.5
    assert metrics["coverage@4"]["mean"] == pytest.approx(np.mean([1 - 5 / 70 + 0.5, 0.5]))
    assert metrics["right_approaches"]["high"] <= 8 and metrics["right_approaches"]["n"] == 2
    assert metrics["cover@0.5"]["mean"] == 0.5
    assert format_metric("right_approaches", {"mean": 0.5, "low": 0.2, "high": 0.9}) == "0.5 [0.2, 0.9]", "no share"
    without = summarize_records([record | {"approach": None} for record in records])
    assert not any(name.startswith(("coverage", "right_approaches")) for name in without)
    same = approach_metrics(np.ones((2, 2)), [["a", "a"]] * 2, (1, 2))["right_approaches"]
    assert same["mean"] == 1.0 and same["low"] < 1.0 < same["high"], "an interval where no problem differs"


def test_later_evaluations_of_a_run_are_held_against_the_first(tmp_path, monkeypatch):
    base, policy = report_of([["a"], []]), report_of([["a"], ["a"]])
    monkeypatch.setattr("evaluation.evaluate.whole_weights", nullcontext)
    monkeypatch.setattr(HeldOut, "_records", lambda *others: policy["records"])
    held = HeldOut("toy", Dataset.from_list([{}, {}]), None, tmp_path, [Pass("main", Decoding(8, 1.0, 9))], 0)
    assert "against_base" not in held.evaluate(None, None, "after"), "there is no base yet"
    (tmp_path / f"{BASE}.json").write_text(json.dumps(base))
    report = held.evaluate(None, None, "after")
    assert report["against_base"]["entries"] == 1 and held.load("after") == report
    assert "1 problems more, 0 fewer" in closing_table(base | {"metrics": {}}, report)
    assert "against_base" not in held.evaluate(None, None, BASE)


def test_few_samples_are_said():
    assert sample_note({"decoding": {"samples": 128}}) == "" == sample_note({"accuracy": 1.0})
    assert "up to k = 4" in sample_note({"passes": [{"decoding": {"samples": 8}}]})
    assert "one sample" in sample_note({"decoding": {"samples": 1}}) and "128" in sample_note(
        {"decoding": {"samples": 1}}
    )
    assert EvalOptions().n == 1 and EvalOptions(temperature=1.0).n == 128 and EvalOptions(temperature=1.0, n=4).n == 4


def test_a_group_of_a_completions_file_knows_its_approaches():
    right = [True, True, True, False, True, False, False, False]
    columns = group_columns(["a", "b", "a", "c", None, "a", "b", "c"], right, 4)
    assert columns["right_approaches"] == [2] * 4 + [0] * 4
    assert columns["coverage@2"] == pytest.approx([1 - 1 / 6 + 0.5] * 4 + [0.0] * 4) and len(columns) == 2


def test_grades_name_the_approach_of_the_tasks_that_have_a_form():
    expression = {"numbers": [3, 4, 5], "target": 23, "prompt": "q"}
    assert TASKS["countdown"].grade("<answer>(5*4)+3</answer>", expression).approach == "3+4*5"
    whole = approach(prompt(QUESTION), COMPLETION)
    assert whole == "Oak Crate's Apple; Oak Crate's Pear <- Oak Crate's Apple"
    told = {name for name, task in TASKS.items() if task.grader == "countdown" or task.grade is grade_solution}
    assert told == set(APPROACH_TASKS)
    # As run_eval.py and a training run ask, and as a record of either keeps it.
    rows = [{"question": QUESTION}, *({"prompt": prompt(QUESTION, style)} for style in ("chat", "base"))]
    for row in (*rows, {"prompt": QUESTION}):
        grade = grade_solution(COMPLETION, row | {"gold": "5"})
        assert grade.medium and record_summary(grade)["approach"] == whole
    assert grade_solution("<answer>\\boxed{5}</answer>", {"question": QUESTION, "gold": "5"}).approach is None
