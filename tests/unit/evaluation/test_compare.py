"""Comparing two evaluations pairs them by problem; judging again changes what the grader changed and nothing else."""

import json

import numpy as np
import pytest
from scipy import stats

from common.errors import UserError
from evaluation.compare import compare, compare_table, paired_difference, read_comparable, read_report, regrade
from evaluation.evaluate import record_summary
from evaluation.tasks import TASKS, eval_task
from rewards.answer import grade_number
from rewards.grade import TIERS

PERFECT = "<reasoning>\nx\n</reasoning>\n<answer>\n{}\n</answer>"


def report_of(answers, task="gsm8k", golds=None):
    records = []
    for index, answer in enumerate(answers):
        gold = str((golds or range(len(answers)))[index])
        row = {"id": index, "pass": "main", "sample": 0, "question": f"Q{index}?", "gold": gold, "completion": answer}
        records.append(row | {"length": 3, "truncated": False} | record_summary(grade_number(answer, gold)))
    return {"task": task, "records": records, "metrics": {}}


def test_difference_is_paired_and_has_mcnemars_exact_p():
    first, second = [1, 1, 0, 0, 1, 0, 0, 0, 0, 0], [1, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    found = paired_difference(first, second)
    assert found["difference"] == pytest.approx(0.4) and (found["only_first"], found["only_second"]) == (1, 5)
    assert found["p"] == pytest.approx(stats.binomtest(5, 6).pvalue) and found["n"] == 10
    assert found["low"] < 0.4 < found["high"]


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, 400)
    second = np.where(rng.random(400) < 0.05, 1, first)
    found = paired_difference(first, second)
    assert found["high"] - found["low"] < 0.06 and found["low"] > 0


def test_equal_evaluations_differ_by_nothing():
    found = paired_difference([1, 0, 1], [1, 0, 1])
    assert found["difference"] == 0 and found["p"] == 1.0


@pytest.mark.parametrize(("samples", "name"), [(1, "McNemar's exact test"), (4, "sign test on the share")])
def test_the_test_is_named_by_what_was_compared(samples, name):
    first, second = (report_of([PERFECT.format(n * right) for n in range(6)]) for right in (1, 0))
    for report in (first, second):
        report["records"] = [row | {"sample": number} for row in report["records"] for number in range(samples)]
    assert name in compare_table(compare(first, second))


def test_compare_matches_problems_whatever_their_order():
    first, second = report_of([PERFECT.format(n) for n in range(6)]), report_of([PERFECT.format(0)] * 6)
    second["records"].reverse()
    assert compare(second, second)["strict"]["only_first"] == 0
    same = report_of([PERFECT.format(0)] * 6)
    assert compare(same, second)["strict"]["only_first"] == compare(same, second)["strict"]["only_second"] == 0
    found = compare(first, second)
    assert found["strict"]["difference"] == pytest.approx(-5 / 6) and found["strict"]["only_first"] == 5
    table = compare_table(found)
    assert "-83.3 %" in table and "6 problems" in table


def test_problems_without_a_question_are_told_apart_by_their_prompt():
    first, second = (report_of([PERFECT.format(7)] * 3, golds=[7, 7, 7]) for _ in range(2))
    for report in (first, second):
        for record in report["records"]:
            record["prompt"] = record.pop("question")
    assert compare(first, second)["medium"]["n"] == 3


@pytest.mark.parametrize(
    "other, words",
    [(report_of(["1"] * 5), "different problems"), (report_of(["1"] * 6, task="svamp"), "different tasks")],
)
def test_evaluations_of_something_else_are_refused(other, words):
    with pytest.raises(UserError, match=words):
        compare(report_of(["1"] * 6), other)


def test_a_ranking_is_not_compared_with_samples():
    ranking = {"task": "gsm8k", "records": [{"question": "Q0?", "gold": "0", "rank": True, "rank_per_byte": True}]}
    with pytest.raises(UserError, match="one ranks options .* and the other has samples"):
        compare(ranking, report_of([PERFECT.format(0)]))


def test_regrading_counts_the_verdicts_that_change_and_keeps_the_rest():
    report = report_of([PERFECT.format(n) for n in range(4)])
    again, changed = regrade(report)
    assert changed == 0 and again["records"] == report["records"]
    report["records"][2]["medium"] = report["records"][2]["correct"] = False
    again, changed = regrade(report)
    assert changed == 1 and again["records"][2]["medium"] and again["metrics"]["accuracy"]["mean"] == 1.0


@pytest.mark.parametrize("content", ["", "[]", '{"task": "gsm8k", "records": []}', "{nonsense"])
def test_a_file_that_is_no_evaluation_is_refused(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match="x.json"):
        read_report(tmp_path / "x.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_report(tmp_path / "nowhere.json")


def test_records_without_tiers_are_judged_again_before_they_are_compared(tmp_path):
    report = report_of([PERFECT.format(n) for n in range(3)])
    bare = [{key: value for key, value in record.items() if key not in TIERS} for record in report["records"]]
    path = tmp_path / "bare.json"
    path.write_text(json.dumps(report | {"records": bare}))
    with pytest.raises(UserError, match="without 'strict'.*--regrade"):
        read_report(path, needed=TIERS)
    again, changed = regrade(read_report(path))
    assert changed == 3 and compare(again, report)["strict"]["difference"] == 0


def test_records_that_cannot_be_judged_are_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"task": "gsm8k", "records": [{"id": 0, "completion": "1"}]}))
    with pytest.raises(UserError, match="without 'length'"):
        read_report(path)
    report = report_of([PERFECT.format(0)])
    del report["records"][0]["gold"]
    with pytest.raises(UserError, match="neither gold nor target"):
        regrade(report)


@pytest.mark.parametrize(
    ("record", "report", "said"),
    [
        ({"gold": 5}, {}, "gold of record 1, counted from 0, holds '5', but must be a text"),
        ({"gold": None}, {}, "gold of record 1"),
        ({"strict": None}, {}, "strict of record 1, .*must be true or false"),
        ({"length": None}, {}, "length of record 1, .*must be a whole number"),
        ({"id": [1]}, {}, "id of record 1"),
        ({"pass": ["main"]}, {}, "pass of record 1"),
        ({}, {"settings": None}, "settings of the report holds 'None', but must be an object"),
        ({}, {"task": ["gsm8k"]}, "task of the report"),
        ({}, {"passes": []}, "has passes that are no objects, or none"),
    ],
)
def test_fields_that_hold_something_else_are_named_when_they_are_read(record, report, said, tmp_path):
    whole = report_of([PERFECT.format(n) for n in range(2)]) | report
    whole["records"][1] |= record
    (tmp_path / "x.json").write_text(json.dumps(whole))
    for read in (read_report, read_comparable):
        with pytest.raises(UserError, match=f"x.json'.* {said}"):
            read(tmp_path / "x.json")


@pytest.mark.parametrize(
    "record", [{"completion": None, "numbers": [1, 2], "target": 3}, {"completion": "x", "target": 3}]
)
def test_a_record_that_cannot_be_judged_again_is_named(record):
    with pytest.raises(UserError, match="record 0, counted from 0, cannot be judged"):
        regrade({"task": "countdown", "records": [record], "metrics": {}})


def test_reports_of_every_training_script_can_be_judged_again():
    box = "<answer>\\frac12</answer>"
    record = report_of([box])["records"][0] | {"gold": "0.5", "medium": False}
    again, changed = regrade({"task": "math", "records": [record], "metrics": {}})
    assert changed == 1 and again["records"][0]["medium"]


def test_every_task_has_a_grader_and_unknown_ones_are_named():
    for task in TASKS.values():
        assert callable(task.grade)
    with pytest.raises(UserError, match="gsm8k, math500, svamp, countdown"):
        eval_task("aime")


def test_countdown_is_judged_on_the_problems_that_training_holds_out(tmp_path):
    task = eval_task("countdown")
    rows = task.add_prompts(task.load(task.source, task.split), "reasoning", 0, 0)
    assert len(rows) == 512 and rows[0]["prompt"][-1]["role"] == "user"
    with pytest.raises(UserError, match="haiku"):
        task.add_prompts(rows, "haiku", 0, 0)
    with pytest.raises(UserError, match="num_shots=2"):
        task.add_prompts(rows, "reasoning", 2, 0)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"nums": [1, 2], "target": 3}) + "\n")
    assert task.load(str(path), None)[0]["numbers"] == [1, 2]


def test_evaluations_that_were_judged_differently_are_not_compared():
    few, many = (report_of([PERFECT.format(0)]) | {"settings": {"hidden_databases": count}} for count in (0, 8))
    with pytest.raises(UserError, match="judged differently, with --hidden_databases=0 and --hidden_databases=8"):
        compare(few, many)
    assert compare(few, few)["medium"]["difference"] == 0
