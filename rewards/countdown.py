"""Countdown: does an answer use the given numbers, each exactly once, and equal the target?

Answers are read by `rewards.expression`, never run as code, in time linear in a completion's length.
"""

from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction

from rewards.countdown_notation import normalize_answer
from rewards.expression import ExpressionError, ZeroDivisorError, evaluate_expression, normal_form
from rewards.format import ANSWER_CLOSE, ANSWER_OPEN, completion_text, cut_thinking, is_well_formed, last_answer
from rewards.grade import Grade, log_verdicts

REFERENCE_TOLERANCE = Fraction(1, 100_000)
REFERENCE_FORMAT_CREDIT = 0.1


class Verdict(StrEnum):
    """What an answer is; `CORRECT` alone solves the problem."""

    CORRECT = "correct"
    WRONG_VALUE = "wrong_value"
    WRONG_NUMBERS = "wrong_numbers"
    SYNTAX = "syntax"
    DIVISION_BY_ZERO = "division_by_zero"
    NO_ANSWER = "no_answer"
    MULTIPLE_ANSWERS = "multiple_answers"


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
    right. The answer is `final_answer`, and so is the approach: the expression is the way to its value.
    """
    verdict = judge(completion, numbers, target)
    well_formed = is_well_formed(completion)
    medium = verdict is Verdict.CORRECT
    loose = medium or judge_reference(completion, numbers, target) == 1.0
    answer = final_answer(completion, target)
    return Grade(medium and well_formed, medium, loose, answer, str(verdict), well_formed, approach=answer)


def final_answer(completion: str, target: int) -> str | None:
    """`normal_form` of the last answer, outside the thinking if there is one there; None if it is no expression."""
    block = last_answer(cut_thinking(completion)) or last_answer(completion)
    if block is None:
        return None
    try:
        return normal_form(normalize_answer(block.text, target))
    except ExpressionError:
        return None


class CountdownReward:
    """TRL reward column "correctness": 1.0 for a solved problem; above 0.5 means solved, whatever the settings.

    Also logs verdict, final answer and approach of every completion and the share of each verdict, through TRL's
    ``log_extra`` and ``log_metric``.

    Args:
        strict_line: score by `judge_reference` (1.0, 0.1 or 0) instead of `judge`.
    """

    __name__ = "correctness"
    full = 1.0

    def __init__(self, strict_line: bool = False):
        self.strict_line = strict_line

    def __call__(self, prompts, completions, numbers, target, log_extra=None, log_metric=None, **kwargs) -> list[float]:
        problems = list(zip(map(completion_text, completions), numbers, target, strict=True))
        verdicts = [judge(*problem) for problem in problems]
        if log_extra is not None:
            log_extra("verdict", [str(verdict) for verdict in verdicts])
            answers = [final_answer(text, goal) or "" for text, _, goal in problems]
            log_extra("answer", answers)
            log_extra("approach", answers)  # the normal form of an expression is the way to its value
        if log_metric is not None and verdicts:
            log_verdicts(log_metric, verdicts, Verdict)
        if self.strict_line:
            return [judge_reference(*problem) for problem in problems]
        return [float(verdict is Verdict.CORRECT) for verdict in verdicts]
