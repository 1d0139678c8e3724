"""Countdown: does an answer use the given numbers, each exactly once, and equal the target?

Answers are read by a small parser over exact fractions, never run as code. Texts, lengths, digits and brackets are
capped, so the time a completion takes is linear in its length, whatever it holds.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction

from rewards.format import ANSWER_CLOSE, ANSWER_OPEN, completion_text, cut_thinking, is_well_formed, last_answer
from rewards.grade import Grade
from training.errors import UserError

MAX_LENGTH = 256  # characters of an answer, runs of whitespace counted as one
MAX_DEPTH = 32  # nested brackets and signs
MAX_DIGITS = 18  # of one integer
WHITESPACE = " \t\r\n"
REFERENCE_TOLERANCE = Fraction(1, 100_000)
REFERENCE_FORMAT_CREDIT = 0.1

_ALLOWED = re.compile(r"[0-9+\-*/() ]+")
_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_FRACTION = re.compile(r"\\frac ?\{([^{}]*)\} ?\{([^{}]*)\}")
_SYMBOLS = {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "\\times": "*", "\\cdot": "*", "\\div": "/"}


class Verdict(StrEnum):
    """What an answer is; `CORRECT` alone solves the problem."""

    CORRECT = "correct"
    WRONG_VALUE = "wrong_value"
    WRONG_NUMBERS = "wrong_numbers"
    SYNTAX = "syntax"
    DIVISION_BY_ZERO = "division_by_zero"
    NO_ANSWER = "no_answer"
    MULTIPLE_ANSWERS = "multiple_answers"


class ExpressionError(ValueError):
    """The text is not an expression of Countdown's grammar, or exceeds a cap."""


class ZeroDivisorError(ExpressionError):
    """The expression divides by zero."""


class _Parser:
    """Recursive descent over tokens; keeps the integers it met in ``used``."""

    def __init__(self, tokens: list[str]):
        self.tokens = [*tokens, ""]
        self.position = 0
        self.used: list[int] = []

    def take(self, *wanted: str) -> str:
        """The next token if it is one of ``wanted`` (and step over it), else ""."""
        token = self.tokens[self.position]
        if token not in wanted:
            return ""
        self.position += 1
        return token

    def sum(self, depth: int) -> Fraction:
        value = self.product(depth)
        while op := self.take("+", "-"):
            term = self.product(depth)
            value = value + term if op == "+" else value - term
        return value

    def product(self, depth: int) -> Fraction:
        value = self.factor(depth)
        while op := self.take("*", "/"):
            factor = self.factor(depth)
            if op == "/" and not factor:
                raise ZeroDivisorError("division by zero")
            value = value * factor if op == "*" else value / factor
        return value

    def factor(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"brackets or signs nested deeper than {MAX_DEPTH}")
        if self.take("-"):
            return -self.factor(depth + 1)
        if self.take("("):
            value = self.sum(depth + 1)
            if not self.take(")"):
                raise ExpressionError("a bracket is not closed")
            return value
        return Fraction(self.integer())

    def integer(self) -> int:
        token = self.tokens[self.position]
        if not token.isdigit():
            raise ExpressionError(f"a number is missing before {token!r}")
        if len(token) > MAX_DIGITS or (token[0] == "0" and token != "0"):
            raise ExpressionError(f"integers have at most {MAX_DIGITS} digits and no leading zero")
        self.position += 1
        self.used.append(int(token))
        return self.used[-1]


def squeeze(text: str) -> str:
    """``text`` stripped, each run of ASCII whitespace as one space; raises `ExpressionError` above `MAX_LENGTH`."""
    text = text.strip(WHITESPACE)
    for space in WHITESPACE:
        text = text.replace(space, " ")
    for run in (" " * 64, "  "):
        while run in text:
            text = text.replace(run, " ")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters")
    return text


def evaluate_expression(text: str) -> tuple[Fraction, list[int]]:
    """Exact value of an expression, and the integers written in it, from left to right.

    Grammar: unsigned decimal integers, ``+ - * /``, brackets, unary minus, ASCII whitespace. Raises `ExpressionError`
    on any other text (no unary plus, ``**``, ``//``, decimals, leading zeros or implicit multiplication) and on one
    beyond `MAX_LENGTH`, `MAX_DEPTH` or `MAX_DIGITS`; `ZeroDivisorError`, a subclass, on division by zero.
    """
    text = squeeze(text)
    if not _ALLOWED.fullmatch(text):
        raise ExpressionError("empty, or holds a character outside 0-9 + - * / ( )")
    parser = _Parser(_TOKEN.findall(text))
    value = parser.sum(depth=0)
    if parser.tokens[parser.position]:
        raise ExpressionError(f"unexpected {parser.tokens[parser.position]!r}")
    return value, parser.used


def _is_balanced(text: str) -> bool:
    """Whether every bracket of ``text`` has its partner inside ``text``."""
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0


def _plain_fraction(match: re.Match) -> str:
    if not all(map(_is_balanced, match.groups())):
        raise ExpressionError("a bracket crosses the border of a fraction")
    return "(({})/({}))".format(*match.groups())


def _unwrap(text: str) -> str:
    """Take off ``$...$`` and then ``\\boxed{...}`` where they enclose the whole text."""
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text[1:-1].strip()
    if text.startswith("\\boxed{") and text.endswith("}"):
        text = text[len("\\boxed{") : -1].strip()
    return text


def normalize_answer(text: str, target: int) -> str:
    """An answer as models write it -> plain expression, for `evaluate_expression`.

    Replaces ``× · ÷ − –`` and ``\\times \\cdot \\div \\frac{a}{b}``, and drops a final period, ``$...$`` and
    ``\\boxed{...}`` around the whole, and one trailing ``= target``. What else there is stays, for the evaluator to
    refuse. Raises `ExpressionError` on a text longer than `MAX_LENGTH` or with brackets that cross a fraction's border.
    """
    text = squeeze(text)
    for symbol, plain in _SYMBOLS.items():
        text = text.replace(symbol, plain)
    text = _unwrap(text.removesuffix(".").rstrip())
    left, equals, right = text.partition("=")
    if equals and right.strip() == str(target):
        text = _unwrap(left.rstrip())
    replaced = 1
    while replaced:
        text, replaced = _FRACTION.subn(_plain_fraction, text)
    return text


def judge(completion: str, numbers: Sequence[int], target: int) -> Verdict:
    """Verdict on ``completion`` (without its prompt) for the problem ``numbers`` -> ``target``.

    Thinking is cut off first; then exactly one complete ``<answer>`` block must remain, and its expression must use
    each number exactly once and equal the target exactly.
    """
    answer = last_answer(cut_thinking(completion))
    if answer is None:
        return Verdict.NO_ANSWER
    if answer.repeated:
        return Verdict.MULTIPLE_ANSWERS
    try:
        value, used = evaluate_expression(normalize_answer(answer.text, target))
    except ZeroDivisorError:
        return Verdict.DIVISION_BY_ZERO
    except ExpressionError:
        return Verdict.SYNTAX
    if sorted(used) != sorted(numbers):
        return Verdict.WRONG_NUMBERS
    return Verdict.CORRECT if value == target else Verdict.WRONG_VALUE


def _reference_answer(line: str) -> str | None:
    """The last match of ``<answer>(.*?)</answer>`` that a search from left to right finds in ``line``."""
    start = line.rfind(ANSWER_OPEN, 0, max(0, line.rfind(ANSWER_CLOSE)))
    if start < 0:
        return None
    end = line.find(ANSWER_CLOSE, start)
    previous = line.rfind(ANSWER_CLOSE, 0, start)
    # The search begins the match at the first opening tag after the previous match, not at the nearest one.
    start = line.find(ANSWER_OPEN, max(0, previous))
    return line[start + len(ANSWER_OPEN) : end]


def judge_reference(completion: str, numbers: Sequence[int], target: int) -> float:
    """Score of TinyZero and i-MENTOR (verl/utils/reward_score/countdown.py): 1.0 right, 0.1 any other answer, 0 none.

    Looks at the last line alone, thinking included, and takes its last answer; the value may differ from the target by
    1e-5. The one difference: expressions go through `evaluate_expression` instead of Python, so ``2**3`` and ``7//2``
    score 0.1. ``completion`` is what the model wrote; the prompt, with its assistant marker, is never part of it.
    """
    answer = _reference_answer(completion[completion.rfind("\n") + 1 :])
    if answer is None:
        return 0.0
    try:
        value, used = evaluate_expression(answer)
    except ExpressionError:
        return REFERENCE_FORMAT_CREDIT
    right = sorted(used) == sorted(numbers) and abs(value - target) < REFERENCE_TOLERANCE
    return 1.0 if right else REFERENCE_FORMAT_CREDIT


def grade_countdown(completion: str, numbers: Sequence[int], target: int) -> Grade:
    """`Grade` of ``completion`` (without its prompt) for the problem ``numbers`` -> ``target``.

    strict: `is_well_formed`, and medium. medium: `judge` calls it correct. loose: medium, or `judge_reference` calls it
    right. The answer is `final_answer`.
    """
    verdict = judge(completion, numbers, target)
    well_formed = is_well_formed(completion)
    medium = verdict is Verdict.CORRECT
    loose = medium or judge_reference(completion, numbers, target) == 1.0
    return Grade(medium and well_formed, medium, loose, final_answer(completion, target), str(verdict), well_formed)


def final_answer(completion: str, target: int) -> str | None:
    """The last expression, outside the thinking if there is one, without its spaces; None if there is none."""
    block = last_answer(cut_thinking(completion)) or last_answer(completion)
    return None if block is None else _canonical(block.text, target)


def _canonical(text: str, target: int) -> str | None:
    """An answer without its spaces; None if it is no expression."""
    try:
        expression = normalize_answer(text, target)
        evaluate_expression(expression)
    except ZeroDivisorError:
        return expression.replace(" ", "")
    except ExpressionError:
        return None
    return expression.replace(" ", "")


class CountdownReward:
    """TRL reward column "correctness": 1.0 for a solved problem; above 0.5 means solved, whatever the settings.

    Also logs verdict and final answer of every completion and the share of each verdict, through TRL's ``log_extra``
    and ``log_metric``.

    Args:
        strict_line: score by `judge_reference` (1.0, 0.1 or 0) instead of `judge`.
        format_credit: in [0, 0.5], paid for a well-formed expression with the wrong value or numbers.
    """

    __name__ = "correctness"

    def __init__(self, strict_line: bool = False, format_credit: float = 0.0):
        if not 0.0 <= format_credit <= 0.5:
            raise UserError(f"format_credit={format_credit} must lie in 0..0.5, above which an answer counts as right.")
        self.strict_line = strict_line
        self.credit = {
            Verdict.CORRECT: 1.0,
            Verdict.WRONG_VALUE: format_credit,
            Verdict.WRONG_NUMBERS: format_credit,
        }

    def __call__(self, prompts, completions, numbers, target, log_extra=None, log_metric=None, **kwargs) -> list[float]:
        problems = list(zip(map(completion_text, completions), numbers, target, strict=True))
        verdicts = [judge(*problem) for problem in problems]
        if log_extra is not None:
            log_extra("verdict", [str(verdict) for verdict in verdicts])
            log_extra("answer", [final_answer(text, goal) or "" for text, _, goal in problems])
        if log_metric is not None and verdicts:
            for verdict in Verdict:
                log_metric(f"verdict/{verdict}", verdicts.count(verdict) / len(verdicts))
        if self.strict_line:
            return [judge_reference(*problem) for problem in problems]
        return [self.credit.get(verdict, 0.0) for verdict in verdicts]
