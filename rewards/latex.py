"""LaTeX answers, as in MATH: equality by math-verify behind an exact fast path, under the tiers of `rewards.answer`.

math-verify compares in a process of its own (see `rewards.latex_worker`), so grading works in any thread and no answer
can hang it or run as code there.
"""

import re
from fractions import Fraction

from rewards.answer import (
    boxed_contents,
    grade_answer,
    last_block,
    last_hashes,
    last_number,
    math_spans,
    plain_characters,
    stated_answer,
)
from rewards.grade import Grade
from rewards.latex_worker import Reading, is_equal
from rewards.number import TEXT_COMMAND, parse_number, strip_markup
from training.errors import UserError

MAX_LENGTH = 512  # characters of an answer
MAX_DEPTH = 24  # nested brackets and commands' arguments
TAIL_LENGTH = 2_000  # final characters in which the loose tier looks for LaTeX without any mark

_PLAIN_NUMBER = re.compile(r"(?:[0-9.+\-/ ]|\\frac\{[0-9]+\}\{[0-9]+\})+")
_SAME_SPELLING = (
    (re.compile(r"(?<!\\)\\[!,;: ]"), " "),
    (re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*([0-9])\s*([0-9])"), r"\\frac{\1}{\2}"),
    (TEXT_COMMAND, r"\1"),
    (re.compile(r"\s+"), " "),
    (re.compile(r" (?![0-9A-Za-z])|(?<![0-9A-Za-z]) "), ""),
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BETWEEN_BOXES = re.compile(r"(?:[\s$,;.(){}]|\\[()\[\]]|\\q?quad|\\text|and|or){0,30}")
_WORD = re.compile(r"\\(?:text|mathrm|mbox)|(?<![\\A-Za-z])[A-Za-z]{2,}")


def last_boxes(text: str) -> str | None:
    """Contents of the last box and of those joined to it by nothing but commas, "and" or "or", as one list."""
    contents, border = [], None
    for start, end, content in reversed(boxed_contents(text)):
        if border is not None and end > border:
            continue
        if border is not None and not _BETWEEN_BOXES.fullmatch(text, end, border):
            break
        border = start
        if content not in contents:
            contents.append(content)
    return ",".join(reversed(contents)) if contents else None


def last_math(text: str) -> str | None:
    """The last LaTeX environment in the final `TAIL_LENGTH` characters of ``text``, or its last number without one."""
    spans = math_spans(text[-TAIL_LENGTH:])
    return spans[-1][2] if spans else last_number(text)


LATEX_FINDERS = (stated_answer, last_block, last_boxes, last_hashes, last_math)


def canonical_latex(text: str) -> str | None:
    """``text`` in one spelling: equal for answers that differ in spacing, markup or the form of a plain number.

    None for an answer that is blank, longer than `MAX_LENGTH`, nested deeper than `MAX_DEPTH` or whose braces do not
    match.
    """
    if len(text.strip()) > MAX_LENGTH or not _is_nested_well(text):
        return None
    text = _cleaned(text)
    for pattern, plain in _SAME_SPELLING:
        text = pattern.sub(plain, text)
    number = _plain_number(text)
    return text or None if number is None else str(number)


def _cleaned(text: str) -> str:
    return strip_markup(plain_characters(text.strip())).rstrip(".,;: ")


def _plain_number(text: str) -> Fraction | None:
    """The number that ``text`` is, without units, percent signs or separators, whose reading depends on the problem."""
    return parse_number(text) if _PLAIN_NUMBER.fullmatch(text) else None


def _is_nested_well(text: str) -> bool:
    """Whether the braces of ``text`` match, and brackets and powers are nested no deeper than `MAX_DEPTH`."""
    depth = 0
    for match in _BRACE.finditer(text):
        depth += (match[0] == "{") - (match[0] == "}")
        if not 0 <= depth <= MAX_DEPTH:
            return False
    return depth == 0 and max(text.count(opening) for opening in ("(", "[", "^", "\\sqrt")) <= MAX_DEPTH


def grade_latex(completion: str, gold: str) -> Grade:
    """`Grade` of ``completion`` (without its prompt) by mathematical equality with ``gold``.

    ``gold`` is LaTeX or plain text without its environment, as in MATH. Two plain numbers are compared exactly, all
    else by math-verify, for which decimals are equal where they agree to 6 places. Raises `UserError` when ``gold`` is
    blank or beyond the caps of an answer, `RunError` when math-verify's process cannot be started.
    """
    target = canonical_latex(gold)
    if target is None:
        raise UserError(f"the gold answer {gold[:80]!r} is blank, too long or badly nested; mend the row.")
    target_number = _plain_number(target)

    def is_right(text: str) -> bool:
        answer = canonical_latex(text)
        if answer == target:
            return True
        if target_number is not None and _plain_number(answer) is not None:
            return False
        # Without any word a letter at the end is a variable, as in 2k, and no unit.
        units = bool(_WORD.search(gold) or _WORD.search(text))
        return is_equal(_cleaned(gold), _cleaned(text), Reading(whole=True, units=units))

    return grade_answer(completion, canonical_latex, is_right, LATEX_FINDERS)
