"""Multiple choice: which option does an answer name, by its letter or by its text?

An answer names an option or it does not: a letter in running text is no answer, since "A" and "I" are words. Everything
here takes linear time and raises on no completion.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import log
from string import ascii_uppercase

from common.errors import UserError
from rewards.answer import Verdict
from rewards.boxes import outer_boxes
from rewards.format import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    CUT,
    FormatReward,
    completion_text,
    cut_thinking,
    is_well_formed,
    last_answer,
    outside_thinking,
)
from rewards.grade import Grade, log_grades
from rewards.number import plain_characters

LETTERS = ascii_uppercase[:10]
FIRST_LINE = "first_line"  # column: whether the prompt ends in "Answer:", so that the first line is the answer
MAX_ANSWER = 4_000  # characters; a longer answer names no option

_WRAPS = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\\boxed\{(.*)\}",
        r"\\(?:text|mathrm|textbf)\{(.*)\}",
        r"\*\*(.*)\*\*",
        r"\*(.*)\*",
        r"`(.*)`",
        r"\$(.*)\$",
        r"\\\((.*)\\\)",
        r"\\\[(.*)\\\]",
        r'["“](.*)["”]',
        r"['‘](.*)['’]",
    )
]
_NAMED = re.compile(
    r"(?:the\s+)?(?:(?:correct|best)\s+)?(?:(?:answer|option|choice)\b\s*)?(?:is\b\s*)?(?::\s*)?"
    r"(?-i:\((?P<bracketed>[A-Z])\)|(?P<plain>[A-Z])(?=[\s.:)-]|$))\s*(?P<mark>[.:)-]?)\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_BOLD = re.compile(r"(?<!\w)\*\*|\*\*(?!\w)")  # those of **C.** copper, but not of 2**3
_SAID = re.compile(
    r"\b(?:answer|option|choice)\b\s*+(?:is\b\s*+)?(?::\s*+)?(?:\*\*)?\(?(?-i:([A-J]))(?![A-Za-z'’])", re.IGNORECASE
)
_NEGATED = re.compile(r"\bnot\s+(?:the\s+)?(?:(?:correct|best)\s+)?$", re.IGNORECASE)


def plain_option(text: str) -> str:
    """``text`` as options are compared: case, spaces, a final period and the form of characters do not count."""
    return "".join(plain_characters(text).casefold().split()).removesuffix(".")


def read_choice(text: str, choices: Sequence[str]) -> int | None:
    """Index of the option that ``text``, the whole answer, names by its text or letter; None where it names none."""
    if len(text) > MAX_ANSWER:
        return None
    plain, bare = _spellings(tuple(choices))
    whole, text = text.strip(), _unwrapped(text)
    for said in (whole, text):  # an option may itself stand in quotes or dollars
        if said in choices:  # ahead of the next line, since options may differ in case alone: rr, Rr, RR
            return list(choices).index(said)
        if (same := _only_place(plain_option(said), plain)) is not None:
            return same
    text = _unwrapped(plain_characters(text))
    if len(text) == 1 and text.isalpha():
        return _index(text.upper(), choices)
    if (same := _only_place(_bare(text), bare)) is not None:
        return same
    named = _NAMED.fullmatch(_BOLD.sub("", text))
    if named is None:
        return None
    index = _index(named["bracketed"] or named["plain"], choices)  # a small letter counts by itself alone
    if index is None or not named["rest"]:
        return index
    option = _bare(_BOLD.sub("", choices[index]))  # of "A gas" no other, since A may be an article
    texts = (_bare(named["rest"]), _bare(named["mark"] + named["rest"]))  # the mark may be a sign of the option's text
    return index if option in texts else None


@lru_cache(maxsize=256)  # a completion may have thousands of boxes, each compared with the same options
def _spellings(choices: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """`plain_option` and `_bare` of each option."""
    return [plain_option(choice) for choice in choices], [_bare(choice) for choice in choices]


def _only_place(text: str, texts: list[str]) -> int | None:
    return texts.index(text) if texts.count(text) == 1 else None


def _bare(text: str) -> str:
    return plain_option(_unwrapped(text))


def _unwrapped(text: str) -> str:
    while True:
        text = text.strip()
        inner = next((match[1] for wrap in _WRAPS if (match := wrap.fullmatch(text))), None)
        if inner is None:
            return text
        text = inner


def _index(letter: str, choices: Sequence[str]) -> int | None:
    index = LETTERS.find(letter)
    return index if 0 <= index < len(choices) else None


def find_choice(completion: str, choices: Sequence[str]) -> int | None:
    """The option that ``completion`` names anywhere outside its thinking, for the loose tier; None where none.

    The last answer block; else the last capital letter behind "answer", "option" or "choice" or in a box; else the last
    line that is not empty.
    """
    scope = outside_thinking(completion).replace(CUT, "\n")
    block = last_answer(scope)
    if block is not None and (found := read_choice(block.text, choices)) is not None:
        return found
    said = [
        (match.start(), index)
        for match in _SAID.finditer(scope)
        if not _NEGATED.search(scope[max(0, match.start() - 40) : match.start()])
        and (index := _index(match[1], choices)) is not None
    ]
    said += [
        (box.start, index)
        for box in outer_boxes(scope)
        if box.end - box.start <= MAX_ANSWER and (index := read_choice(box.content(scope), choices)) is not None
    ]
    if said:
        return max(said)[1]
    lines = scope.replace(ANSWER_OPEN, "\n").replace(ANSWER_CLOSE, "\n").strip().splitlines()
    return read_choice(lines[-1], choices) if lines else None


def grade_choice(completion: str, choices: Sequence[str], gold: str, first_line: bool = False) -> Grade:
    """`Grade` of ``completion`` for the option whose text is ``gold``.

    medium: exactly one complete answer block outside the thinking, or with ``first_line`` the first line, names the
    gold option (`read_choice`). strict: the whole completion has the asked shape too, which is one capital letter for a
    first line. loose: medium, or, where no option can be read at that place, `find_choice` names it. The answer is the
    option's text, so that a vote does not hang on the order of options.

    Raises `UserError` unless exactly one of ``choices`` is ``gold``.
    """
    if list(choices).count(gold) != 1:
        raise UserError(
            f"the gold answer {gold[:80]!r} is not exactly one of the options {list(choices)}; mend the row."
        )
    target = list(choices).index(gold)
    text, repeated = _at_place(completion, first_line)
    well_formed = bool(re.fullmatch(r"[A-J]\.?", text.strip())) if first_line else is_well_formed(completion)
    found = None
    if repeated:
        verdict = Verdict.MULTIPLE_ANSWERS
    elif not text.strip():
        verdict = Verdict.NO_ANSWER
    else:
        found = read_choice(text, choices)
        verdict = Verdict.UNPARSABLE
        if found is not None:
            verdict = Verdict.CORRECT if found == target else Verdict.WRONG
    medium = verdict is Verdict.CORRECT
    if found is None:
        found = find_choice(completion, choices)
    answer = None if found is None else choices[found]
    return Grade(medium and well_formed, medium, found == target, answer, str(verdict), well_formed)


def _at_place(completion: str, first_line: bool) -> tuple[str, bool]:
    """(text of the answer, whether it is one of several); the text is empty where there is none."""
    if first_line:
        return completion.lstrip().partition("\n")[0], False
    block = last_answer(cut_thinking(completion))
    return ("", False) if block is None else (block.text, block.repeated)


class ChoiceReward:
    """TRL reward column "correctness": 1.0 where the answer names the right option (medium tier), else 0.0.

    Logs verdict and answer of each completion, the tiers, the share of each letter among the options named, the entropy
    of the letters in nats, and ``letters/constant``, the accuracy of always saying the most frequent letter.

    Args:
        num_letters: letters that are logged, the most options that a row has.
    """

    __name__ = "correctness"
    full = 1.0

    def __init__(self, num_letters: int):
        self.letters = LETTERS[:num_letters]

    def __call__(
        self, prompts, completions, choices, gold, first_line=None, log_extra=None, log_metric=None, **kwargs
    ) -> list[float]:
        at_start = first_line or [False] * len(completions)
        texts = map(completion_text, completions)
        grades = [grade_choice(*row) for row in zip(texts, choices, gold, at_start, strict=True)]
        log_grades(log_extra, log_metric, grades, Verdict)
        if log_metric is not None and grades:
            said = said_letters([grade.answer for grade in grades], choices)
            gold_letters = said_letters(gold, choices)
            shares = letter_shares(said)
            for letter in self.letters:
                log_metric(f"letters/{letter}", shares.get(letter, 0.0))
            log_metric("letters/entropy", entropy(shares))
            log_metric("letters/constant", constant_accuracy(said, gold_letters))
        return [float(grade.medium) for grade in grades]


def said_letters(answers: Sequence[str | None], choices: Sequence[Sequence[str]]) -> list[str | None]:
    """The letter under which each answer, an option's text, stood in its own row; None where there is none."""
    return [
        None if answer is None else LETTERS[list(options).index(answer)]
        for answer, options in zip(answers, choices, strict=True)
    ]


def letter_shares(letters: Sequence[str | None]) -> dict[str, float]:
    """Letter -> its share among the letters said, in the order of the alphabet."""
    said = sorted(letter for letter in letters if letter is not None)
    return {letter: count / len(said) for letter, count in Counter(said).items()}


def entropy(shares: dict[str, float]) -> float:
    """Entropy of the shares in nats; 0 where nothing was said."""
    return -sum(share * log(share) for share in shares.values())


def constant_accuracy(said: Sequence[str | None], gold: Sequence[str]) -> float:
    """Accuracy of a policy that always says the letter that is most frequent in ``said``; 0 where nothing was said."""
    shares = letter_shares(said)
    most = max(shares, key=shares.get, default=None)
    return sum(letter == most for letter in gold) / len(gold)


def choice_rewards(num_letters: int, first_line: bool) -> list:
    """The reward columns of multiple choice; a first line has no tags to pay for."""
    return [ChoiceReward(num_letters)] if first_line else [ChoiceReward(num_letters), FormatReward()]
