"""Rows of GSM8K, SVAMP and MATH: golds that graders can read, and sources that are refused with the row's index."""

import json
import re
from pathlib import Path

import pytest
from datasets import Dataset

from common.errors import UserError
from evaluation.tasks import eval_task
from tasks.math.problems import load_gsm8k, load_gsm8k_solutions, load_math, load_svamp

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_gsm8k_gold_is_a_number_whatever_its_commas(tmp_path):
    rows = load_gsm8k(
        write(
            tmp_path / "rows.jsonl",
            {"question": "A?", "answer": "First 7 #### is not the end.\n#### 1,080"},
            {"question": "B?", "answer": "#### -3"},
        )
    )
    assert rows["gold"] == ["1080", "-3"] and rows["gold_text"] == ["1,080", "-3"]
    assert rows["id"] == [0, 1] and rows["question"] == ["A?", "B?"]


def test_solution_without_steps_stops_the_load_with_its_row(tmp_path):
    rows = [{"question": "A?", "answer": "Add.\n#### 1"}, {"question": "B?", "answer": " <<1+1=2>>\n#### 2"}]
    with pytest.raises(UserError, match="row 1 of .* has no steps"):
        load_gsm8k_solutions(write(tmp_path / "r.jsonl", *rows))


@pytest.mark.fault("F17")
@pytest.mark.parametrize("answer, words", [("It is 7.", "no ####"), ("#### seven", "'seven', which is not a number")])
def test_unreadable_gold_stops_the_load_with_its_row(tmp_path, answer, words):
    source = write(tmp_path / "r.jsonl", {"question": "A?", "answer": "#### 1"}, {"question": "B?", "answer": answer})
    with pytest.raises(UserError, match=f"row 1 of .*{words}"):
        load_gsm8k(source)


def test_wrong_columns_are_named(tmp_path):
    with pytest.raises(UserError, match="lacks the column.*answer; it has question, reply"):
        load_gsm8k(write(tmp_path / "rows.jsonl", {"question": "A?", "reply": "#### 1"}))


def test_numina_gold_is_the_last_box_of_the_solution(tmp_path):
    source = write(
        tmp_path / "rows.jsonl",
        {"problem": "A?", "solution": "Not \\boxed{1} but \\boxed{\\frac{1}{\\sqrt{2}}}.", "messages": []},
    )
    assert load_math(source)["gold"] == ["\\frac{1}{\\sqrt{2}}"]
    unbraced = write(tmp_path / "unbraced.jsonl", {"problem": "A?", "solution": "So $x = \\boxed 2$ and $y$ is 3."})
    assert load_math(unbraced)["gold"] == ["2"]
    with pytest.raises(UserError, match="row 0 .*no .boxed"):
        load_math(write(tmp_path / "other.jsonl", {"problem": "A?", "solution": "It is 4."}))


def test_any_file_of_questions_and_answers(tmp_path):
    rows = load_math(write(tmp_path / "rows.jsonl", {"question": "A?", "answer": 4}, {"question": "B?", "answer": 5}))
    assert rows["gold"] == ["4", "5"]
    with pytest.raises(UserError, match="row 0 .*empty answer"):
        load_math(write(tmp_path / "empty.jsonl", {"question": "A?", "answer": " "}))


UNREADABLE = {
    "null": (None, "no answer .null."),
    "truth value": (True, "the answer True, which is neither a text nor an exact number"),
    "mapping": ({"value": 12, "unit": "m"}, "the answer .'value': 12, 'unit': 'm'., which is neither"),
    "list": (["12"], r"the answer \['12'\], which is neither"),
    "not a number": (float("nan"), "the answer nan, which is neither"),
    "a float that may be several integers": (1e20, r"the answer 1e\+20, which is neither"),
    "blank": (" \n", "an empty answer"),
    "nothing but marks": ("$.$", "the grader cannot read"),
    "half a fraction": ("\\frac{1}{2", r"the gold answer '.*frac\{1\}\{2', which the grader cannot read"),
    "a whole solution": ("so " * 200, "the grader cannot read .*longer than 512"),
    "a solution of GSM8K": ("3 and 4 are 7.\n#### 7", "worked solution .*GSM8K.* run_gsm8k.py"),
}


@pytest.mark.fault("F17")
@pytest.mark.parametrize("answer, words", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("load", [load_math, load_gsm8k, load_svamp, eval_task("igsm").load])
def test_a_gold_that_no_answer_can_equal_stops_the_load_with_row_and_value(load, answer, words, tmp_path):
    good = {"load_gsm8k": "#### 12"}.get(getattr(load, "__name__", ""), 12)
    rows = [{"Body": "B", "Question": "A?", "question": "A?"} | dict.fromkeys(("answer", "Answer"), good)] * 2
    bad = rows[0] | dict.fromkeys(("answer", "Answer"), answer)
    if load is load_gsm8k and isinstance(answer, str):
        bad["answer"] = f"#### {answer}" if "####" not in answer else answer.replace("7", "seven")
    source = write(tmp_path / "rows.jsonl", *rows, bad)
    with pytest.raises(UserError, match=r"row 2 of .*rows.jsonl' \(line 3, rows counted from 0\)") as error:
        load(source, None)
    assert load is not load_math or re.search(words, str(error.value))


def test_numbers_are_golds_in_every_kind_of_file(tmp_path):
    rows = Dataset.from_dict({"question": ["A?", "B?", "C?"], "answer": [12.0, 2.5, -3.0]})
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_json(tmp_path / "rows.json", lines=False)
    (tmp_path / "folder").mkdir()
    rows.to_json(tmp_path / "folder" / "train.jsonl")
    for name in ("rows.parquet", "rows.json", "folder"):
        assert load_math(str(tmp_path / name), "train")["gold"] == ["12", "2.5", "-3"]
    with pytest.raises(UserError, match="row 0 .* no #### before its final answer: '12'"):
        load_gsm8k(str(tmp_path / "rows.parquet"))


def test_the_box_of_an_answer_is_its_gold(tmp_path):
    rows = [{"question": "A?", "answer": answer} for answer in ("Hence $x=\\boxed{\\frac{1}{2}}$.", "$\\boxed{7}$")]
    assert load_math(write(tmp_path / "rows.jsonl", *rows))["gold"] == ["\\frac{1}{2}", "7"]


def test_a_row_is_named_by_its_line_or_by_its_place_in_the_split(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "A?", "answer": "1"}\n\n\n{"question": "B?", "answer": null}\n')
    with pytest.raises(UserError, match=r"row 1 of .*rows.jsonl' \(line 4, rows"):
        load_math(str(path), "train")
    with pytest.raises(UserError, match=r"row 0 of .*rows.jsonl' \(split train\[1:\], rows"):
        load_math(str(path), "train[1:]")
    (tmp_path / "folder").mkdir()
    path.rename(tmp_path / "folder" / "test.jsonl")
    with pytest.raises(UserError, match=r"row 1 of .*folder' \(split test, rows counted from 0\)"):
        load_math(str(tmp_path / "folder"), "test")


def test_a_row_without_a_question_is_named(tmp_path):
    for load, row in (
        (load_math, {"question": None, "answer": "1"}),
        (load_gsm8k, {"question": " ", "answer": "#### 1"}),
        (load_svamp, {"Body": None, "Question": "A?", "Answer": 1}),
    ):
        with pytest.raises(UserError, match="row 0 .*question"):
            load(write(tmp_path / "rows.jsonl", row), None)


@needs_shared
def test_every_real_gold_can_be_read():
    train, test = (load_gsm8k(str(SHARED / "gsm8k"), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (7473, 1319)
    golds = [*train["gold"], *test["gold"]]
    assert sum("," in text for text in [*train["gold_text"], *test["gold_text"]]) == 79 + 14
    assert all(gold.lstrip("-").isdigit() for gold in golds) and sum(gold[0] == "-" for gold in golds) == 5
    svamp = load_svamp(str(SHARED / "svamp" / "test.jsonl"), None)
    assert len(svamp) == 1000 and svamp[0]["gold"] == "145"
    assert svamp[0]["question"].endswith("groups. How big is each group of bananas?")
    assert len(load_math(str(SHARED / "math500" / "test.jsonl"))) == 500
