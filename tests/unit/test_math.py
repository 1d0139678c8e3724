"""Rows of GSM8K, SVAMP and MATH: golds that graders can read, and sources that are refused with the row's index."""

import json
from pathlib import Path

import pytest

from tasks.math import load_gsm8k, load_math, load_svamp
from training.errors import UserError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
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
