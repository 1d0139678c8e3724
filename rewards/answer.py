"""Finding the answer of a completion, and grading it under three tiers; numbers are compared as exact fractions.

Nothing here runs text as code or raises on any completion, and the time is linear in the completion's length.
"""

import re
from collections.abc import Callable, Sequence
from enum import StrEnum

from common.errors import UserError
from rewards.boxes import complete_boxes, last_box
from rewards.format import AnswerPlace, is_well_formed, last_answer, outside_thinking, placed_answer
from rewards.grade import Grade
from rewards.number import (
    CURRENCY,
    MARKS_INSIDE,
    MAX_LENGTH,
    NUMBER,
    STATEMENT,
    TEXT_COMMAND,
    TIMES_POWER_OF_TEN,
    parse_number,
    plain_characters,
    plain_numbers,
)
from rewards.quantity_words import (
    CHANGE_BEFORE,
    CHANGE_BEHIND,
    FACTOR_BEFORE_CURRENCY,
    FACTOR_OF_MONEY,
    FACTORS_BEHIND,
    unit_factor,
)

MAX_STATEMENTS = 8  # of the form "the answer is ...", counted from the end
TAIL_LENGTH = 2_000  # final characters in which the loose tier looks for a number without any mark

_MATH_OPEN = re.compile(r"(?<!\\)(?:\$\$|\$|\\\[|\\\()")
# An inline environment ends on its line.
_MATH_CLOSE = {
    "$$": re.compile(r"\$\$"),
    "$": re.compile(r"(?<!\\)\$|\n"),
    "\\[": re.compile(r"\\\]"),
    "\\(": re.compile(r"\\\)|\n"),
}
_PROSE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2,}[,.]?\s+[A-Za-z]{2,}")
# A number with all that makes it another one: sign, currency, power of ten, factors, fractions, base. Groups that end
# in + keep what they took, so that none of it is given back to let the number stand alone.
_FREE_NUMBER = re.compile(
    rf"(?<![A-Za-z0-9^\\{{])(?<![A-Za-z0-9)}}\]\\]_)(?<![0-9][{MARKS_INSIDE}])(?<![0-9]\{{,\}})(?<![0-9]\\[!,;: ])"
    rf"(?<!\bnot )(?:{CHANGE_BEFORE})?+(?:(?<![)])[+-])?(?P<price>\\?[{CURRENCY}])?-?"
    rf"(?:[0-9]+ {{1,2}}[0-9]+/[0-9]+|{NUMBER}"
    rf"(?: ?/ ?[0-9]+(?:\.[0-9]+)?|[eE][+-]?[0-9]{{1,3}}(?![A-Za-z0-9])|{TIMES_POWER_OF_TEN})?+)"
    rf"(?(price)(?:{FACTOR_OF_MONEY})?+|(?:{FACTOR_BEFORE_CURRENCY})?+)(?:{FACTORS_BEHIND})*+(?:{CHANGE_BEHIND})?+"
    rf"(?![0-9}}\u0300-\u036f]|\)?_+[A-Za-z0-9{{(\\]|[{MARKS_INSIDE}][0-9]|\{{,\}}[0-9]|,?\\[!,;: ]\s?[0-9]|~[0-9]"
    r"|\s?[\^π]|\s?\\(?!text|mathrm|mbox|[%$)\],; !]|q?quad))"
)
_FREE_FRACTION = re.compile(
    r"(?<![A-Za-z0-9}\\])[+-]?[0-9]*\\[dtc]?frac\s*(?:\{[0-9.]+\}\s*\{[0-9.]+\}|[0-9]\s?[0-9])"
    rf"(?:{FACTORS_BEHIND})*+(?:{CHANGE_BEHIND})?+"
    r"(?![A-Za-z0-9^({_]|\s?\^|\s[A-Za-z](?![A-Za-z])|\s?\\(?!text|mathrm|mbox|[%$)\],; !]|q?quad))"
)
# A stated number may be the first of several or open a calculation, with a unit in between.
_GOES_ON = re.compile(
    rf"\s*(?:[A-Za-z]{{2,}}\s*){{0,2}}(?:(?:\bor\b|\bto\b|±|[-+*/×÷=^])\s*(?:[{CURRENCY}(]?[0-9]|\\|[A-Za-z](?![A-Za-z])))"
)
_SENTENCE = re.compile(r"(?:[^.\n]|\.(?![\s]|$))+")
_ANNOTATION = re.compile(r"<<[^<>\n]*>>")  # of GSM8K's solutions
_MARKUP = " \t\r\n*_`\"'"
_SPECIAL_TOKEN = re.compile(r"<\|[^|<>]{1,40}\|>|</s>")


class Verdict(StrEnum):
    """What the answer at the place that the prompt asks for is; `CORRECT` alone makes the medium tier true."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    NO_ANSWER = "no_answer"
    MULTIPLE_ANSWERS = "multiple_answers"


def math_spans(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of the LaTeX environments of ``text``.

    Dollars around prose, and a pair whose second one stands right before a digit, are amounts of money.
    """
    spans, position = [], 0
    while opening := _MATH_OPEN.search(text, position):
        position = opening.end()
        closing = _MATH_CLOSE[opening[0]].search(text, position)
        if closing is None or closing[0] == "\n":
            continue
        content = text[position : closing.start()]
        is_amount = text[closing.end() : closing.end() + 1].isdigit()
        is_money = opening[0] == "$" and (is_amount or _PROSE.search(TEXT_COMMAND.sub("", content)))
        if content.strip() and not is_money:
            spans.append((opening.start(), closing.end(), content))
            position = closing.end()
    return spans


def _is_free(match: re.Match) -> bool:
    """Whether a match of `_FREE_NUMBER` is a number of its own: neither an ordinal nor the factor of a symbol."""
    letters = re.match(r"[A-Za-z]+", match.string[match.end() : match.end() + 32])
    return letters is None or unit_factor(letters[0], attached=True) is not None


def has_latex(text: str) -> bool:
    """Whether ``text`` holds a LaTeX environment (an inline one stands on one line) or a box."""
    return bool(math_spans(text) or complete_boxes(text))


def stated_answer(text: str) -> str | None:
    """What the last "answer is X" or "answer: X" of ``text`` says, where X starts with math, a box or a number.

    One before a ``####`` is part of the solution, since GSM8K's solutions end in that mark and their answer.
    """
    text = text.rpartition("####")[2]
    for match in list(STATEMENT.finditer(text))[-MAX_STATEMENTS:][::-1]:
        rest = _ANNOTATION.sub("", text[match.end() : match.end() + MAX_LENGTH])
        rest = plain_numbers(plain_characters(rest)).lstrip(_MARKUP)
        formula, box = math_spans(rest)[:1], complete_boxes(rest)[:1]
        if formula and formula[0][0] == 0:
            return formula[0][2]
        if box and box[0].start == 0:
            return box[0].content(rest)
        number = _FREE_FRACTION.match(rest) or _FREE_NUMBER.match(rest)
        if number and _is_free(number):
            return _calculated(rest) if _GOES_ON.match(rest, number.end()) else number[0]
    return None


def _calculated(rest: str) -> str:
    """The result of the calculation that the first sentence of ``rest`` is; the sentence where it has none."""
    sentence = _SENTENCE.match(rest)[0]
    side = sentence.rpartition("=")[2].lstrip(_MARKUP)
    result = _FREE_NUMBER.match(side) if side != sentence else None
    return result[0] if result and _is_free(result) else sentence


def last_number(text: str, any_math: bool = False) -> str | None:
    """The last number or LaTeX environment with digits in the final `TAIL_LENGTH` characters of ``text``.

    Args:
        any_math: environments without digits count too.
    """
    tail = plain_numbers(plain_characters(_SPECIAL_TOKEN.sub(" ", text[-TAIL_LENGTH:])))
    spans = [span for span in math_spans(tail) if any_math or re.search("[0-9]", span[2])]
    matches = [*_FREE_FRACTION.finditer(tail), *filter(_is_free, _FREE_NUMBER.finditer(tail))]
    numbers = [(match.start(), match.end(), match[0]) for match in matches]
    spans += [number for number in numbers if not any(start < number[1] <= end for start, end, _ in spans[-1:])]
    return max(spans)[2] if spans else None


def last_block(text: str) -> str | None:
    """Content of the last complete answer block."""
    block = last_answer(text)
    return None if block is None else block.text


def last_hashes(text: str) -> str | None:
    """What follows the last ``####`` on its line."""
    _, mark, rest = text.rpartition("####")
    return rest.lstrip(" ").partition("\n")[0] if mark else None


NUMBER_FINDERS = (stated_answer, last_block, last_box, last_hashes, last_number)


def find_answer(completion: str, finders: Sequence[Callable[[str], str | None]] = NUMBER_FINDERS) -> str | None:
    """What the first of ``finders`` that finds something takes for the answer of ``completion``, else None.

    They look outside the thinking, or everywhere if nothing stands outside.
    """
    scope = outside_thinking(completion)
    return next((found for find in finders if (found := find(scope)) is not None), None)


def grade_answer(
    completion: str,
    canonical: Callable[[str], str | None],
    is_right: Callable[[str], bool],
    finders: Sequence[Callable[[str], str | None]] = NUMBER_FINDERS,
    place: AnswerPlace = AnswerPlace.TAGS,
) -> Grade:
    """`Grade` of ``completion``, for any kind of answer.

    strict: `is_well_formed` for ``place``, and medium. medium: an answer at ``place`` outside the thinking, and right:
    exactly one complete answer block, or the last complete box. loose: medium, or the answer that `find_answer` finds
    is right. So each tier contains the one before.

    Args:
        canonical: text of an answer -> the text that equal answers share, None if it cannot be read.
        is_right: text of an answer that can be read -> whether it equals the gold answer.
        finders: where `find_answer` looks for the loose tier's answer, in order.
        place: where the prompt asks for the answer.
    """
    well_formed = is_well_formed(completion, place)
    block = placed_answer(completion, place)
    answer = None
    if block is not None and block.repeated:
        verdict = Verdict.MULTIPLE_ANSWERS
    elif block is None or not block.text.strip():
        verdict = Verdict.NO_ANSWER
    else:
        answer = canonical(block.text)
        verdict = Verdict.UNPARSABLE
        if answer is not None:
            verdict = Verdict.CORRECT if is_right(block.text) else Verdict.WRONG
    medium = loose = verdict == Verdict.CORRECT
    if not medium:
        found = find_answer(completion, finders)
        elsewhere = None if found is None else canonical(found)
        loose = elsewhere is not None and is_right(found)
        answer = elsewhere if answer is None else answer
    return Grade(medium and well_formed, medium, loose, answer, str(verdict), well_formed)


def grade_number(completion: str, gold: str, place: AnswerPlace = AnswerPlace.TAGS) -> Grade:
    """`Grade` of ``completion`` by exact equality with the number ``gold``; ``place``: where its prompt asks for it.

    Raises `UserError` when ``gold`` is not a number.
    """
    target = parse_number(gold)
    if target is None:
        raise UserError(f"the gold answer {gold[:80]!r} is not a number; mend the row, or use the LaTeX grader.")

    def canonical(text: str) -> str | None:
        value = parse_number(text)
        return None if value is None else str(value)

    return grade_answer(completion, canonical, lambda text: parse_number(text) == target, place=place)
