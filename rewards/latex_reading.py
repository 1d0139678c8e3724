"""What a LaTeX answer says before it is compared: one spelling of it, and the numbers, lists and options it holds.

Numbers are read by `rewards.number`, with two cautions that mathematics needs: a single letter may be a variable
(2h is no 2), and a comma before one or two digits separates a list (7,11 is no 7.11).
"""

import re
from fractions import Fraction

from rewards.number import TEXT_COMMAND, parse_number, plain_characters, plain_numbers, strip_markup, strip_statement
from rewards.quantity_words import NUMERALS

MAX_LENGTH = 512  # characters of an answer
MAX_DEPTH = 24  # nested brackets and commands' arguments

_COMMANDS = {
    **{"π": "pi", "∞": "infty", "≤": "le", "≥": "ge", "≠": "ne", "≈": "approx", "±": "pm", "×": "times", "÷": "div"},
    **{"·": "cdot", "⋅": "cdot", "∗": "cdot", "∪": "cup", "∩": "cap", "∈": "in", "∅": "emptyset", "θ": "theta"},
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "λ": "lambda", "μ": "mu", "φ": "phi", "ω": "omega"},
}
_SYMBOLS = str.maketrans({symbol: f"\\{command} " for symbol, command in _COMMANDS.items()} | {"°": "^\\circ "})
_ROOTS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}
_ROOT = re.compile(r"([√∛∜]|\\?(?<![A-Za-z])sqrt)\s*(?:\(([^()]*)\)|\{([^{}]*)\}|([0-9]+(?:\.[0-9]+)?|[A-Za-z]))")
_AS_LATEX = (
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"(?<![\\A-Za-z])(pi|infty)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])infinity(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"(?<![\\A-Za-z])(ln|log|exp|(?:arc)?(?:sin|cos|tan)|sec|csc|cot)(?=\s*\()"), r"\\\1"),
)
_BASE = rf"(?P<base>[0-9]+|{'|'.join(NUMERALS)})"
_BASE_BELOW = re.compile(
    rf"(?<=[0-9])_\s*\{{?\s*(?:\\(?:text|mathrm|mbox)\s*\{{)?\s*[(\[]?\s*(?:base\s*)?{_BASE}\s*[)\]]?\s*\}}{{0,2}}"
)
_BASE_BEHIND = re.compile(
    rf"(?<=[0-9A-F])\s*(?:\\(?:text|mathrm|mbox)\s*\{{)?\s*,?\s*\(?(?:in\s+)?base[\s-]*{_BASE}\)?\s*\}}?(?![A-Za-z0-9])"
)
# 1204 of (1204)_5.
_BRACKETED_DIGITS = re.compile(r"(?<![\^A-Za-z0-9}\])])[({]([0-9A-F]*[0-9][0-9A-F]*)[)}](?=\s*_)")
_BASED = re.compile(r"(?<![A-Za-z0-9^])[0-9A-F]*[0-9][)}]?_\{[^{}]*\}")
_SAME_SPELLING = (
    (re.compile(r"(?<!\\)\\[!,;: ]|~"), " "),
    (re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*([0-9])\s*([0-9])"), r"\\frac{\1}{\2}"),
    (TEXT_COMMAND, r"\1"),
    (re.compile(r"_\s*([0-9A-Za-z])"), r"_{\1}"),
    (re.compile(r"\s+"), " "),
    (re.compile(r" (?![0-9A-Za-z])|(?<![0-9A-Za-z]) "), ""),
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_EXPONENT = re.compile(r"(?<=[0-9])[eE](?=[+-]?[0-9])")
_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_LETTER_BEHIND = re.compile(r"(?<=[0-9}])[A-Za-z](?![A-Za-z])")
_LIST_COMMA = re.compile(r"(?<![0-9,])[0-9]+,[0-9]{1,2}(?![0-9,])")
_BETWEEN_PARTS = re.compile(r"\s*(?:(?:,|;)\s*(?:and|or)\b|,(?![0-9]{3}(?![0-9]))|;|\b(?:and|or)\b)\s*")
_PERCENTAGE = re.compile(r"(?:%|\bper[\s-]?cent|\bpercentage|\bpct)\s*$", re.IGNORECASE)
_HALF_OF_DAY = re.compile(r"(?<=[0-9])\s*([ap])\.?\s?m\.?\s*$", re.IGNORECASE)
_OPTION = re.compile(
    r"(?:option|choice)?\s*(?:\(\s*(?P<in_brackets>[A-J])\s*\)|(?P<plain>[A-J])(?:\)|[.:](?=\s)|$))(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_SET = re.compile(r"\\?(?:\{|lbrace(?![A-Za-z])).*,.*\\?(?:\}|rbrace)", re.DOTALL)
_ORDERED = re.compile(r"[(\[][^()\[\]]*,[^()\[\]]*[)\]]")  # a tuple or an interval
_ANOTHER_OPTION = re.compile(r"(?<![A-Za-z])[A-J](?:\)|[.:]\s)")


def is_readable(text: str) -> bool:
    """Whether ``text`` is an answer within the caps: not too long, its braces match, nothing is nested too deeply."""
    if len(text.strip()) > MAX_LENGTH:
        return False
    depth = 0
    for match in _BRACE.finditer(text):
        depth += (match[0] == "{") - (match[0] == "}")
        if not 0 <= depth <= MAX_DEPTH:
            return False
    return depth == 0 and max(text.count(opening) for opening in ("(", "[", "^", "\\sqrt")) <= MAX_DEPTH


def cleaned(text: str) -> str:
    """A readable answer as LaTeX of plain characters, without "the answer is", markup, enclosing math and a period."""
    text = " ".join(plain_numbers(plain_characters(text)).split())
    while True:
        inner = strip_markup(strip_statement(text)).rstrip(".,;: ").lstrip("= ")
        if inner == text:
            break
        text = inner
    text = _BRACKETED_DIGITS.sub(r"\1", _ROOT.sub(_root, text))
    for pattern, latex in _AS_LATEX:
        text = pattern.sub(latex, text)
    return _BASE_BEHIND.sub(_base, _BASE_BELOW.sub(_base, text)).translate(_SYMBOLS).strip()


def _root(match: re.Match) -> str:
    return f"{_ROOTS.get(match[1], _ROOTS['√'])}{{{match[2] or match[3] or match[4] or ''}}}"


def _base(match: re.Match) -> str:
    """The base of a number as its subscript; none for base ten."""
    name = match["base"].lower()
    base = int(name) if name.isdigit() else _numeral(name)
    return "" if base == 10 else f"_{{{base}}}"


def _numeral(name: str) -> int:
    """Value of one of `NUMERALS`: one to twenty, then the tens."""
    place = NUMERALS.index(name)
    return place + 1 if place < 20 else 10 * (place - 17)


def canonical(answer: str) -> str | None:
    """One spelling of a `cleaned` answer: equal for answers that differ in spacing, markup, or the form of numbers.

    A number, whatever its unit, is its exact fraction, a percentage that of its hundredths before a percent sign, a
    time of day its number before "am" or "pm", a list of numbers its sorted fractions, and an option with its text the
    option's letter.
    """
    number = plain_number(answer)
    if number is not None:
        return f"{100 * number}%" if is_percentage(answer) else f"{number}{half_of_day(answer)}"
    numbers = number_list(answer)
    if numbers is not None:
        return ",".join(map(str, numbers))
    letter = option_letter(answer)
    if letter is not None:
        return letter
    for pattern, plain in _SAME_SPELLING:
        answer = pattern.sub(plain, answer)
    return answer or None


def plain_number(answer: str) -> Fraction | None:
    """The number that a `cleaned` answer is; None for other answers and where a letter may be a variable."""
    bare = TEXT_COMMAND.sub(" ", _HALF_OF_DAY.sub("", _EXPONENT.sub("", answer)))
    return None if _LETTER.search(bare) or _LIST_COMMA.search(bare) else parse_number(answer)


def number_beside(answer: str) -> Fraction | None:
    """The number that a `cleaned` answer says where the gold is a number, so that "x = 5" and "24 m" are one too."""
    bare = TEXT_COMMAND.sub(" ", _HALF_OF_DAY.sub("", _EXPONENT.sub("", answer)))
    return None if _LETTER_BEHIND.search(bare) else parse_number(answer)


def is_percentage(answer: str) -> bool:
    """Whether a percent sign or word ends ``answer``."""
    return bool(_PERCENTAGE.search(TEXT_COMMAND.sub(r" \1", answer)))


def half_of_day(answer: str) -> str:
    """The "am" or "pm" that ends ``answer`` behind a number, however it is spelt; "" where there is none."""
    half = _HALF_OF_DAY.search(TEXT_COMMAND.sub(r" \1", answer))
    return f"{half[1].lower()}m" if half else ""


def number_list(answer: str) -> list[Fraction] | None:
    """The numbers of a list without brackets, sorted; None where it has one part, or any is a time or no number."""
    parts = _BETWEEN_PARTS.split(TEXT_COMMAND.sub(r" \1 ", answer).strip())
    if len(parts) < 2:
        return None
    numbers = []
    for part in parts:
        number = plain_number(part)
        if number is None or half_of_day(part):
            return None
        numbers.append(number)
    return sorted(numbers)


def is_set(answer: str) -> bool:
    """Whether a `cleaned` answer is a list in braces."""
    return bool(_SET.fullmatch(canonical(answer) or ""))


def is_ordered(answer: str) -> bool:
    """Whether a `cleaned` answer is one tuple or interval."""
    return bool(_ORDERED.fullmatch(canonical(answer) or ""))


def based_numbers(answer: str) -> list[str]:
    """The digits with a subscript, which names their base, in a `cleaned` answer, sorted."""
    return sorted(_BASED.findall(re.sub(r"_\s*([0-9A-Za-z])", r"_{\1}", answer)))


def option_letter(answer: str) -> str | None:
    """D of "D", "(D) 12" or "D: text"; None for other answers and where a second option follows."""
    match = _OPTION.fullmatch(TEXT_COMMAND.sub(r"\1", answer).replace("**", "").strip())
    if match is None or _ANOTHER_OPTION.search(match["rest"]):
        return None
    letter = match["in_brackets"] or match["plain"]
    return letter if letter.isupper() else None
