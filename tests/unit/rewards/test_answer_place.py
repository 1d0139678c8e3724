"""Where the answer stands: the prompt type decides it, for rewards, records, votes and counted answers alike."""

import tracemalloc

import pytest
from datasets import Dataset

from common.errors import UserError
from common.thinking import opened_thinking
from evaluation.compare import regrade
from evaluation.evaluate import record_of, summarize_records
from evaluation.generate import Sample
from evaluation.graders import judge_row
from rewards.answer import has_latex
from rewards.boxes import last_box, last_outer_box
from rewards.correctness import CorrectnessReward
from rewards.cosine import CosineReward
from rewards.format import AnswerPlace, is_well_formed, placed_answer
from rewards.graders import GRADERS
from rewards.gsm8k import IntegerReward, gsm8k_rewards, math_rewards
from rewards.latex import last_boxes
from tasks.math.prompts import PROMPT_TYPES, add_prompts, place_of
from tests.quick import assert_quick

BOX, TAGS = AnswerPlace.BOX, AnswerPlace.TAGS
BOXED, TAGGED = r"So the sum is \boxed{5}.", "<think>\n2+3\n</think>\n<answer>\n5\n</answer>"


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (BOXED, "5"),
        (r"\boxed{4}, no: \boxed{5}", "5"),
        (r"\boxed{5} \boxed{", "5"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{5 + \boxed{3}}", r"5 + \boxed{3}"),
        (r"\fbox{5}", "5"),
        (r"<think>\boxed{4}</think> It is \boxed{5}", "5"),
        (r"prefilled \boxed{4}</think>\boxed{5}", "5"),
        (r"<answer>\boxed{5}</answer>", "5"),
        (r"\boxed{}", ""),
        (r"<think>\boxed{5}</think> done", None),
        (r"<think> never closed \boxed{5}", None),
        (r"\boxed{5", None),
        ("5", None),
        ("<answer>5</answer>", None),
        ("", None),
    ],
)
def test_the_answer_in_a_box_is_the_last_whole_one_outside_the_thinking(text, content):
    found = placed_answer(text, BOX)
    assert (None if found is None else found.text) == content and not (found and found.repeated)


@pytest.mark.parametrize(
    ("text", "is_asked_for"),
    [
        (BOXED, True),
        ("2 + 3 = 5\n\\[\n\\boxed{5}\n\\]\n", True),
        ("<think>\nwork \\boxed{4}\n</think>\nIt is \\boxed{5}", True),
        ("work</think>\n\\boxed{5}", True),
        (r"\boxed{5} and \boxed{5}", False),
        ("\\boxed{5}\nI hope that helps.", False),
        ("<think>a</think><think>b</think>\\boxed{5}", False),
        ("<think>a</reasoning>\\boxed{5}", False),
        ("a <think>b</think>\\boxed{5}", False),
        ("\\boxed{5} <think>more", False),
        (r"<answer>\boxed{5}</answer>", False),
        ("5", False),
    ],
)
def test_a_boxed_completion_is_well_formed_with_one_box_in_its_last_line(text, is_asked_for):
    assert is_well_formed(text, BOX) == is_asked_for


@pytest.mark.fault("F14")
def test_nested_boxes_and_tags_take_linear_time():
    for text in (r"\boxed{" * 5_000 + "}" * 5_000, "<think>" * 50_000 + r"\boxed{5}", r"\boxed{5}" * 5_000):
        for read in (placed_answer, is_well_formed):
            assert_quick(lambda read=read, text=text: read(text, BOX))


@pytest.mark.fault("F14")
@pytest.mark.parametrize(
    "read", [last_box, last_outer_box, last_boxes, has_latex, lambda text: placed_answer(text, BOX)]
)
def test_nested_boxes_take_linear_memory(read):
    """The contents of all boxes would be 100 MB here, and 10 GB at ten times the depth."""
    text = r"\boxed{" * 5_000 + "}" * 5_000
    tracemalloc.start()
    try:
        read(text)
        assert tracemalloc.get_traced_memory()[1] < 100 * len(text)
    finally:
        tracemalloc.stop()


def rows_of(prompt_type):
    return add_prompts(Dataset.from_list([{"question": "2 + 3?", "gold": "5", "gold_text": "5"}]), prompt_type)


def paid(columns, rows, text):
    data = {name: rows[name] for name in rows.column_names if name != "prompt"}
    return {
        column.__name__: column(prompts=rows["prompt"], completions=[text], completion_ids=[[]], **data)[0]
        for column in columns
    }


@pytest.mark.parametrize("grader", ["number", "latex"])
@pytest.mark.parametrize("prompt_type", PROMPT_TYPES)
def test_reward_cosine_and_evaluation_read_what_the_prompt_asks_for_and_nothing_else(prompt_type, grader):
    rows, grade = rows_of(prompt_type), GRADERS[grader]
    right, other = (BOXED, TAGGED) if place_of(prompt_type) is BOX else (TAGGED, BOXED)
    columns = [CorrectnessReward(grade), CosineReward(grade, 100), IntegerReward()]
    assert paid(columns, rows, right) == {"correctness": 1.0, "cosine": 1.0, "integer": 0.5}
    assert paid(columns, rows, other) == {"correctness": 0.0, "cosine": -1.0, "integer": 0.0}
    records = [
        record_of(rows[0], grade, Sample(text, 5, False), {"id": 0, "pass": "main", "sample": number})
        for number, text in enumerate((right, other))
    ]
    assert [record["correct"] for record in records] == [True, False]
    report, changed = regrade({"task": "math500" if grader == "latex" else "gsm8k", "records": records})
    assert changed == 0 and report["metrics"]["accuracy"]["mean"] == 0.5


def test_votes_and_counted_answers_read_the_box_whatever_is_said_before():
    rows, grade, logged = rows_of("qwen25-math-cot"), GRADERS["number"], {}
    texts = ["The answer is 5. No, it is \\boxed{7}.", "The answer is 7. No, it is \\boxed{5}.", "The answer is 5."]
    CorrectnessReward(grade)(["p"] * 3, texts, ["5"] * 3, answer_place=["box"] * 3, log_extra=logged.__setitem__)
    assert logged["answer"] == ["7", "5", "5"] and logged["verdict"] == ["wrong", "correct", "no_answer"]
    records = [
        record_of(rows[0], grade, Sample(text, 5, False), {"id": 0, "pass": "main", "sample": number})
        for number, text in enumerate([texts[0], texts[0], texts[2]])
    ]
    assert summarize_records(records)["maj@3"]["mean"] == 0.0, "7 has two votes, and is wrong whatever else was said"


def test_a_box_prompt_pays_for_one_box_and_not_for_tags_it_does_not_ask_for():
    rows = rows_of("qwen25-math-cot")
    for build in (
        lambda: gsm8k_rewards(GRADERS["number"], False, False, 9, BOX),
        lambda: math_rewards(None, False, 9, BOX),
    ):
        shapes = [column for column in build() if column.__name__ not in ("correctness", "integer", "steps")]
        assert paid(shapes, rows, BOXED) == {"box_format": 0.5} and paid(shapes, rows, TAGGED) == {"box_format": 0.0}


def test_case_files_may_say_where_the_answer_stands():
    row = {"id": "a", "gold": "5", "prediction": BOXED, "expected_bool": True, "options": {"tier": "medium"}}
    assert [case.got for case in judge_row(1, row)] == [False]
    assert [case.got for case in judge_row(1, row | {"answer_place": "box"})] == [True]
    with pytest.raises(UserError, match="line 1: answer_place='margin' is unknown; use one of tags, box"):
        judge_row(1, row | {"answer_place": "margin"})


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|assistant|><think>\n", "<think>\n"),
        ("Assistant: <think>", "<think>"),
        ("Response:<reasoning>", "<reasoning>"),
        ("<|assistant|><think>\n\n</think>\n\n", ""),
        ("Write <think> first.", ""),
        ("", ""),
    ],
)
def test_a_prompt_opens_the_thinking_where_it_ends_in_the_tag(prompt, opened):
    assert opened_thinking(prompt) == opened


def test_records_are_graded_with_the_tag_that_their_prompt_ended_in():
    rows, grade = rows_of("think"), GRADERS["number"]
    identity = {"id": 0, "pass": "main", "sample": 0}
    ended = record_of(rows[0], grade, Sample("2+3\n</think>\n<answer>5</answer>", 5, False, "<think>\n"), identity)
    endless = record_of(rows[0], grade, Sample("2+3 <answer>5</answer>", 5, False, "<think>\n"), identity)
    twice = record_of(rows[0], grade, Sample(TAGGED, 5, False, "<think>\n"), identity)
    assert ended["strict"] and not twice["well_formed"] and not endless["medium"]
    _, changed = regrade({"task": "gsm8k", "records": [ended, endless, twice]})
    assert changed == 0
