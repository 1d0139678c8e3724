"""Words behind a number: those that multiply or divide it, its unit, and those that change it in another way.

"3 dozen" is 36, "15 per cent" is 3/20, "4 thirds" is 4/3, "24 crates" is 24, and "18 and a half" is no number here.
Words are English, with the signs of Chinese and Japanese for powers of ten.
"""

import re
from fractions import Fraction

_ILLIONS = ("m", "b", "tr", "quadr", "quint", "sext", "sept", "oct", "non", "dec")
_SCALES = {
    **{"ten": 10, "hundred": 100, "thousand": 10**3, "myriad": 10**4, "lakh": 10**5, "lac": 10**5, "crore": 10**7},
    **{f"{name}illion": 10 ** (6 + 3 * place) for place, name in enumerate(_ILLIONS)},
    **{"milliard": 10**9, "dozen": 12, "score": 20, "gross": 144},
}
_SHORT_SCALES = {
    **{"thou": 10**3, "grand": 10**3, "mn": 10**6, "mln": 10**6, "mil": 10**6, "mio": 10**6, "mill": 10**6},
    **{"bn": 10**9, "bln": 10**9, "mrd": 10**9, "tn": 10**12, "trn": 10**12, "cr": 10**7, "doz": 12, "dz": 12},
    **dict(zip("十百千万萬亿億兆", (10, 100, 10**3, 10**4, 10**4, 10**8, 10**8, 10**12), strict=True)),
}
# "Second" is a unit of time and therefore missing.
_PARTS = {
    **{"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9},
    **{"tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14, "fifteenth": 15},
    **{"sixteenth": 16, "seventeenth": 17, "eighteenth": 18, "nineteenth": 19, "twentieth": 20, "thirtieth": 30},
    **{"fortieth": 40, "fiftieth": 50, "sixtieth": 60, "seventieth": 70, "eightieth": 80, "ninetieth": 90},
    **{f"{name}th": value for name, value in _SCALES.items() if value in (100, 10**3) or name.endswith("illion")},
}
_RATIOS = {
    **dict.fromkeys(("percent", "percents", "percentage", "percentages", "pct", "pcts"), 100),
    **dict.fromkeys(("per cent", "per cents", "per centum", "per hundred", "parts per hundred"), 100),
    **dict.fromkeys(("permille", "permil", "per mille", "per mil", "per thousand", "parts per thousand"), 1000),
    **dict.fromkeys(("basis point", "basis points", "bp", "bps", "bips"), 10**4),
    **dict.fromkeys(("ppm", "parts per million", "per million"), 10**6),
    **dict.fromkeys(("ppb", "parts per billion", "per billion"), 10**9),
}
FACTORS: dict[str, Fraction] = {
    **{name: Fraction(value) for name, value in (_SCALES | _SHORT_SCALES).items()},
    **{f"{name}s": Fraction(value) for name, value in _SCALES.items()},
    **{name: Fraction(1, value) for name, value in (_PARTS | _RATIOS).items()},
    **{f"{name}s": Fraction(1, value) for name, value in _PARTS.items()},
    **{"halves": Fraction(1, 2), "grosses": Fraction(144)},
}
del FACTORS["ten"]  # "3 tens" is 30, but "3 ten" says nothing
SIGNS = {"%": Fraction(1, 100), "‰": Fraction(1, 1000), "‱": Fraction(1, 10_000)}
# Letters that multiply: right behind the number, or of an amount of money, where m is no metre.
_ATTACHED = {"k": 10**3, "K": 10**3, "M": 10**6, "MM": 10**6, "B": 10**9}
_OF_MONEY = {"m": 10**6, "M": 10**6, "MM": 10**6, "b": 10**9, "B": 10**9, "t": 10**12, "T": 10**12}
CURRENCY_CODES = ("usd", "eur", "gbp", "inr", "jpy", "cny")
_CURRENCIES = {
    *("dollar", "dollars", "euro", "euros", "pound", "pounds", "rupee", "rupees", "yen", "yuan"),
    *CURRENCY_CODES,
}

NUMERALS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty", "forty", "fifty"),
    *("sixty", "seventy", "eighty", "ninety"),
)
_CHANGING = {
    *("or", "not", "over", "plus", "minus", "squared", "cubed", "doubled", "tripled", "halved", "factorial", "pi"),
    *("point", "pc", "base", "modulo", "mod", "binary", "ternary", "octal", "hexadecimal", "hex", "半"),
}
_OTHER_QUANTITY = {*NUMERALS, *(f"{name}s" for name in NUMERALS), "sixes", "twenties", "thirties"} | _CHANGING
_UNIT_LETTERS = set("mglLshFC")
_ORDINALS = {"st", "nd", "rd", "th"}
_POWERS_OF_TEN = "十百千万萬亿億兆半"
_WORDS = re.compile(rf"[{_POWERS_OF_TEN}]|[^\W\d_{_POWERS_OF_TEN}]+")
_LONGEST = max(len(name.split()) for name in FACTORS)


def _alternatives(names) -> str:
    """Pattern of any of ``names``, the longest first, with spaces or hyphens between their words."""
    return "|".join(re.escape(name).replace(r"\ ", r"[\s-]{1,3}") for name in sorted(names, key=len, reverse=True))


# Every factor behind a number in running text, and what follows it that makes it another quantity.
_FACTOR = rf"(?:{_alternatives(name for name in FACTORS if name.isascii())})(?![A-Za-z0-9])"
FACTORS_BEHIND = (
    rf"(?:\s?[{''.join(SIGNS)}]|(?:{_alternatives(_ATTACHED)})(?![A-Za-z0-9])|(?:[\s~-]|\\[,;: ])?{_FACTOR}"
    rf"|(?:\\[,;: ])?\\(?:text|mathrm|mbox)\{{\s*{_FACTOR}[^{{}}]{{0,40}}\}}|\s?[{_POWERS_OF_TEN}])"
)
FACTOR_OF_MONEY = rf"\s?(?:{_alternatives(_OF_MONEY)})(?![A-Za-z0-9'’-])"
FACTOR_BEFORE_CURRENCY = rf"{FACTOR_OF_MONEY}\s(?:{_alternatives(_CURRENCIES)})\b"
_SPACE, _NUMERAL = r"\s{1,3}", "|".join(NUMERALS)
_PART = _alternatives([*_PARTS, *(f"{name}s" for name in _PARTS)])
CHANGE_BEHIND = (
    rf"{_SPACE}and{_SPACE}(?:(?:an?|{_NUMERAL})[\s-]{{1,3}})?(?:{_PART})\b"
    rf"|{_SPACE}and{_SPACE}[0-9]+\s?/\s?[0-9]+|{_SPACE}(?:squared|cubed|factorial|point|pc|remainder{_SPACE}[0-9]+)\b"
    rf"|{_SPACE}(?:baker['’]?s|great){_SPACE}(?:dozen|gross)\b|{_SPACE}(?:in{_SPACE})?(?:binary|octal|hexadecimal)\b"
    rf"|\s?,?\s?\(?(?:in{_SPACE})?base[\s-]{{0,3}}(?:[0-9]+|{_NUMERAL})\b\)?"
)
# What stands before a number in running text and makes it another quantity.
CHANGE_BEFORE = (
    rf"(?i:\b(?:minus|negative|twice|thrice|double|triple|(?:half|(?:a{_SPACE}|one[\s-])?(?:third|quarter)){_SPACE}of)"
    rf"{_SPACE}|√\s?)"
)


_CHANGE_OF_MATH = re.compile(
    r"(?<=[0-9])\s*(?:\\(?:text|mathrm|mbox)\s*\{)?\s*"
    rf"(\\?mod|or\s(?:more|less|fewer)|{_alternatives(_OTHER_QUANTITY - {'or', 'not', 'mod', '半'})})(?![A-Za-z])",
    re.IGNORECASE,
)


def changing_words(text: str) -> list[str]:
    """The words of ``text`` that make a number another one, sorted; units are not among them.

    Factors of up to three letters are left out, since they may be products of variables, but for "not". Numerals, and
    what only follows a number, as "squared" and "or more", count right behind digits alone.
    """
    words = [word.lower() for word in _WORDS.findall(text)]
    factors = [word for word in words if word == "not" or (word in FACTORS and len(word) > 3)]
    return sorted(factors + [word.lower() for word in _CHANGE_OF_MATH.findall(text)])


def unit_factor(unit: str, attached: bool, priced: bool = False) -> Fraction | None:
    """What a number is multiplied with because of the words behind it: 1 for a unit; None if they are no unit.

    Args:
        unit: the words, or one of `SIGNS`.
        attached: no space stands between number and words, as in 15k or 18th.
        priced: the number has a currency sign, so that m is a million and gross no 144.
    """
    if unit in SIGNS:
        return SIGNS[unit]
    words = _WORDS.findall(unit.replace("/", " per "))
    priced = priced or any(word.lower() in _CURRENCIES for word in words)
    if attached and words and words[0] in _ORDINALS:
        return None
    letters = (_ATTACHED if attached else {}) | (_OF_MONEY if priced else {})
    factor = Fraction(1)
    if words and words[0] in letters:
        factor, words = factor * letters[words[0]], words[1:]
    while words and not (priced and words[0].lower() == "gross"):
        size = next((n for n in range(_LONGEST, 0, -1) if " ".join(words[:n]).lower() in FACTORS), 0)
        if not size:
            break
        factor, words = factor * FACTORS[" ".join(words[:size]).lower()], words[size:]
    return factor if _is_unit(words, priced) else None


def _is_unit(words: list[str], priced: bool) -> bool:
    """Whether ``words`` name a unit and change nothing about the number before them."""
    for place, word in enumerate(words):
        # The dozen of "2 dollars per dozen" belongs to the unit; in "5 per dozen" there is no other.
        of_rate = place > 0 and words[place - 1].lower() == "per" and (place > 1 or priced)
        is_factor = word.lower() in FACTORS and not of_rate and not (priced and word.lower() == "gross")
        if is_factor or word.lower() in _OTHER_QUANTITY or word in _ATTACHED:
            return False
        is_article = word == "a" and place > 0
        if len(word) == 1 and word not in _UNIT_LETTERS and not is_article and (word.isascii() or word == "π"):
            return False
    return True
