"""LaTeX answers, as in MATH: equality by math-verify behind an exact fast path, under the tiers of `rewards.answer`.

math-verify compares in a process of its own (see `rewards.latex_worker`), so grading works in any thread and no answer
can hang it or run as code there.
"""

import re
from fractions import Fraction

from common.errors import UserError
from rewards.answer import grade_answer, last_block, last_hashes, last_number, stated_answer
from rewards.boxes import complete_boxes
from rewards.format import AnswerPlace
from rewards.grade import Grade
from rewards.latex_reading import (
    based_numbers,
    canonical,
    cleaned,
    half_of_day,
    is_ordered,
    is_percentage,
    is_readable,
    is_set,
    number_beside,
    number_list,
    option_letter,
    plain_number,
)
from rewards.latex_worker import Reading, is_equal
from rewards.number import STATEMENT, has_several_equations
from rewards.quantity_words import changing_words

ROUNDED_PLACES = 12  # a decimal with so many says the fraction that it rounds

_DECIMAL = re.compile(r"-?[0-9]*\.([0-9]+)")
_BETWEEN_BOXES = re.compile(r"(?:[\s$,;.(){}]|\\[()\[\]]|\\q?quad|\\text|and|or){0,30}")
_STATED_OPTION = re.compile(rf"(?i:{STATEMENT.pattern})[\s*_]*\(?([A-J])(?=\)|[*_]*[.,:]?(?:\s|$))")
_WORD = re.compile(r"\\(?:text|mathrm|mbox)|(?<![\\A-Za-z])[A-Za-z]{2,}")


def last_boxes(text: str) -> str | None:
    """Contents of the last box and of those joined to it by nothing but commas, "and" or "or", as one list."""
    contents: dict[str, None] = {}  # in the order of the boxes, from the last one
    border = None
    for box in reversed(complete_boxes(text)):
        if border is not None and box.end > border:
            continue
        if border is not None and not _BETWEEN_BOXES.fullmatch(text, box.end, border):
            break
        border = box.start
        contents.setdefault(box.content(text))
    return ",".join(reversed(contents)) if contents else None


def last_math(text: str) -> str | None:
    """The last number or LaTeX environment in the final characters of ``text``."""
    return last_number(text, any_math=True)


def stated_option(text: str) -> str | None:
    """The letter that the last "the answer is D" or "answer: (D)" of ``text`` says."""
    found = _STATED_OPTION.findall(text)
    return found[-1] if found else None


LATEX_FINDERS = (stated_answer, stated_option, last_block, last_boxes, last_hashes, last_math)


def canonical_latex(text: str) -> str | None:
    """`latex_reading.canonical` of an answer; None for one that is blank or beyond the caps of `is_readable`."""
    return canonical(cleaned(text)) if is_readable(text) else None


def grade_latex(
    completion: str, gold: str, reading: Reading | None = None, place: AnswerPlace = AnswerPlace.TAGS
) -> Grade:
    """`Grade` of ``completion`` (without its prompt) by mathematical equality with ``gold``.

    ``gold`` is LaTeX or plain text without its environment, as in MATH. Numbers, with units and words as
    `parse_number` reads them, and lists of numbers are compared exactly. Two things are equal to a number besides: a
    percentage to the number of its hundredths, since golds leave the percent sign out, and a decimal of
    `ROUNDED_PLACES` or more to the fraction it rounds. All else goes to math-verify, for which decimals are equal where
    they agree to 6 places. Raises `UserError` when ``gold`` is blank or beyond the caps of an answer, `RunError` when
    math-verify's process cannot be started.

    Args:
        reading: another way of reading than the reward's, for a case whose source asks for one. Where it is not
            ``whole``, math-verify finds both answers by itself.
        place: where the prompt asks for the answer.
    """
    if reading is not None and not reading.whole:
        return grade_answer(completion, _not_blank, lambda text: is_equal(gold, text, reading), (_not_blank,), place)
    if canonical_latex(gold) is None:
        raise UserError(f"the gold answer {gold[:80]!r} is blank, too long or badly nested; mend the row.")
    target = cleaned(gold)
    return grade_answer(
        completion, canonical_latex, lambda text: _equals(cleaned(text), target, reading), LATEX_FINDERS, place
    )


def _not_blank(text: str) -> str | None:
    return text.strip() or None


def _equals(answer: str, target: str, reading: Reading | None) -> bool:
    """Whether two `cleaned` answers are equal, to math-verify in the way of ``reading``."""
    if canonical(answer) == canonical(target):
        return True
    if reading is not None:
        return is_equal(target, answer, reading)
    if {half_of_day(answer), half_of_day(target)} == {"am", "pm"}:
        return False
    # For math-verify a set equals the tuple, and the open interval, of its elements in the same order.
    if (is_set(answer) and is_ordered(target)) or (is_ordered(answer) and is_set(target)):
        return False
    # math-verify drops the subscripts of numbers, and with a text also the words that multiply.
    if based_numbers(answer) != based_numbers(target):
        return False
    number = plain_number(target)
    if number is not None:
        if has_several_equations(answer):
            return False
        said = number_beside(answer)
        if said is not None:
            return said == number or _is_percent_of(answer, said, target, number) or _rounds(answer, said, number)
    if option_letter(target) and option_letter(answer):
        return False
    numbers, said_numbers = number_list(target), number_list(answer)
    if numbers and said_numbers:
        return set(numbers) == set(said_numbers)
    if changing_words(answer) != changing_words(target):
        return False
    # Without any word a letter at the end is a variable, as in 2k, and no unit.
    units = bool(_WORD.search(target) or _WORD.search(answer))
    return is_equal(target, answer, Reading(whole=True, units=units, set_relations=True))


def _is_percent_of(answer: str, said: Fraction, target: str, number: Fraction) -> bool:
    """Whether one of two numbers is a percentage, and the other the number of its hundredths."""
    if is_percentage(answer) == is_percentage(target):
        return False
    return 100 * said == number if is_percentage(answer) else said == 100 * number


def _rounds(answer: str, said: Fraction, number: Fraction) -> bool:
    """Whether ``answer`` is ``number``, which no decimal equals, to `ROUNDED_PLACES` or more."""
    decimal = _DECIMAL.fullmatch(answer)
    if decimal is None or len(decimal[1]) < ROUNDED_PLACES:
        return False
    has_decimal = pow(10, number.denominator.bit_length(), number.denominator) == 0
    return not has_decimal and abs(said - number) < Fraction(1, 10 ** len(decimal[1]))
