"""iGSM's scorer: the last box of the one answer block, integers only."""

import re

import pytest

from rewards.boxes import last_outer_box
from rewards.igsm import IgsmReward, grade_igsm, igsm_rewards, read_integer


def answered(text):
    return f"<think>\nwork\n</think>\n<answer>\n{text}\n</answer>"


def reference_score(completion: str, answer: int) -> int:
    """Score of BRIDGE's program: 1 where the first box anywhere holds exactly the answer's digits, else 0."""
    box = re.search(r"\\boxed\{([^}]*)\}", completion)
    return int(box is not None and box[1] == str(answer))


# completion, answer, BRIDGE's score, ours
VECTORS = [
    (answered(r"So it is \boxed{24}."), 24, 1, 1),
    (answered(r"\boxed{ 24 }"), 24, 0, 1),
    ("<think>\\boxed{7}</think><answer>\\boxed{24}</answer>", 24, 0, 1),
    ("<think>\\boxed{24}</think><answer>\\boxed{7}</answer>", 24, 1, 0),
    (answered(r"\boxed{24.0}"), 24, 0, 0),
    (answered(r"\boxed{+24}"), 24, 0, 0),
    (answered(r"\boxed{024}"), 24, 0, 0),
    (answered(r"\boxed{-114}"), -114, 1, 1),
    (answered("\\boxed{\u2212114}"), -114, 0, 1),
    (answered(r"\boxed{1,234}"), 1234, 0, 1),
    (answered("24"), 24, 0, 0),
    (answered(r"\boxed{\boxed{24}}"), 24, 0, 0),
    (answered(r"\boxed{"), 24, 0, 0),
    (answered(r"\boxed{24"), 24, 0, 0),
    (answered(rf"\boxed{{{'9' * 5000}}}"), 24, 0, 0),
    ("<think>work</think><answer>\\boxed{24}", 24, 1, 0),
    (answered(r"\boxed{24} no, \boxed{7}"), 24, 1, 0),
    (answered(r"\boxed{7} no, \boxed{24}"), 24, 0, 1),
    (answered(r"\boxed{0}"), 0, 1, 1),
    (answered(r"\boxed{-0}"), 0, 0, 1),
    ("", 0, 0, 0),
]


@pytest.mark.parametrize(("completion", "answer", "theirs", "ours"), VECTORS)
def test_vectors(completion, answer, theirs, ours):
    assert grade_igsm(completion, answer).medium == ours
    # BRIDGE's pattern ends at the first brace, so a box in a box reads "\boxed{24".
    assert reference_score(completion, answer) == theirs


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        (answered(r"\boxed{24}"), "correct"),
        (answered(r"\boxed{25}"), "wrong"),
        (answered(r"\boxed{x}"), "unparsable"),
        (answered("24"), "no_answer"),
        (answered(r"\boxed{24}") + answered(r"\boxed{24}"), "multiple_answers"),
        ("no tags", "no_answer"),
    ],
)
def test_verdicts(completion, verdict):
    assert grade_igsm(completion, 24).verdict == verdict


def test_each_tier_contains_the_one_before():
    shaped = grade_igsm(answered(r"\boxed{24}"), 24)
    assert shaped.strict and shaped.medium and shaped.loose and shaped.answer == "24"
    unshaped = grade_igsm(answered(r"\boxed{24}") + " bye", 24)
    assert not unshaped.strict and unshaped.medium and unshaped.loose
    for text in ("The answer is 24.", r"\boxed{24}", "<think>x</think> So 24", answered("24")):
        grade = grade_igsm(text, 24)
        assert not grade.medium and grade.loose and grade.answer == "24"
    assert not grade_igsm("<think>24</think> So 7", 24).loose
    assert grade_igsm("<think>So it is 24", 24).loose


def test_reading_integers():
    assert read_integer("9" * 12) == 10**12 - 1
    assert read_integer("9" * 13) is None
    for text in ("", "-", "1,23", "1,2345", "٣", "1 000", "0x10", "1_000", "²"):
        assert read_integer(text) is None


def test_last_outer_box():
    assert last_outer_box(r"\boxed{1} \boxed{2}") == "2"
    assert last_outer_box(r"\boxed{1} \boxed{2") == "1"
    assert last_outer_box(r"\boxed{a\boxed{2}}") == r"a\boxed{2}"
    assert last_outer_box("none") is None


def test_reward_column_pays_and_logs():
    completions = [answered(r"\boxed{24}"), [{"role": "assistant", "content": answered(r"\boxed{7}")}], ""]
    extra, metrics = {}, {}
    rewards = IgsmReward()(
        ["p"] * 3, completions, answer=[24, 24, 24], log_extra=extra.__setitem__, log_metric=metrics.__setitem__
    )
    assert rewards == [1.0, 0.0, 0.0]
    assert extra == {"verdict": ["correct", "wrong", "no_answer"], "answer": ["24", "7", ""]}
    assert metrics["accuracy/medium"] == pytest.approx(1 / 3)
    assert metrics["verdict/unparsable"] == 0.0


def test_reward_columns_are_correctness_and_format():
    columns = igsm_rewards()
    assert [column.__name__ for column in columns] == ["correctness", "format"]
    assert columns[1](["p"], [answered("x")]) == [1.0]
    assert columns[1](["p"], ["x"]) == [0.0]
