"""Reading the one number that a short text says, as an exact fraction.

No rounding, no tolerance: 18, 1800, 0.18 and 18% are four different numbers. Nothing here runs text as code or raises.
"""

import re
import unicodedata
from fractions import Fraction

MAX_LENGTH = 256  # characters of an answer

CURRENCY = "$€£¥₹₩₽₺₫฿₦₱₪¢"
NUMBER = (
    r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9])"  # 1,080.5
    r"|[1-9][0-9]{0,2}(?: [0-9]{3})+(?:\.[0-9]+)?(?![0-9/])"  # 1 080.5
    r"|(?:0,[0-9]+|[0-9]+,[0-9]{1,2})(?![0-9,.])"  # 2,74 with a decimal comma
    r"|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
)
_QUOTIENT = rf"(?:(?P<whole>[0-9]+) +(?=[1-9]))?(?P<numerator>{NUMBER}) ?/ ?(?P<denominator>{NUMBER})"
_SCIENTIFIC = (
    rf"(?P<mantissa>{NUMBER})(?:[eE]| ?(?:[x×*·]|\\times|\\cdot) ?10 ?\^ ?\{{?)(?P<exponent>[+-]?[0-9]{{1,3}})\}}?"
)
_VALUE = rf"(?:{_QUOTIENT}|{_SCIENTIFIC}|(?P<number>{NUMBER}))"
_WORD = r"[^\W\d_]+"
_QUANTITY = re.compile(
    rf"(?P<sign>[+-]?) ?(?:[A-Z]{{2}})?[{CURRENCY}]? ?(?P<inner_sign>[+-]?) ?{_VALUE} ?[{CURRENCY}]? ?"
    rf"(?P<unit>%|/? ?{_WORD}(?:[ ./'’-]+{_WORD})*)?"
)
_PERCENT = {"%", "percent", "percentage", "pct"}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# Words after a number that make it another quantity, or one of several, instead of naming its unit.
_NOT_A_UNIT = re.compile(
    "or|not|half|halves|over|plus|minus|squared|cubed|factorial|pi|point|hundred|thousand|million|billion|trillion|"
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety",
    re.IGNORECASE,
)
SCALE_WORDS = "|".join([*_SCALES, *sorted(_PERCENT - {"%"})])
_UNIT_LETTERS = set("mglLshFC")
_ORDINALS = {"st", "nd", "rd", "th"}

_DASHES = str.maketrans(dict.fromkeys("−‐‑‒–—", "-") | {"⁄": "/", "∕": "/"})
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_FRACTION = re.compile(
    r"\\[dtc]?frac\s*(?:\{\s*([+-]?[0-9.]+)\s*\}|([0-9]))\s*(?:\{\s*([0-9.]+)\s*\}|([0-9]))",
)
_LATEX = (
    (re.compile(r"\{,\}|,\\!\s*"), ","),
    (re.compile(r"\\!|\\(?:left|right|displaystyle)(?![A-Za-z])"), ""),
    (re.compile(r"\\[,;: ]|~|\\q?quad(?![A-Za-z])"), " "),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\^\s*\\circ|\^\s*\{\s*\\circ\s*\}|\\degree(?![A-Za-z])|°"), " degrees "),
    (re.compile(r"(?<=[A-Za-z])\s*\^\s*(?:\{[23]\}|[23])(?![0-9])|(?<=[a-z]m|[ 0-9]m|ft|in)[23]\b"), ""),
    (re.compile(r"\\approx(?![A-Za-z])|≈"), "="),
)
STATEMENT = re.compile(r"\banswer\s*(?:(?:is|are)\b\s*[:=]?|[:=])", re.IGNORECASE)
_INEQUALITY = re.compile(r"[<>≠≤≥!]|\\(?:n?e|le|ge|neq|leq|geq|lt|gt|pm|in)(?![A-Za-z])|±")
_SEVERAL = re.compile(r", |;|\b(?:or|and)\b")
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("\\boxed{", "}"), ("\\fbox{", "}"))
_QUOTES = " \"'“”‘’"
_BRACKETS = (("{", "}"), ("(", ")"))


def plain_characters(text: str) -> str:
    """``text`` in NFKC with ASCII minus and slash, without invisible characters.

    Superscripts, circled digits and the like get a ``^`` before their plain digits and vulgar fractions a space, so
    that none of them ever joins the number next to it.
    """
    parts = []
    for character in text:
        category = unicodedata.category(character)
        if category == "No":
            plain = unicodedata.normalize("NFKC", character)
            parts.append((" " if "⁄" in plain else "^") + plain)
        elif category != "Cf":
            parts.append(character)
    return unicodedata.normalize("NFKC", "".join(parts)).translate(_DASHES)


def strip_markup(text: str, brackets: bool = False) -> str:
    """``text`` without the markup, math delimiters and boxes that enclose all of it.

    Args:
        brackets: take off brackets too, but for those around a list.
    """
    while True:
        inner = text.strip().strip("*_`")
        for opening, closing in _WRAPPERS + (_BRACKETS if brackets else ()):
            if len(inner) > len(opening) and inner.startswith(opening) and inner.endswith(closing):
                enclosed = inner[len(opening) : -len(closing)]
                if _is_one_piece(enclosed, opening, closing):
                    inner = enclosed
        if inner == text:
            return inner
        text = inner


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
    first, *others = text.split("=")
    if _INEQUALITY.search(text) or any(_SEVERAL.search(part) for part in others[:-1]):
        return None
    return others[-1] if others else first


def unit_factor(unit: str, attached: bool) -> Fraction | None:
    """What a number is multiplied with because of the words behind it: 1 for a unit; None if they are no unit."""
    if unit in _PERCENT:
        return Fraction(1, 100)
    first, *others = [word for word in re.split(r"[ ./'’-]+", unit) if word] or [""]
    factor = Fraction(1)
    if first.lower() in _PERCENT:
        factor = Fraction(1, 100)
    elif first.lower() in _SCALES:
        factor = Fraction(_SCALES[first.lower()])
    elif first:
        others = [first, *others]
    if attached and others and others[0] in _ORDINALS:
        return None
    is_unit = all(
        not _NOT_A_UNIT.fullmatch(word)
        and (len(word) > 1 or word in _UNIT_LETTERS or not (word.isascii() or word == "π"))
        for word in others
    )
    return factor if is_unit else None


def _decimal(text: str) -> Fraction:
    """Value of a text that `NUMBER` matches."""
    if "," in text and "." not in text and not re.fullmatch(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+", text):
        text = text.replace(",", ".")
    return Fraction(text.replace(",", "").replace(" ", ""))


def parse_number(text: str) -> Fraction | None:
    """The one number that ``text`` says, exactly; None if it says none, several, or is longer than `MAX_LENGTH`.

    Reads signs, thousands separators (comma or space), decimals, fractions, mixed numbers, scientific notation,
    percentages (18% is 18/100) and "million" and its kin; ignores currency signs, a unit, markup, math delimiters,
    boxes and a final period; of an equation it reads the right-hand side. Digits are ASCII after NFKC.
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        return None
    text = _plain_latex(strip_markup(plain_characters(text).strip(_QUOTES), brackets=True))
    text = STATEMENT.sub("=", text, count=1)
    side = _right_hand_side(text)
    if side is None:
        return None
    side = strip_markup(side.strip().rstrip(".,;:"), brackets=True).rstrip(".,;: ").strip(_QUOTES)
    match = _QUANTITY.fullmatch(" ".join(strip_markup(side, brackets=True).split()))
    if match is None or (match["sign"] and match["inner_sign"]):
        return None
    factor = unit_factor(match["unit"] or "", attached=not match.string[: match.start("unit")].endswith(" "))
    value = _value(match)
    if factor is None or value is None:
        return None
    return factor * (-value if "-" in (match["sign"], match["inner_sign"]) else value)


def _value(match: re.Match) -> Fraction | None:
    """Unsigned value of a match of `_VALUE`; None on a zero denominator and on a mixed number like 1 7/2."""
    if match["number"]:
        return _decimal(match["number"])
    if match["mantissa"]:
        return _decimal(match["mantissa"]) * Fraction(10) ** int(match["exponent"])
    whole, numerator, denominator = match["whole"], _decimal(match["numerator"]), _decimal(match["denominator"])
    if not denominator or (whole and numerator >= denominator):
        return None
    return int(whole or 0) + numerator / denominator
