"""Numbers and their grader: exactness, extraction, nested tiers, every authored case, hostile completions."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from rewards.answer import Verdict, find_answer, grade_number, has_latex
from rewards.boxes import complete_boxes
from rewards.number import MAX_LENGTH, parse_number

ROOT = Path(__file__).resolve().parents[3]
# Authored for this project and released as CC0-1.0.
CASES = ROOT / "tests" / "cases" / "gsm8k_answer_cases.jsonl"
GSM8K = ROOT / ".." / "shared" / "data" / "gsm8k"
REPEATABLE = settings(deadline=None, derandomize=True)


def read_rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answered(answer):
    return f"<reasoning>\nwork\n</reasoning>\n<answer>\n{answer}\n</answer>\n"


@pytest.mark.parametrize("case", read_rows(CASES), ids=lambda case: f"{case['id']}-{case['options']['kind']}")
def test_authored_case_gets_all_three_tiers_right(case):
    grade = grade_number(case["prediction"], case["gold"])
    assert [grade.strict, grade.medium, grade.loose] == [case["options"][t] for t in ("strict", "medium", "loose")]


@pytest.mark.parametrize(
    "text",
    ["18", "18.0", "018", "+18", "18.", "$18", "18 $", "\\$18.00", "€18", "US$18", "18 USD", "**18**", "`18`", '"18"']
    + ["18 dollars", "18 miles/hour", "18 cm", "18kg", "18 m²", "18\\text{ cm}^2", "18^\\circ", "$18$", "$$18$$"]
    + ["USD 18", "Rs. 18", "Rs 18", "18 p.m.", "18 a.m", "#### 18", "**#### 18**"]
    + ["\\(18\\)", "\\boxed{18}", "\\boxed{\\text{18}}", "(18)", "x = 18", "9 + 9 = 18", "36/2", "\\frac{36}{2}"]
    + ["x = 9 + 9 = 18", "x = 9 + 9\n= 18", "1,000 - 982 = 18", "9 m + 9 m = 18 m = 18", "x = 9 \\cdot y = 18"]
    + ["x = 9 + 9 \\\\ = 18", "x = 9+9\\\\&= 18"]
    + ["tax and tip = 18", "x = 9 + 9\nx = 18", "The sum of 9 and 9 = 18", "x = 1,000 - 982 = 18"]
    + [
        "1.8e1",
        "1.8 \\times 10^{1}",
        "１８",
        "18\u200b",
        "\u00a018\u00a0",
        "The answer is 18.",
        "≈ 18",
        "18 and counting",
    ],
)
def test_every_spelling_of_a_number_equals_it(text):
    assert parse_number(text) == 18


@pytest.mark.fault("F13")
@pytest.mark.parametrize(
    "text",
    ["1800", "0.18", "18%", "18 percent", "18.0001", "17.9999", "-18", "−18", "1 8", "1,8", "18 million", "18 hundred"]
    + ["18!", "18²", "1²8", "①8", "18½", "١٨", "18x", "18\\pi", "18^2", "18<b>", "18 ± 1", "18-20", "18:00", "12:18"]
    + ["18 or 20", "18 or twenty", "18, 20", "between 17 and 18", "17 to 18", "x = 18, y = 20", "x ≤ 18", "x != 18"]
    + ["4 or x=18", "4, x=18", "4,x=18", "4\nx=18", "x=2,y=18", "x=4,x=18", "x=2\ny=18", "x=2 y=18", "x=2\\\\y=18"]
    + ["x=2 \\\\ y=18", "4 \\\\ x=18"]
    + [
        "x_1=4,x_2=18",
        "x_1=4 x_2=18",
        "a+b=20,a=18",
        "if x=2 then y=18",
        "x=2 but y=18",
        "x=2,\\,y=18",
        "$x=2$, $y=18$",
    ]
    + ["18 and a half", "18th", "not 18", "9 + 9", "eighteen", "inf", "nan", "None", "", "\x0018", "--18", "18/0"],
)
def test_another_quantity_never_equals_it(text):
    assert parse_number(text) != 18


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,080", 1080),
        ("1 080", 1080),
        ("1{,}080", 1080),
        ("1,\\! 080", 1080),
        ("1,000,000.5", Fraction(2000001, 2)),
        ("-1,080", -1080),
        ("−5", -5),
        ("-$5", -5),
        ("$-5", -5),
        ("- 5", -5),
        ("-0", 0),
        (".4", Fraction(2, 5)),
        ("2,74", Fraction(137, 50)),
        ("0,125", Fraction(1, 8)),
        ("7/2", Fraction(7, 2)),
        ("3 1/2 cups", Fraction(7, 2)),
        ("3½", Fraction(7, 2)),
        ("3\\frac12", Fraction(7, 2)),
        ("-\\dfrac{10}{9}", Fraction(-10, 9)),
        ("28\\%", Fraction(7, 25)),
        ("70 thousand", 70_000),
        ("10,80", Fraction(54, 5)),
        ("1,0800", None),
        ("32, 349", None),
        ("(1,2)", None),
        ("1 7/2", None),
        ("9" * MAX_LENGTH, int("9" * MAX_LENGTH)),
        ("9" * (MAX_LENGTH + 1), None),
        ("1e9999", None),
    ],
)
def test_number_is_read_exactly(text, value):
    assert parse_number(text) == value


# Words that multiply or divide are part of the number; what stands behind the bare number otherwise makes it none.
@pytest.mark.fault("F13")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("3 dozen eggs", 36), ("3 dozens", 36), ("6 millions", 6 * 10**6), ("7 bn", 7 * 10**9), ("$6m", 6 * 10**6)],
        *[
            ("5m dollars", 5 * 10**6),
            ("5 lakhs", 5 * 10**5),
            ("2 crore", 2 * 10**7),
            ("7 score", 140),
            ("5 gross", 720),
        ],
        *[
            ("15k", 15_000),
            ("5MM", 5 * 10**6),
            ("5 hundred thousand", 5 * 10**5),
            ("5万人", 50_000),
            ("1/2 million", 500_000),
        ],
        *[("15 per cent", Fraction(3, 20)), ("15 per-cent", Fraction(3, 20)), ("30 basis points", Fraction(3, 1000))],
        *[("5 per thousand", Fraction(1, 200)), ("15‰", Fraction(3, 200)), ("5 ppm", Fraction(1, 200_000))],
        *[("4 thirds", Fraction(4, 3)), ("9 quarters", Fraction(9, 4)), ("7 tenths of a mile", Fraction(7, 10))],
        *[("3\\text{ dozen}", 36), ("6-million", 6 * 10**6), ("3e6", 3 * 10**6), ("3 × 10⁻²", Fraction(3, 100))],
        *[("5 pairs", 5), ("24 crates", 24), ("6 m", 6), ("5 seconds", 5), ("$2 per dozen", 2), ("$500 gross", 500)],
        *[("18 pc", None), ("5 per dozen", None), ("3 baker's dozen", None), ("17_8", None), ("17₈", None)],
        *[
            ("17 base 8", None),
            ("17<sub>8</sub>", None),
            ("17 octal", None),
            ("18 and a half", None),
            ("300 K", None),
            ("18 doubled", None),
        ],
        *[("8{,}640", 8640), ("8,\\!640", 8640), ("8\\,640", 8640), ("8~640", 8640), ("8'640", 8640), ("8’640", 8640)],
        *[("8\u2009640", 8640), ("8\u202f640", 8640), ("8\\text{,}640", 8640), ("31.205.017", 31_205_017)],
        *[("12,34,567", 1_234_567), ("1 080,5", Fraction(2161, 2)), ("8{,}6401", None), ("8'64", None)],
        *[("0.\\overline{6}", Fraction(2, 3)), ("-0.1\\bar{6}", Fraction(-1, 6))],
        ("minus 5", None),
        ("negative 5", None),
        ("half of 8", None),
        ("a third of 9", None),
        ("twice 4", None),
        ("√5", None),
        ("5π", None),
        ("(17)_8", None),
        ("3 ½", Fraction(7, 2)),
        ("7 remainder 2", None),
    ],
)
def test_what_changes_a_number_is_never_dropped(text, value):
    assert parse_number(text) == value
    said = None if value is None else str(value)
    in_prose = [
        grade_number(prose.format(text), "99").answer for prose in ("The answer is {}.", "So it took {} in all.")
    ]
    if text not in ("5 per dozen", "300 K", "18 doubled"):  # of these prose says a number and what it is of
        assert in_prose == [said, said]


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("Final Answer: __58__", "58"),
        ("Profit is $120,000 - $75,000 = $45,000.", "45000"),
        ("The answer is $120,000 - $75,000 = $45,000.", "45000"),
        ("it is \\frac{10}{9}", "10/9"),
        ("The answer is \\dfrac{36}{2} cups.", "18"),
        ("so it is 3 \\times 10^{6}", "3000000"),
    ],
)
def test_running_text_is_read_as_a_block_is(completion, answer):
    assert grade_number(completion, "99").answer == answer


def test_large_integers_are_not_compared_as_floats():
    assert grade_number(answered("12345678901234567890"), "12345678901234567890").strict
    assert not grade_number(answered("12345678901234567891"), "12345678901234567890").loose


@pytest.mark.parametrize(("gold", "answer"), [("1,080", "1080"), ("1080", "1,080.00"), ("-5", "−5"), ("7/2", "3.5")])
def test_gold_and_answer_are_numbers_not_texts(gold, answer):
    assert grade_number(answered(answer), gold).strict


@given(st.fractions(max_denominator=10**6))
@REPEATABLE
def test_canonical_answer_is_read_back_as_the_same_number(value):
    assert parse_number(str(value)) == value
    assert grade_number(answered(str(value)), str(value)).answer == str(value)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("The answer is 18, because 9 * 2 is 18 and not 20.", "18"),
        ("The answer is $\\boxed{18}$. I hope it helps, 100%.", "18"),
        ("Final Answer: The answer is 9 * 2 = 18 in 3 steps", "18"),
        ("The answer is 15 gallons * 8 pints / gallon = <<15*8=120>>120 pints, not 4", "120"),
        ("Each correct answer is 24 points.\n#### 18", "18"),
        ("The answer is 18 or 20", None),
        ("The answer is 5 + x", None),
        ("first \\boxed{17}, then \\boxed{\\frac{36}{2}} in 3 steps", "18"),
        ("\\boxed{17, 18}", None),
        ("5 steps\n#### $1,080 dollars\nand 7 more", "1080"),
        ("It takes 2 steps. She pays $17 and he pays $18.", "18"),
        ("how many $? just about 18$", "18"),
        ("so $x + 2 = 18$", "18"),
        ("the area is 18 m^2.", "18"),
        ("it is 18<|im_end|>", "18"),
        ("x is $\\frac{1+\\sqrt{5}}{2}$", None),
        ("x is \\frac{1+\\sqrt{5}}{2}", None),
        ("see you at 12:18", None),
        ("so 9 = 18x", "9"),
        ("range 17-18", "18"),
        ("the balance is -$18", "-18"),
        ("18 million", "18000000"),
        ("<think>it is 17</think> it is 18", "18"),
        ("it is 17</think> it is 18", "18"),
        ("<think>it is \\boxed{18}</think> Some other text.", None),
        ("<think>it is 18", "18"),
        ("7 eggs <answer>17</answer> and <answer>18</answer>", "18"),
        ("<answer>18", "18"),
        ("so it is 18, not 20.", "18"),
        ("twice 9 is 18", "18"),
        ("no number", None),
    ],
)
def test_loose_tier_finds_the_final_answer(completion, answer):
    assert grade_number(completion, "99").answer == answer


@pytest.mark.fault("F12")
@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        (answered("18"), Verdict.CORRECT),
        (answered("19"), Verdict.WRONG),
        (answered("18 or 20"), Verdict.UNPARSABLE),
        (answered(""), Verdict.NO_ANSWER),
        ("work <answer>18", Verdict.NO_ANSWER),
        ("<reasoning><answer>18</answer></reasoning>", Verdict.NO_ANSWER),
        ("<answer>18</answer><answer>18</answer>", Verdict.MULTIPLE_ANSWERS),
        ("<answer>18</answer><answer></answer>", Verdict.MULTIPLE_ANSWERS),
        ("work</reasoning><answer>18</answer>", Verdict.CORRECT),
    ],
)
def test_verdict_names_the_reason_of_the_medium_tier(completion, verdict):
    grade = grade_number(completion, "18")
    assert grade.verdict == verdict
    assert grade.medium == (verdict == Verdict.CORRECT)


def test_right_block_counts_in_the_loose_tier_whatever_the_prose_states():
    grade = grade_number("The answer is 17.\n<answer>18</answer>", "18")
    assert (grade.medium, grade.loose, grade.answer) == (True, True, "18")


def test_strict_needs_the_whole_shape():
    assert grade_number(answered("18"), "18").strict
    assert grade_number("work</reasoning>\n<answer>18</answer>", "18").strict
    trailing = grade_number(answered("18") + "bye", "18")
    assert (trailing.strict, trailing.medium, trailing.well_formed) == (False, True, False)


PIECES = ["<think>", "</think>", "<reasoning>", "</reasoning>", "<answer>", "</answer>", "\\boxed{", "}", "####"]
PIECES += ["The answer is ", "18", "17", "1,080", "$", " ", "\n", ".", "=", "-", "%", "x", "\0", "\ud800", "²"]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=20).map("".join))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_tiers_are_nested_and_agree_with_the_verdict(completion):
    grade = grade_number(completion, "18")
    assert grade.strict <= grade.medium <= grade.loose
    assert grade.strict == (grade.medium and grade.well_formed)
    assert grade.medium == (grade.verdict == Verdict.CORRECT)
    assert not grade.loose or grade.answer is not None


HOSTILE = {
    "nul": "\0" * 20_000,
    "surrogates": "\ud800" * 20_000,
    "right_to_left": "\u202e18" * 7_000,
    "zero_width": "\u200b" * 20_000,
    "ligature": "\ufdfa" * 20_000,
    "superscripts": "²" * 20_000,
    "digits": "9" * 100_000,
    "digits_in_answer": answered("9" * 100_000),
    "digits_in_box": "\\boxed{" + "9" * 100_000 + "}",
    "open_boxes": "\\boxed{" * 3_000,
    "boxes": "\\boxed{1}" * 2_500,
    "statements": "the answer is 18 or " * 1_000,
    "dollars": "$" * 20_000,
    "amounts": "$1 " * 7_000,
    "open_math": "\\(" * 10_000,
    "brackets": answered("(" * 120 + "18" + ")" * 120),
    "open_answers": "<answer>" * 2_500,
    "answers": "<answer></answer>" * 1_200,
    "closed_thinking": "</think>" * 3_000,
    "groups": "1,111" * 4_000,
    "quotients": "1/" * 10_000,
    "text_commands": "\\text{" * 3_000,
    "words": answered("18 " + "a " * 120),
    "equals": answered("=" * 250),
    "marks": "1'111" * 4_000,
    "latex_marks": "1{,}111" * 3_000,
    "factors": "1" + " million" * 2_000,
    "spaces_behind": "1" + " " * 20_000,
}


@pytest.mark.fault("F10")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_completion_is_graded_without_an_error(name):
    grade = grade_number(HOSTILE[name], "18")
    assert grade.strict <= grade.medium <= grade.loose


@pytest.mark.fault("F13")
@pytest.mark.parametrize("answer", ["0", "-5", "3.5"])
def test_empty_answer_never_equals_a_gold(answer):
    assert not grade_number(answered(""), answer).loose
    assert not grade_number("", answer).loose


@pytest.mark.fault("F17")
@pytest.mark.parametrize("gold", ["", "eighteen", "18 or 20"])
def test_gold_that_is_no_number_is_refused_with_its_text(gold):
    with pytest.raises(UserError, match=repr(gold)):
        grade_number("<answer>18</answer>", gold)


def test_boxes_are_found_with_their_inner_braces():
    text = "\\boxed{\\frac{1}{2}} and \\fbox{\\{3\\}} and \\boxed{open"
    assert [box.content(text) for box in complete_boxes(text)] == ["\\frac{1}{2}", "\\{3\\}"]


def test_inline_math_ends_on_its_line():
    assert has_latex("Answer \\[ \n 9 \n \\]") and has_latex("Answer $ 9 $")
    assert not has_latex("Answer $ \n 9 \n $") and not has_latex("Answer \\( \n 9 \n \\)")


def test_answer_is_looked_for_outside_the_thinking_first():
    assert find_answer("<think>\\boxed{1}</think> #### 2") == "2"
    assert find_answer("<think>\\boxed{1}</think>\n") == "1"


@pytest.mark.skipif(not GSM8K.exists(), reason="needs ../shared/data/gsm8k")
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_gold_of_gsm8k_is_a_number_and_equals_itself(split):
    for row in read_rows(GSM8K / f"{split}.jsonl"):
        gold = row["answer"].rpartition("####")[2].strip()
        assert parse_number(gold) == int(gold.replace(",", ""))
        assert grade_number(row["answer"], gold).loose


def test_the_answer_of_a_grade_stands_at_its_place_and_elsewhere_only_where_none_can_be_read_there():
    # Votes and counts of answers read what the reward reads.
    grade = grade_number("So the answer is 18. <answer>17</answer>", "18")
    assert (grade.medium, grade.loose, grade.answer) == (False, True, "17")
    grade = grade_number("So the answer is 18. <answer>none</answer>", "18")
    assert (grade.medium, grade.loose, grade.answer) == (False, True, "18")
