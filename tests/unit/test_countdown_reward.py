"""The Countdown scorer: every authored case, the vectors of both references, and the reward column."""

import json
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.countdown import (
    CountdownReward,
    ExpressionError,
    Verdict,
    ZeroDivisorError,
    _reference_answer,
    evaluate_expression,
    judge,
    judge_reference,
)
from training.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
# Authored for this scorer's specification and released as CC0-1.0.
CASES = ROOT / "tests" / "cases" / "countdown_cases.jsonl"
SHARED_CASES = ROOT / ".." / "shared" / "data" / "countdown_cases.jsonl"
REPEATABLE = settings(deadline=None, derandomize=True)


def read_cases(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def answered(answer):
    return f"<think>\nwork\n</think>\n<answer>\n{answer}\n</answer>\n"


@pytest.mark.parametrize("case", read_cases(CASES), ids=lambda case: f"{case['id']}-{case['kind'].split(' ')[0]}")
def test_authored_case_gets_its_verdict(case):
    verdict = judge(case["completion"], case["numbers"], case["target"])
    assert (verdict is Verdict.CORRECT) == case["expected_bool"]


def test_the_shared_cases_all_agree():
    cases = read_cases(SHARED_CASES)
    if not cases:
        pytest.skip("../shared/data/countdown_cases.jsonl is not here")
    for case in cases:
        verdict = judge(case["completion"], case["numbers"], case["target"])
        assert (verdict is Verdict.CORRECT) == case["expected_bool"], case["kind"]


def test_the_authored_cases_are_all_there():
    assert len(read_cases(CASES)) == 47


# Verdicts of the specification's table (what TinyZero and GRPO-Zero score is in the comment), but for three rules that
# the authored cases overrule: two complete answers are wrong instead of "the last one counts" (case 65), \frac and
# with it the other LaTeX is read instead of refused (cases 23, 24, 30), and integers may have 18 digits instead of 6
# (cases 58, 60).
VECTORS = [
    ("(94*4) - 61 - 6", [6, 61, 94, 4], 309, Verdict.CORRECT),
    ("94*4-61-6 = 309", [6, 61, 94, 4], 309, Verdict.CORRECT),  # 0.1, 0
    ("94*4-61-6 = 310", [6, 61, 94, 4], 309, Verdict.SYNTAX),
    ("61+94", [6, 61, 94, 4], 155, Verdict.WRONG_NUMBERS),
    ("8/(3-8/3)", [3, 3, 8, 8], 24, Verdict.CORRECT),
    ("1/3*3", [1, 3, 3], 1, Verdict.CORRECT),
    ("5/0+3", [5, 0, 3], 3, Verdict.DIVISION_BY_ZERO),
    ("1.5*2", [1, 5, 2], 3, Verdict.SYNTAX),  # 1, 0
    ("2**3", [2, 3], 8, Verdict.SYNTAX),  # 1, 1
    ("7//2", [7, 2], 3, Verdict.SYNTAX),  # 1, 1
    ("9**9**9", [9, 9, 9], 1, Verdict.SYNTAX),
    ("12", [1, 2], 12, Verdict.WRONG_NUMBERS),
    ("1 2", [1, 2], 12, Verdict.SYNTAX),
    ("3(4)", [3, 4], 12, Verdict.SYNTAX),
    ("()", [3, 4], 7, Verdict.SYNTAX),
    ("3+4,", [3, 4], 7, Verdict.SYNTAX),
    ("3+4#", [3, 4], 7, Verdict.SYNTAX),
    ("3+4;", [3, 4], 7, Verdict.SYNTAX),
    ("-3+7", [3, 7], 4, Verdict.CORRECT),
    ("+3+7", [3, 7], 10, Verdict.SYNTAX),  # 1, 1
    ("３+4", [3, 4], 7, Verdict.SYNTAX),
    ("٣+4", [3, 4], 7, Verdict.SYNTAX),
    ("3×4", [3, 4], 12, Verdict.CORRECT),  # 0.1, 0
    ("007+3", [7, 3], 10, Verdict.SYNTAX),
    ("0x3+4", [3, 4], 7, Verdict.SYNTAX),
    ("1e5", [1, 5], 100000, Verdict.SYNTAX),
    ("3_0+4", [30, 4], 34, Verdict.SYNTAX),
    ("3\n+4", [3, 4], 7, Verdict.CORRECT),  # 0, 0
    ("(" * 200 + "3" + ")" * 200 + "+4", [3, 4], 7, Verdict.SYNTAX),  # 1, 1
    ("__import__('os').getpid()+3", [3], 3, Verdict.SYNTAX),
]


@pytest.mark.parametrize(("answer", "numbers", "target", "verdict"), VECTORS)
def test_specification_vector(answer, numbers, target, verdict):
    assert judge(answered(answer), numbers, target) is verdict


def test_no_answer_tag_and_wrong_value_have_their_own_verdicts():
    assert judge("3+4", [3, 4], 7) is Verdict.NO_ANSWER
    assert judge(answered("3*4"), [3, 4], 7) is Verdict.WRONG_VALUE


@pytest.mark.parametrize(
    "answer",
    [
        "2*3",
        "$2*3$",
        "$2*3$.",
        r"$\boxed{2 \times 3}$",
        r"\boxed{2*3}.",
        r"\boxed{2*3} = 6",
        r"\boxed{2*3 = 6}",
        "2 · 3 = 6.",
        r"2 \cdot 3",
        r"\frac{3}{\frac{1}{2}}",
        r"\frac {3} {1 \div 2}",
        "3 – −3",
        "(2*\t\r\n 3)",
    ],
)
def test_notation_of_models_is_read(answer):
    verdict = judge(answered(answer), [1, 2, 3] if "1" in answer else [3, 3] if "−" in answer else [2, 3], 6)
    assert verdict is Verdict.CORRECT


@pytest.mark.parametrize(
    "answer",
    [
        "2*3 = 6 = 6",
        "6 = 2*3",
        "2*3 = 06",
        "2*3 =",
        "= 6",
        "2*3..",
        "$$2*3$",
        "$2*3",
        r"\boxed{2}*\boxed{3}",
        r"\boxed{2*3",
        r"2\frac{6}{2}",
        r"\frac{2)*(3}{1}",
        r"\frac{6}",
        r"\timesx",
        "2××3",
        "6÷÷3",
        "2\u00a0*\u00a03",
        "2 \v* 3",
        "the answer is 2*3",
        "",
        "  \n ",
    ],
)
def test_notation_beyond_that_is_a_syntax_error(answer):
    assert judge(answered(answer), [2, 3], 6) is Verdict.SYNTAX


@pytest.mark.parametrize("number", ["9" * 18, "0", "10"])
def test_integers_up_to_18_digits_are_exact(number):
    assert evaluate_expression(f"{number} - 0") == (int(number), [int(number), 0])


@pytest.mark.parametrize("number", ["9" * 19, "9" * 20, "00", "01"])
def test_longer_or_zero_padded_integers_are_refused(number):
    with pytest.raises(ExpressionError):
        evaluate_expression(number)


@pytest.mark.fault("F16")
def test_caps_hold_at_their_borders():
    def nested(depth):
        return "(" * depth + "1" + ")" * depth

    assert evaluate_expression(nested(32)) == (1, [1])
    assert evaluate_expression("-" * 32 + "1") == (1, [1])
    assert evaluate_expression("1" + " + 1" * 63)[0] == 64  # 253 characters
    for text in (nested(33), "-" * 33 + "1", "1" + " + 1" * 64):
        with pytest.raises(ExpressionError):
            evaluate_expression(text)


@pytest.mark.parametrize("text", ["1/0", "1/(2-2)", "0/0"])
def test_division_by_zero_is_told_apart(text):
    with pytest.raises(ZeroDivisorError):
        evaluate_expression(text)


@pytest.mark.fault("F12")
@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("<think><answer>2*3</answer></think>", Verdict.NO_ANSWER),
        ("<think>so <answer>2*3</answer>", Verdict.NO_ANSWER),
        ("so <answer>2*3</answer></think>", Verdict.NO_ANSWER),
        ("so <answer>2*3</answer></think><answer>2+3</answer>", Verdict.WRONG_VALUE),
        ("<think><answer>2+3</answer></think><answer>2*3</answer>", Verdict.CORRECT),
        ("a draft <answer>2+3</answer> </reasoning> <answer>2*3</answer>", Verdict.CORRECT),
        ("<think>a</think><answer>2+3</answer><think>b</think><answer>2*3</answer>", Verdict.MULTIPLE_ANSWERS),
        ("<answer>2*3</answer><answer>2*3</answer>", Verdict.MULTIPLE_ANSWERS),
        ("<answer>2*3</answer><answer>", Verdict.CORRECT),
        ("<answer>2+3<answer>2*3</answer>", Verdict.CORRECT),
        ("<answer>2*<think>x</think>3</answer>", Verdict.SYNTAX),
        ("<Answer>2*3</Answer>", Verdict.NO_ANSWER),
    ],
)
def test_only_one_answer_after_the_thinking_counts(completion, verdict):
    assert judge(completion, [2, 3], 6) is verdict


@st.composite
def expressions(draw, depth=4):
    """(text, value or None if a division by zero occurs, integers from left to right)."""
    if depth == 0 or draw(st.booleans()):
        number = draw(st.integers(0, 99))
        return str(number), Fraction(number), [number]
    left, a, left_numbers = draw(expressions(depth=depth - 1))
    right, b, right_numbers = draw(expressions(depth=depth - 1))
    op = draw(st.sampled_from("+-*/"))
    sign = draw(st.sampled_from(["", "-"]))
    space = draw(st.sampled_from(["", " ", "\n"]))
    text = f"{sign}({left}{space}{op}{space}{right})"
    if a is None or b is None or (op == "/" and b == 0):
        value = None
    else:
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[op] * (-1 if sign else 1)
    return text, value, left_numbers + right_numbers


@REPEATABLE
@given(expressions())
def test_a_random_tree_has_the_value_of_its_fold(expression):
    text, value, numbers = expression
    if value is None:
        with pytest.raises(ZeroDivisorError):
            evaluate_expression(text)
    else:
        assert evaluate_expression(text) == (value, numbers)


@REPEATABLE
@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(1, 99)), max_size=8), st.integers(0, 99))
def test_without_brackets_products_bind_first_and_both_fold_from_the_left(steps, first):
    terms = [Fraction(first)]
    for op, number in steps:
        if op in "*/":
            terms[-1] = terms[-1] * number if op == "*" else terms[-1] / number
        else:
            terms.append(Fraction(number if op == "+" else -number))
    text = str(first) + "".join(f"{op}{number}" for op, number in steps)
    assert evaluate_expression(text) == (sum(terms), [first, *[number for _, number in steps]])


PIECES = [
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "</reasoning>",
    "2*3",
    "-",
    "(",
    ")",
    "\n",
    "\\frac{",
    "}{",
    "}",
]


@REPEATABLE
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=20).map("".join))
def test_random_text_gets_a_verdict_and_a_score(text):
    assert judge(text, [2, 3], 6) in Verdict
    assert judge(answered(text), [2, 3], 6) in Verdict
    assert judge_reference(text, [2, 3], 6) in (0.0, 0.1, 1.0)


@REPEATABLE
@given(st.lists(st.sampled_from(["<answer>", "</answer>", "a", "b"]), max_size=12).map("".join))
def test_reference_answer_is_the_last_match_of_its_pattern(line):
    matches = re.findall(r"<answer>(.*?)</answer>", line)
    assert _reference_answer(line) == (matches[-1] if matches else None)


@pytest.mark.parametrize(
    ("completion", "numbers", "target", "score"),
    [
        ("<answer>(1+2+3)*4</answer>", [1, 2, 3, 4], 24, 1.0),
        ("<answer>1*2*3*4</answer>", [1, 2, 3, 4], 24, 1.0),
        ("<answer>4*6</answer>", [1, 2, 3, 4], 24, 0.1),
        ("(1+2+3)*4", [1, 2, 3, 4], 24, 0.0),
        ("<answer>(1+2)*3*4 = 36</answer>", [1, 2, 3, 4], 36, 0.1),
        ("<answer>(1+2+3)*4</answer>\nDone.", [1, 2, 3, 4], 24, 0.0),
        ("<answer>(1+2+3)*4</answer>\n", [1, 2, 3, 4], 24, 0.0),
        ("work\n</think>\n<answer>(1+2+3)*4</answer>", [1, 2, 3, 4], 24, 1.0),
        ("Assistant: work</think> <answer>(1+2+3)*4</answer>", [1, 2, 3, 4], 24, 1.0),
        ("<answer>8/(3-8/3)</answer>", [3, 3, 8, 8], 24, 1.0),
        ("<answer>1+2+3+4</answer> <answer>(1+2+3)*4</answer>", [1, 2, 3, 4], 24, 1.0),
        ("<answer>(1+2+3)*4</answer> <answer>1+2+3+4</answer>", [1, 2, 3, 4], 24, 0.1),
        ("<answer>1/0</answer>", [1, 0], 1, 0.1),
        ("<answer>no idea</answer>", [1, 2], 3, 0.1),
        ("<answer></answer>", [1, 2], 3, 0.1),
        ("<answer>12</answer>", [1, 2], 12, 0.1),
        ("<answer>-1+3</answer>", [1, 3], 2, 1.0),
        ("<answer>\n1+3\n</answer>", [1, 3], 4, 0.0),
        # The reference pays 1.0 for these two, through Python's own operators.
        ("<answer>2**3</answer>", [2, 3], 8, 0.1),
        ("<answer>7//2</answer>", [7, 2], 3, 0.1),
    ],
)
def test_reference_score(completion, numbers, target, score):
    assert judge_reference(completion, numbers, target) == score


BATCH = {
    "prompts": ["p"] * 5,
    "completions": [answered(answer) for answer in ("2*3", "2+3", "6", "2**3")] + ["2*3"],
    "numbers": [[2, 3]] * 5,
    "target": [6] * 5,
}


def test_reward_pays_correct_answers_and_format_credit_only_well_formed_expressions():
    assert CountdownReward().__name__ == "correctness"
    assert CountdownReward()(**BATCH) == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert CountdownReward(format_credit=0.1)(**BATCH) == [1.0, 0.1, 0.1, 0.0, 0.0]


def test_reward_in_strict_line_mode_is_the_reference_table():
    lines = [text.replace("\n", "") for text in BATCH["completions"]]
    assert CountdownReward(strict_line=True)(**BATCH | {"completions": lines}) == [1.0, 0.1, 0.1, 0.1, 0.0]
    assert CountdownReward(strict_line=True)(**BATCH) == [0.0] * 5  # the answers span lines


def test_reward_reads_conversations_and_ignores_other_columns():
    conversations = [[{"role": "assistant", "content": text}] for text in BATCH["completions"]]
    reward = CountdownReward()
    assert reward(**BATCH | {"completions": conversations}, completion_ids=[[1]] * 5, trainer_state=None) == reward(
        **BATCH
    )


def test_reward_scores_each_completion_against_its_own_problem():
    rewards = CountdownReward()(
        prompts=["", ""], completions=[answered("2*3"), answered("2*3")], numbers=[[2, 3], [2, 4]], target=[6, 6]
    )
    assert rewards == [1.0, 0.0]


def test_reward_never_scores_the_prompt():
    prompt = answered("2*3")
    assert CountdownReward()(prompts=[prompt], completions=["no"], numbers=[[2, 3]], target=[6]) == [0.0]


@pytest.mark.fault("F12")
def test_reward_logs_each_verdict_and_shares_that_sum_to_one():
    extra, metrics = {}, {}
    CountdownReward()(**BATCH, log_extra=extra.__setitem__, log_metric=metrics.__setitem__)
    assert extra["verdict"] == ["correct", "wrong_value", "wrong_numbers", "syntax", "no_answer"]
    assert extra["answer"] == ["2*3", "2+3", "6", "", ""]
    assert set(metrics) == {f"verdict/{verdict}" for verdict in Verdict}
    assert metrics["verdict/correct"] == metrics["verdict/syntax"] == 0.2
    assert metrics["verdict/multiple_answers"] == metrics["verdict/division_by_zero"] == 0.0
    assert sum(metrics.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("credit", [-0.1, 0.51, 1.0, float("nan")])
def test_format_credit_that_would_count_as_correct_is_refused(credit):
    with pytest.raises(UserError, match="format_credit"):
        CountdownReward(format_credit=credit)
