"""GSM8K's reward columns: the spec's vectors for the reference's arithmetic, and what the mended ones do instead."""

import pytest

from rewards.answer import grade_number
from rewards.correctness import CorrectnessReward
from rewards.cosine import CosineReward
from rewards.gsm8k import (
    IntegerReward,
    SoftFormatReward,
    StepsReward,
    StrictFormatReward,
    XmlCountReward,
    gsm8k_rewards,
    math_rewards,
)


def grade(text, row):
    return grade_number(text, row["gold"])


PERFECT = "<reasoning>\n2+2=4\n</reasoning>\n<answer>\n4\n</answer>\n"
ONE_LINE = "<reasoning>2+2=4</reasoning><answer>4</answer>"


def tagged(reasoning: str, answer: str, end: str = "\n") -> str:
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>{end}"


# text, gold -> xml_count, soft, strict, integer, correctness, cosine of the reference
LEGACY = {
    "perfect": (PERFECT, "4", (0.5, 0, 0.5, 0.5, 1, 0.921137)),
    "no last line break": (PERFECT[:-1], "4", (0.45, 0, 0, 0.5, 1, 0.923978)),
    "one line": (ONE_LINE, "4", (0, 0.5, 0, 0.5, 1, 0.937528)),
    "two-line reasoning": (tagged("first\nsecond", "4"), "4", (0.5, 0, 0, 0.5, 1, 0.900105)),
    "bare number": ("4", "4", (0, 0, 0, 0.5, 1, 0.999969)),
    "comma": (tagged("x", "1,000"), "1,000", (0.5, 0, 0.5, 0, 1, 0.921137)),
    "no comma": (tagged("x", "1000"), "1,000", (0.5, 0, 0.5, 0.5, 0, -0.923978)),
    "tail": (tagged("x", "4") + "z" * 100, "4", (0.3, 0, 0, 0.5, 1, 0.578863)),
    "long, no line break": (tagged("y" * 400, "4", end=""), "4", (0.055, 0, 0, 0.5, 1, 0.937528)),
}


def values(columns, text, gold, tokens=10):
    row = {"gold": [gold.replace(",", "")], "gold_text": [gold], "completion_ids": [[0] * tokens]}
    return [column(prompts=["p"], completions=[text], **row)[0] for column in columns]


@pytest.mark.parametrize("text, gold, expected", LEGACY.values(), ids=LEGACY.keys())
def test_legacy_rewards_match_the_reference(text, gold, expected):
    columns = gsm8k_rewards(grade, legacy=True, cosine=True, max_length=200)
    assert values(columns, text, gold) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("characters, expected", [(50, 0.926777), (200, 0.5), (300, 0.75), (400, 1.0)])
def test_legacy_cosine_has_a_period_in_characters(characters, expected):
    column = gsm8k_rewards(grade, legacy=True, cosine=True, max_length=200)[-1]
    text = "<answer>4</answer>" + "x" * (characters - 18)
    assert values([column], text, "4") == pytest.approx([expected], abs=1e-6)
    assert values([column], text, "5") == pytest.approx([-expected], abs=1e-6)


@pytest.mark.parametrize(
    "tokens, expected", [(0, 1.0), (50, 0.926777), (100, 0.75), (200, 0.5), (300, 0.5), (400, 0.5)]
)
def test_cosine_counts_tokens_and_is_clamped(tokens, expected):
    column = CosineReward(grade, 200)
    assert values([column], PERFECT, "4", tokens) == pytest.approx([expected], abs=1e-6)
    assert values([column], PERFECT, "5", tokens) == pytest.approx([-expected], abs=1e-6)


def test_mended_rewards_pay_what_the_prompt_asks_for():
    columns = gsm8k_rewards(grade, legacy=False, cosine=False, max_length=200)
    assert [column.__name__ for column in columns] == [
        "xml_count",
        "soft_format",
        "strict_format",
        "integer",
        "correctness",
    ]
    full = [0.5, 0.5, 0.5, 0.5, 1.0]
    assert values(columns, PERFECT, "4") == values(columns, PERFECT[:-1], "4") == full
    assert values(columns, tagged("first\nsecond", "1,000"), "1,000") == full
    assert values(columns, tagged("x", "1000"), "1,000") == full
    assert values(columns, ONE_LINE, "4") == [0.5, 0.5, 0, 0.5, 1.0]
    assert values(columns, "4", "4") == [0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "answer, is_integer", [("-3", True), ("1,080", True), ("+7", True), ("²", False), ("4.0", False), ("10,80", False)]
)
def test_integer_reward_reads_signs_and_thousands(answer, is_integer):
    assert values([IntegerReward()], tagged("x", answer), "4") == [0.5 * is_integer]


@pytest.mark.fault("F12")
def test_integer_reward_wants_one_answer():
    assert values([IntegerReward()], PERFECT + "<answer>4</answer>", "4") == [0]


def test_strict_wants_every_tag_on_its_line_and_nothing_else():
    strict = [StrictFormatReward()]
    assert values(strict, PERFECT, "4") == [0.5]
    assert values(strict, PERFECT.replace("reasoning", "think"), "4") == [0.5]
    for broken in (
        ONE_LINE,
        PERFECT + "more",
        "Sure.\n" + PERFECT,
        PERFECT + PERFECT,
        PERFECT.replace("</answer>", ""),
    ):
        assert values(strict, broken, "4") == [0]


def test_soft_wants_the_two_blocks_in_order_and_forgives_the_rest():
    soft = [SoftFormatReward()]
    assert values(soft, ONE_LINE + " and more", "4") == values(soft, PERFECT, "4") == [0.5]
    for broken in ("<answer>4</answer><reasoning>x</reasoning>", "<reasoning>x</reasoning> so <answer>4</answer>", "4"):
        assert values(soft, broken, "4") == [0]


@pytest.mark.parametrize("name", ["reasoning", "think"])
def test_a_second_opening_tag_behind_the_prompts_own_costs_every_shape_reward(name):
    columns = [StrictFormatReward(), SoftFormatReward(), XmlCountReward()]
    whole = PERFECT.replace("reasoning", name)
    opening, _, closed = whole.partition("\n")
    assert values(columns, whole, "4") == values(columns, closed, "4") == [0.5, 0.5, 0.5]
    assert values(columns, f"{opening}\n{whole}", "4") == [0, 0, 0.375]
    other = "<think>" if name == "reasoning" else "<reasoning>"
    assert values(columns[:2], f"{opening}\n{other}\n{closed}", "4") == [0, 0]


HOSTILE = {
    "empty": "",
    "tail": PERFECT + "z" * 20_000,
    "tag spray": "<answer>4</answer>" * 2_000,
    "open tags": "<reasoning>" * 20_000,
    "nul and surrogate": "\0\ud800<answer>\n4\n</answer>",
    "line breaks": "\n" * 20_000,
}


@pytest.mark.fault("F14")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_shape_rewards_are_bounded_whatever_the_text(text):
    columns = [*gsm8k_rewards(grade, False, False, 200)[:4], StepsReward()]
    paid = values(columns, text, "4")
    assert all(0 <= value <= 0.5 for value in paid[:4]) and 0 <= paid[4] <= 1


@pytest.mark.fault("F14")
def test_tail_costs_but_never_below_zero():
    assert values([XmlCountReward()], PERFECT + "z" * 100, "4") == pytest.approx([0.4])
    assert values([XmlCountReward()], PERFECT + "z" * 5_000, "4") == [0]


def test_steps_reward_counts_markers_up_to_three():
    steps = [StepsReward()]
    assert values(steps, "no marker", "4") == [0]
    assert values(steps, "Step 1: add\nStep 2: halve", "4") == pytest.approx([2 / 3])
    assert values(steps, "First, add. Then, halve. Finally, stop.\n- done\n2. over", "4") == [1.0]
    assert [column.__name__ for column in math_rewards(grade, True, 10)][-3:] == ["steps", "correctness", "cosine"]


def test_correctness_logs_tiers_verdicts_and_answers():
    extra, metrics = {}, {}
    column = CorrectnessReward(grade)
    texts = [PERFECT, "The answer is 4.", PERFECT + "<answer>4</answer>", tagged("x", "5")]
    paid = column(["p"] * 4, texts, ["4"] * 4, log_extra=extra.__setitem__, log_metric=metrics.__setitem__)
    assert paid == [1.0, 0, 0, 0]
    assert extra["verdict"] == ["correct", "no_answer", "multiple_answers", "wrong"]
    assert extra["answer"][0] == "4" and extra["answer"][3] == "5"
    assert metrics["accuracy/strict"] == metrics["accuracy/medium"] == 0.25 and metrics["accuracy/loose"] == 0.75
    assert metrics["verdict/wrong"] == 0.25
    # Processes gather metrics name by name: the names must not depend on what a process happens to see.
    alone = {}
    column(["p"], [PERFECT], ["4"], log_metric=alone.__setitem__)
    assert alone.keys() == metrics.keys() and alone["verdict/wrong"] == 0


@pytest.mark.fault("F18")
def test_a_grader_that_fails_stops_the_run_and_names_the_prompt():
    def broken(text, row):
        raise ArithmeticError("no verdict")

    with pytest.raises(ArithmeticError) as caught:
        CorrectnessReward(broken)(["How many?"], ["4"], ["4"])
    assert any("How many?" in note for note in caught.value.__notes__)
