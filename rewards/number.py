"""Reading the one number that a short text says, as an exact fraction.

No rounding, no tolerance: 18, 1800, 0.18 and 18% are four different numbers. Nothing here runs text as code or raises.
"""

import re
import unicodedata
from fractions import Fraction

from rewards.quantity_words import CURRENCY_CODES, SIGNS, unit_factor

MAX_LENGTH = 256  # characters of an answer

CURRENCY = "$€£¥₹₩₽₺₫฿₦₱₪¢"
NUMBER = (
    r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9])"  # 1,080.5
    r"|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?(?![0-9])"  # 12,34,567 as in India
    r"|[1-9][0-9]{0,2}(?: [0-9]{3})+(?:[.,][0-9]+)?(?![0-9/])"  # 1 080.5
    r"|[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}(?:,[0-9]+)?(?![0-9])"  # 1.234.567,8
    r"|(?:0,[0-9]+|[0-9]+,[0-9]{1,2})(?![0-9,.])"  # 2,74 with a decimal comma
    r"|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
)
_COMMAS_OF_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}")
_QUOTIENT = rf"(?:(?P<whole>[0-9]+) +(?=[1-9]))?(?P<numerator>{NUMBER}) ?/ ?(?P<denominator>{NUMBER})"
TIMES_POWER_OF_TEN = r" ?(?:[x×*·⋅]|\\times|\\cdot) ?10 ?\^ ?\{?(?P<power>[+-]?[0-9]{1,3})\}?"
_SCIENTIFIC = rf"(?P<mantissa>{NUMBER})(?:[eE](?P<exponent>[+-]?[0-9]{{1,3}})|{TIMES_POWER_OF_TEN})"
_VALUE = rf"(?:{_QUOTIENT}|{_SCIENTIFIC}|(?P<number>{NUMBER}))"
_WORD = r"[^\W\d_]+"
_QUANTITY = re.compile(
    rf"(?P<sign>[+-]?) ?(?:[A-Z]{{2}}|Rs\.? ?|(?:{'|'.join(CURRENCY_CODES).upper()}) )?(?P<price>[{CURRENCY}]?) ?"
    rf"(?P<inner_sign>[+-]?) ?{_VALUE} ?(?P<price_behind>[{CURRENCY}]?) ?"
    rf"(?P<unit>[{''.join(SIGNS)}]|[/-]? ?{_WORD}(?:[ ./'’-]+{_WORD})*)?"
)

_DASHES = str.maketrans(dict.fromkeys("−‐‑‒–—―", "-") | {"⁄": "/", "∕": "/"})
_RAISED = re.compile(
    "(?P<up>[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)|₍?[₀₁₂₃₄₅₆₇₈₉]+₎?|<(?P<tag>sub|sup)>\\s*(?P<text>[^<>]{1,20}?)\\s*</(?P=tag)>"
)
# NFKC would make a letter of the first and spaces with an accent of the others.
_SPOILT_BY_NFKC = str.maketrans(dict.fromkeys("º˚", "°") | {"´": "'"})
_APOSTROPHES = "'’‘ʼ′٬"
_THOUSANDS_MARK = (
    r"(?:(?:\\!)*(?:\{\s*,\s*\}|\\(?:text|mathrm|mathord|mbox)\{,\}|,)(?:\\!\s*)*"
    rf"|\{{?\\(?:[,;: ]|thinspace\s*)\}}?|~|[{_APOSTROPHES}])"
)
_GROUPED = re.compile(rf"(?<![0-9.,])[1-9][0-9]{{0,2}}(?:{_THOUSANDS_MARK}[0-9]{{3}})+(?![0-9])")
# Between two digits these leave one number, of which neither half may be read alone.
MARKS_INSIDE = rf".,:/{_APOSTROPHES}"
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_FRACTION = re.compile(
    r"\\[dtc]?frac\s*(?:\{\s*([+-]?[0-9.]+)\s*\}|([0-9]))\s*(?:\{\s*([0-9.]+)\s*\}|([0-9]))",
)
_REPEATING = re.compile(r"([0-9]{0,64})\.([0-9]{0,64})\\(?:overline|overbar|bar|dot)\s*\{\s*([0-9]{1,64})\s*\}")
_LATEX = (
    (re.compile(r"\\\\(?!\s*(?:&?\s*=|$))"), ";"),  # the end of a line ends an equation, but not within a chain
    (re.compile(r"\\\\"), " "),
    (re.compile(r"\{,\}|,\\!\s*"), ","),
    (re.compile(r"\\!|\\(?:left|right|displaystyle)(?![A-Za-z])"), ""),
    (re.compile(r"\\[,;: ]|~|\\q?quad(?![A-Za-z])"), " "),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\^\s*\\circ|\^\s*\{\s*\\circ\s*\}|\\degree(?![A-Za-z])|°"), " degrees "),
    (re.compile(r"(?<=[A-Za-z])\s*\^\s*(?:\{[23]\}|[23])(?![0-9])|(?<=[a-z]m|[ 0-9]m|ft|in)[23]\b"), ""),
    (re.compile(r"\\approx(?![A-Za-z])|≈"), "="),
    (re.compile(r"(?<=[0-9])\s*([ap])\.\s?m\b\.?", re.IGNORECASE), r" \1m"),
)
STATEMENT = re.compile(r"\banswer[\s*_]{0,8}(?:(?:is|are)\b[\s*_]{0,8}[:=]?|[:=])", re.IGNORECASE)
_LEADING_STATEMENT = re.compile(rf"[\s*_]*(?:[A-Za-z]+[\s,*_]+){{0,6}}{STATEMENT.pattern}[\s*_]*", re.IGNORECASE)
_INEQUALITY = re.compile(r"[<>≠≤≥!]|\\(?:n?e|le|ge|neq|leq|geq|lt|gt|pm|in)(?![A-Za-z])|±")
# Between two equals signs: the end of one equation and the name of the next. 2 m may be a unit, 2 y is none.
_PLAIN_VALUE = rf"\s*[+-]?[{CURRENCY}]?[+-]?[0-9][0-9.,/]*[{CURRENCY}%]?(?:\s+[A-Za-z]{{2,}})*"
_SEVERAL = re.compile(
    rf",(?![0-9])|;|\b(?:or|and|then|but)\b|^{_PLAIN_VALUE}\s+(?:(?![mglLshFC])[A-Za-z]|[A-Za-z]_\S+)\s*$"
)
# Before the first one: a value and the name of an equation. Words alone may be of a sentence, as in "tax and tip = 5".
_VALUE_AND_NAME = re.compile(rf"{_PLAIN_VALUE}\s*(?:[,;\n]|\b(?:or|and)\b)\s*[A-Za-z](?:_\S+)?\s*")
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("\\boxed{", "}"), ("\\fbox{", "}"))
_QUOTES = " \"'“”‘’"
_BRACKETS = (("{", "}"), ("(", ")"))


def plain_characters(text: str) -> str:
    """``text`` in NFKC with ASCII minus and slash, without invisible characters.

    Raised and lowered characters, those of HTML too, become ``^`` and ``_`` with plain ones; circled digits and the
    like get a ``^`` before them and vulgar fractions a space, so that none of them ever joins the number next to it.
    """
    if text.isascii() and "<" not in text:
        return text
    parts = []
    for character in _RAISED.sub(_raised, text).translate(_SPOILT_BY_NFKC):
        category = unicodedata.category(character)
        if category == "No":
            plain = unicodedata.normalize("NFKC", character)
            parts.append((" " if "⁄" in plain else "^") + plain)
        elif category != "Cf":
            parts.append(character)
    return unicodedata.normalize("NFKC", "".join(parts)).translate(_DASHES)


def _raised(match: re.Match) -> str:
    """Raised or lowered text as LaTeX writes it."""
    mark = "^" if match["up"] or match["tag"] == "sup" else "_"
    plain = unicodedata.normalize("NFKC", match["text"] or match[0]).translate(_DASHES).strip("()")
    return mark + (plain if len(plain) == 1 else f"{{{plain}}}")


def plain_numbers(text: str) -> str:
    """``text`` with commas between thousands, however LaTeX, ~ or ' mark them, and repeating decimals as fractions.

    So ``8{,}640``, ``8\\,640`` and ``8'640`` become ``8,640``, and ``0.1\\overline{6}`` becomes ``1/6``.
    """
    text = _GROUPED.sub(lambda match: ",".join(re.findall("[0-9]+", match[0])), text)
    return _REPEATING.sub(_repeating_decimal, text)


def _repeating_decimal(match: re.Match) -> str:
    """0.1\\overline{6} as the fraction that it is."""
    whole, fixed, repeated = match.groups()
    numerator = int(whole + fixed + repeated) - int(whole + fixed or 0)
    return str(Fraction(numerator, 10 ** len(fixed) * (10 ** len(repeated) - 1)))


def strip_markup(text: str, brackets: bool = False) -> str:
    """``text`` without the markup, math delimiters and boxes that enclose all of it.

    Args:
        brackets: take off brackets too, but for those around a list.
    """
    while True:
        inner = text.strip().removeprefix("####").strip().strip("*_`")
        for opening, closing in _WRAPPERS + (_BRACKETS if brackets else ()):
            if len(inner) > len(opening) and inner.startswith(opening) and inner.endswith(closing):
                enclosed = inner[len(opening) : -len(closing)]
                if _is_one_piece(enclosed, opening, closing):
                    inner = enclosed
        if inner == text:
            return inner
        text = inner


def strip_statement(text: str) -> str:
    """``text`` without "the answer is", "Final answer:" or the like at its beginning."""
    match = _LEADING_STATEMENT.match(text)
    return text[match.end() :] if match else text


def _is_one_piece(enclosed: str, opening: str, closing: str) -> bool:
    """Whether ``opening`` and ``closing`` around ``enclosed`` belong together, and brackets hold no list."""
    if closing not in ")}":
        return closing not in enclosed
    depth = 0
    for character in enclosed:
        depth += (character == opening[-1]) - (character == closing)
        if depth < 0:
            return False
    return depth == 0 and not (len(opening) == 1 and "," in enclosed)


def _plain_latex(text: str) -> str:
    """``text`` with the LaTeX that occurs in numbers written out: spacing, text commands, fractions, degrees."""
    replaced = 1
    while replaced:
        text, replaced = TEXT_COMMAND.subn(r" \1 ", text)
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return _FRACTION.sub(lambda match: f" {match[1] or match[2]}/{match[3] or match[4]}", text)


def _right_hand_side(text: str) -> str | None:
    """What follows the last equals sign; None for inequalities and for several equations in one text."""
    return None if _INEQUALITY.search(text) or _has_several(text) else text.rpartition("=")[2]


def _has_several(text: str) -> bool:
    """Whether ``text`` is several equations, or a value and an equation, rather than one or a chain: x=2+3=5."""
    first, *others = text.split("=")
    return any(_SEVERAL.search(part) for part in others[:-1]) or bool(others and _VALUE_AND_NAME.fullmatch(first))


def has_several_equations(text: str) -> bool:
    """Whether an answer is several equations, or a value and an equation, so that it says no one number."""
    return len(text) <= MAX_LENGTH and _has_several(_plain_latex(text))


def _decimal(text: str) -> Fraction:
    """Value of a text that `NUMBER` matches."""
    if text.count(".") > 1 or (" " in text and "," in text):
        text = text.replace("." if "." in text else " ", "").replace(",", ".")
    elif "," in text and "." not in text and not _COMMAS_OF_THOUSANDS.fullmatch(text):
        text = text.replace(",", ".")
    return Fraction(text.replace(",", "").replace(" ", ""))


def parse_number(text: str) -> Fraction | None:
    """The one number that ``text`` says, exactly; None if it says none, several, or is longer than `MAX_LENGTH`.

    Reads signs, thousands (marked by comma, space, apostrophe, or LaTeX spacing; two or more by periods), decimals,
    repeating decimals, fractions, mixed numbers, scientific notation, percentages (18% is 18/100) and the words of
    `quantity_words` that multiply or divide; ignores currency signs, a unit, markup, math delimiters, boxes and a final
    period; of an equation it reads the right-hand side. Digits are ASCII after NFKC.
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        return None
    text = strip_markup(plain_numbers(plain_characters(text)).strip(_QUOTES), brackets=True)
    text = _plain_latex(text)
    text = STATEMENT.sub("=", text, count=1)
    side = _right_hand_side(text)
    if side is None:
        return None
    side = strip_markup(side.strip().rstrip(".,;:"), brackets=True).rstrip(".,;: ").strip(_QUOTES)
    match = _QUANTITY.fullmatch(" ".join(strip_markup(side, brackets=True).split()))
    if match is None or (match["sign"] and match["inner_sign"]):
        return None
    priced = bool(match["price"] or match["price_behind"])
    unit = match["unit"] or ""
    factor = unit_factor(unit, match.string[: match.start("unit")][-1:].isdigit() and unit[:1] != "-", priced)
    value = _value(match)
    if factor is None or value is None:
        return None
    return factor * (-value if "-" in (match["sign"], match["inner_sign"]) else value)


def _value(match: re.Match) -> Fraction | None:
    """Unsigned value of a match of `_VALUE`; None on a zero denominator and on a mixed number like 1 7/2."""
    if match["number"]:
        return _decimal(match["number"])
    if match["mantissa"]:
        return _decimal(match["mantissa"]) * Fraction(10) ** int(match["exponent"] or match["power"])
    whole, numerator, denominator = match["whole"], _decimal(match["numerator"]), _decimal(match["denominator"])
    if not denominator or (whole and numerator >= denominator):
        return None
    return int(whole or 0) + numerator / denominator
