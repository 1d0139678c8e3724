"""Answers to Countdown as models write them, turned into plain expressions.

The rule: a sign or wrapper is read where mathematics or markup gives it one meaning, and then all its spellings are.
What is left over stays in the text, for the evaluator to refuse.
"""

import re

from rewards.expression import ExpressionError, squeeze
from rewards.number import plain_characters, strip_statement

# The last two choose between the text and the picture of the sign before them.
_SIGNS = str.maketrans(
    dict.fromkeys("×·⋅∗•∙‧・⋆✕✖⨯", "*")
    | {"➕": "+", "➖": "-", "➗": "/", "÷": "/", "⧸": "/", "\ufe0e": "", "\ufe0f": ""}
)
_COMMANDS = (
    (re.compile(r"\\(?:(?:times|cdot|ast|star|bullet)(?![A-Za-z])|\*)"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle)(?![A-Za-z])"), ""),
    (re.compile(r"\\[,;:! ]|\\q?quad(?![A-Za-z])|~"), " "),
)
# A letter x between two operands; right behind a lone 0 it begins a hexadecimal number.
_LETTER_TIMES = re.compile(r"(?<=[0-9)\] ])(?<!\b0)[xX](?=[0-9(\[ \\])")
_FRACTION = re.compile(r"\\[dtc]?frac ?(?:\{([^{}]*)\}|([0-9])) ?(?:\{([^{}]*)\}|([0-9]))")
_WRAPPERS = (
    *(("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("\\boxed{", "}"), ("\\fbox{", "}")),
    *(("```", "```"), ("`", "`"), ("**", "**"), ("__", "__"), ("_", "_")),
    *(('"', '"'), ("'", "'"), ("“", "”")),
)
_BRACKETS = {")": "(", "]": "["}


def normalize_answer(text: str, target: int) -> str:
    """An answer as models write it -> plain expression, for `evaluate_expression`.

    Reads Unicode's and LaTeX's signs for ``+ - * /``, the letter x between operands, characters of full width,
    ``\\frac{a}{b}``, square brackets, and spaces of any width; drops invisible characters, "The answer is" before the
    expression, one trailing ``= target``, a final period, and math delimiters, boxes, bold, code and quotation marks
    around the whole. What else there is stays, for the evaluator to refuse. Raises `ExpressionError` on a text that is
    too long (see `squeeze`) or whose brackets cross each other or a fraction's border.
    """
    text = squeeze(plain_characters(squeeze(text)).translate(_SIGNS))
    text = _unwrap(strip_statement(_unwrap(text)).removesuffix("."))
    left, equals, right = text.partition("=")
    if equals and _unwrap(right) == str(target):
        text = _unwrap(left)
    for pattern, plain in _COMMANDS:
        text = pattern.sub(plain, text)
    text = _round_brackets(_LETTER_TIMES.sub("*", text))
    replaced = 1
    while replaced:
        text, replaced = _FRACTION.subn(_plain_fraction, text)
    return text


def _unwrap(text: str) -> str:
    """Take off the wrappers that enclose the whole text."""
    while True:
        inner = text.strip()
        for opening, closing in _WRAPPERS:
            enclosed = inner[len(opening) : -len(closing)]
            is_one = closing == "}" or closing not in enclosed
            if enclosed and is_one and inner.startswith(opening) and inner.endswith(closing):
                inner = enclosed
                break
        if inner == text:
            return text
        text = inner


def _round_brackets(text: str) -> str:
    """``text`` with square brackets made round; raises `ExpressionError` where they cross round ones."""
    opened = []
    for character in text:
        if character in "([":
            opened.append(character)
        elif character in _BRACKETS and opened and opened.pop() != _BRACKETS[character]:
            raise ExpressionError("brackets of two kinds cross each other")
    return text.replace("[", "(").replace("]", ")")


def _plain_fraction(match: re.Match) -> str:
    above, below = match[1] or match[2] or "", match[3] or match[4] or ""
    if not (_is_balanced(above) and _is_balanced(below)):
        raise ExpressionError("a bracket crosses the border of a fraction")
    return f"(({above})/({below}))"


def _is_balanced(text: str) -> bool:
    """Whether every bracket of ``text`` has its partner inside ``text``."""
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0
