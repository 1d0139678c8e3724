"""iGSM: is the number in the last box of the answer block the right integer?

BRIDGE's program (naive.py) takes the first box anywhere, thinking included. Integers are read digit by digit under a
cap, so no completion can make this slow or raise.
"""

import re
from collections.abc import Callable

from rewards.answer import Verdict, last_number, stated_answer
from rewards.boxes import last_outer_box
from rewards.format import (
    FormatReward,
    completion_text,
    cut_thinking,
    is_well_formed,
    last_answer,
    outside_thinking,
)
from rewards.grade import Grade, log_grades

MAX_DIGITS = 12
ReadApproach = Callable[[str | list[dict], str], str | None]

_INTEGER = re.compile(rf"-?(?:0|[1-9][0-9]{{0,{MAX_DIGITS - 1}}})")
_GROUPED = re.compile(r"-?[1-9][0-9]{0,2}(?:,[0-9]{3})+")
_MINUS_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-"})


def read_integer(text: str) -> int | None:
    """``text`` as an integer of at most `MAX_DIGITS` digits, else None.

    Surrounding whitespace, a Unicode minus and commas between thousands are allowed; a plus sign, leading zeros and
    decimals ("24.0") are not.
    """
    text = text.strip().translate(_MINUS_SIGNS)
    if len(text) > 2 * MAX_DIGITS:
        return None
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    return int(text) if _INTEGER.fullmatch(text) else None


def grade_igsm(completion: str, answer: int) -> Grade:
    """`Grade` of ``completion`` (without its prompt) for a problem with that answer.

    strict: `is_well_formed`, and medium. medium: exactly one complete answer block outside the thinking, and the
    integer in its last box is right. loose: medium, or the answer found elsewhere is right: in the last box outside the
    thinking (anywhere if nothing stands outside), else stated there ("the answer is 7"), else the last number.
    """
    well_formed = is_well_formed(completion)
    block = last_answer(cut_thinking(completion))
    value = None
    if block is not None and block.repeated:
        verdict = Verdict.MULTIPLE_ANSWERS
    else:
        text = None if block is None else last_outer_box(block.text)
        value = None if text is None else read_integer(text)
        verdict = _verdict(text, value, answer)
    medium = loose = verdict is Verdict.CORRECT
    if not medium:
        elsewhere = _found_anywhere(outside_thinking(completion))
        loose = elsewhere == answer
        value = elsewhere if value is None else value
    return Grade(
        medium and well_formed, medium, loose, None if value is None else str(value), str(verdict), well_formed
    )


def _verdict(text: str | None, value: int | None, answer: int) -> Verdict:
    if text is None or not text.strip():
        return Verdict.NO_ANSWER
    if value is None:
        return Verdict.UNPARSABLE
    return Verdict.CORRECT if value == answer else Verdict.WRONG


def _found_anywhere(text: str) -> int | None:
    """The integer of the last box of ``text``, else the one stated as the answer, else the last number."""
    for find in (last_outer_box, stated_answer, last_number):
        found = find(text)
        if found is not None:
            return read_integer(found)
    return None


class IgsmReward:
    """TRL reward column "correctness": 1.0 for a right answer, else 0.0; logs verdicts, answers and the other tiers.

    Args:
        approach: (prompt, completion) -> normal form of the way to the answer, or None; logged where it is given.
    """

    __name__ = "correctness"
    full = 1.0

    def __init__(self, approach: ReadApproach | None = None):
        self.approach = approach

    def __call__(self, prompts, completions, answer, log_extra=None, log_metric=None, **kwargs) -> list[float]:
        pairs = list(zip(map(completion_text, completions), answer, strict=True))
        grades = [grade_igsm(text, value) for text, value in pairs]
        log_grades(log_extra, log_metric, grades, Verdict)
        if log_extra is not None and self.approach is not None:
            texts = [text for text, _ in pairs]
            log_extra("approach", [self.approach(*pair) or "" for pair in zip(prompts, texts, strict=True)])
        return [float(grade.medium) for grade in grades]


def igsm_rewards(approach: ReadApproach | None = None) -> list:
    """The reward columns of iGSM: correctness, and the format, which BRIDGE weighs with 0, or 0.05 for Llama."""
    return [IgsmReward(approach), FormatReward()]
