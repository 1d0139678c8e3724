"""Expressions of Countdown: the specification's table, notation, caps, and random trees against their fold."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.countdown import Verdict, judge
from rewards.expression import ExpressionError, ZeroDivisorError, evaluate_expression, normal_form
from tests.unit.rewards.countdown_cases import REPEATABLE, answered

# Verdicts of the specification's table (what TinyZero and GRPO-Zero score is in the comment), but for three rules that
# the authored cases overrule: two complete answers are wrong instead of "the last one counts" (case 65), \frac and
# with it the other LaTeX is read instead of refused (cases 23, 24, 30), and integers may have 18 digits instead of 6
# (cases 58, 60). A plus sign is read where a minus sign is, and digits of full width like all other spellings.
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
    ("+3+7", [3, 7], 10, Verdict.CORRECT),  # 1, 1
    ("３+4", [3, 4], 7, Verdict.CORRECT),
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
        *(f"2 {sign} 3" for sign in "*×·⋅∗•∙✕✖＊xX"),
        *(
            "2x3",
            "2*３",
            "2✖️3",
            "2\\*3",
            r"2 \ast 3",
            r"2\,\times\,3",
            "2\u00a0*\u00a03",
            "2\u2009*\u202f3",
            "2\u200b*3",
        ),
        *(
            "$$2*3$$",
            r"\(2*3\)",
            r"\[ 2*3 \]",
            r"\fbox{2*3}",
            "**2*3**",
            '"2*3"',
            "“2*3”",
            "__2*3__",
            "`2*3`",
            "```\n2*3\n```",
        ),
        *(
            "**$2*3$**.",
            "**2*3** = **6**",
            "Answer: 2*3",
            "The answer is $2*3$.",
            "**Final answer:** 2*3",
            "+2*3",
            "2*+3",
        ),
        *(r"\dfrac{3}{\tfrac12}", r"\frac 3{1/2}", "3⁄(1∕2)", "3 ➗ (1÷2)", r"\left(2\right)*3", r"\bigl[2*3\bigr]"),
        *("[(2)*3]", "（2）*3", "3 ➖ -3", "3 - (−3)"),
    ],
)
def test_notation_of_models_is_read(answer):
    numbers = [1, 2, 3] if "1" in answer else [2, 3] if "2" in answer or "２" in answer else [3, 3]
    assert judge(answered(answer), numbers, 6) is Verdict.CORRECT


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
        "2 \v* 3",
        "2*3 is the answer",
        "the answer is 2*3 or 3*2",
        *("**2*3", "2*3*", "*2*3*", "`2*3", r"\(2*3\]", r"\(2*3", "(2*3]", "[2*(3])", "{2}*{3}", "[2*3][0]", "2,*3"),
        *("2x", "x3", "2 xx 3", "2y3", "0x2*3", "6 : 1", "2.*3", "２**3", "2⁎⁎3", "2²", "2₃", "2*٣", "²*3"),
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


@pytest.mark.parametrize(
    ("form", "spellings"),
    [
        ("3+4*5", ["3+4*5", "5*4+3", "(4*5)+3", "((3))+(5*(4))", "+3 - -(4*5)"]),
        ("2+8-5", ["8-(5-2)", "8-5+2", "2+8-5", "-(5-8-2)"]),
        ("2*6/3", ["6/3*2", "6*2/3", "6/(3/2)", "2*(6/3)"]),
        ("4*(3+5)", ["4*(5+3)", "(3+5)*4"]),
        ("-2*3", ["-2*3", "2*-3", "-(2*3)", "3*(-2)"]),
        ("9-2*3", ["9-2*3", "9+2*-3", "-(2*3-9)"]),
        ("8/(3-8/3)", ["8/(3-8/3)"]),
        ("10*(9+10)/(2-3)", ["(10+9)/(2-3)*10"]),
        ("1/0", ["1 / 0"]),
    ],
)
def test_normal_form_is_one_spelling_of_what_commutes_and_associates(form, spellings):
    assert {normal_form(text) for text in spellings} == {form}


@pytest.mark.parametrize(
    ("one", "other"), [("3-2", "2-3"), ("4*3+4*5", "4*(3+5)"), ("6*1", "6/1"), ("8/2/2", "8/(2/2)")]
)
def test_other_expressions_keep_other_normal_forms(one, other):
    assert normal_form(one) != normal_form(other)


@REPEATABLE
@given(expressions())
def test_normal_form_keeps_value_and_integers_and_is_its_own(expression):
    text, value, numbers = expression
    form = normal_form(text)
    assert normal_form(form) == form
    if value is not None:
        found, used = evaluate_expression(form)
        assert (found, sorted(used)) == (value, sorted(numbers))


@REPEATABLE
@given(st.permutations(["7", "3*5", "(2-9)/4", "11"]), st.integers(0, 3))
def test_order_and_grouping_of_a_sum_do_not_matter(terms, cut):
    grouped = "+".join(["(" + "+".join(terms[: cut + 1]) + ")", *terms[cut + 1 :]])
    assert normal_form(grouped) == "7+11+3*5+(2-9)/4"


@pytest.mark.parametrize("text", ["", "2**3", "(2", "2 3", "9" * 19])
def test_what_is_no_expression_has_no_normal_form(text):
    with pytest.raises(ExpressionError):
        normal_form(text)
