"""What the text of a gold query says: its sort keys, its limit, and the values that it compares columns with."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from rewards.sql.text import tokens

LARGEST = 2.0**63  # from which on SQLite has no integers
_SET_OPERATORS = ("union", "intersect", "except")
_LIMIT = re.compile(r"LIMIT\s+(\d+)(?:\s*(,|OFFSET)\s*(\d+))?\s*", re.IGNORECASE)
_ALIAS = re.compile(r"(.*?)\s+AS\s+(\w+|\"[^\"]+\"|'[^']+'|`[^`]+`|\[[^\]]+\])", re.IGNORECASE | re.DOTALL)
# A column, a function of one or a value in brackets, and its alias without AS: a word behind an operator is none.
_BARE_ALIAS = re.compile(
    r"((?!NOT\s)(?:[\w.\"`]+|\w*\s*\([^()]*\)))\s+(\w+|\"[^\"]+\"|`[^`]+`|\[[^\]]+\])", re.IGNORECASE
)
_DIRECTION = re.compile(r"\s+(?:ASC|DESC)$|\s+NULLS\s+(?:FIRST|LAST)$", re.IGNORECASE)
_VALUE = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|-?[0-9]+(?:\.[0-9]+)?")
_COMPARISON = re.compile(
    r"(?:[\"`\[]([^\"`\]]+)[\"`\]]|\b([^\W\d]\w*))\s*(?:[=<>!]{1,2}|(?:NOT\s+)?(?:LIKE\b|BETWEEN\b|IN\s*\())\s*"
    rf"((?:{_VALUE.pattern})(?:\s*(?:AND|,)\s*(?:{_VALUE.pattern}))*)",
    re.IGNORECASE,
)


class Word(NamedTuple):
    """A word outside all brackets: in lower case, where it starts and ends."""

    text: str
    start: int
    end: int


class SortedQuery(NamedTuple):
    """A gold with a top-level ORDER BY.

    Attributes:
        keyed: the query without LIMIT that also selects its sort keys; None where the text does not tell how.
        keys: positions of the keys in a row of ``keyed``, from its end where negative.
        added: how many columns ``keyed`` has beside the gold's.
        limit, offset: the rows of ``keyed`` that are the gold's; a limit of None is all.
    """

    keyed: str | None
    keys: list[int]
    added: int
    limit: int | None
    offset: int


def outer_words(sql: str) -> list[Word]:
    """The words of ``sql`` outside all brackets, strings and comments."""
    found, depth, position = [], 0, 0
    for kind, token in tokens(sql):
        depth += (token == "(") - (token == ")")
        if kind == "word" and not depth:
            found.append(Word(token.lower(), position, position + len(token)))
        position += len(token)
    return found


def split_outer(text: str) -> list[str]:
    """``text`` cut at the commas outside all brackets, strings and comments."""
    parts, depth = [""], 0
    for _, token in tokens(text):
        depth += (token == "(") - (token == ")")
        if token == "," and not depth:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]


def sorted_query(sql: str) -> SortedQuery | None:
    """How the gold ``sql`` sorts at top level; None where it does not."""
    sql = "".join(" " if kind == "comment" else token for kind, token in tokens(sql)).strip().rstrip("; \n\t\r")
    words = outer_words(sql)
    names = [word.text for word in words]
    order = next((at for at in reversed(range(len(words) - 1)) if names[at : at + 2] == ["order", "by"]), None)
    if order is None:
        return None
    unknown = SortedQuery(None, [], 0, None, 0)
    end, limit, offset = len(sql), None, 0
    if "limit" in names[order:]:
        end = words[names.index("limit", order)].start
        parts = _LIMIT.fullmatch(sql, end)
        if parts is None:
            return unknown
        numbers = [int(number) for number in (parts[1], parts[3] or "0")]
        limit, offset = numbers[::-1] if parts[2] == "," else numbers
    if "select" not in names or "from" not in names[names.index("select") :]:
        return unknown
    select, source = names.index("select"), names.index("from", names.index("select"))
    is_distinct = names[select + 1] in ("distinct", "all")
    items = split_outer(sql[words[select + is_distinct].end : words[source].start])
    terms = [_DIRECTION.sub("", _DIRECTION.sub("", term)) for term in split_outer(sql[words[order + 1].end : end])]
    places = [_place(term, items) for term in terms]
    added = [term for term, place in zip(terms, places, strict=True) if place is None]
    is_simple = select == 0 or (names[0] == "with" and names.count("select") == 1)
    is_plain = is_simple and names[select + 1] != "distinct" and not set(names) & set(_SET_OPERATORS)
    if (added and not is_plain) or any(re.search(r"\bCOLLATE\b", term, re.IGNORECASE) for term in terms):
        return unknown
    ends = iter(range(-len(added), 0))
    keys = [next(ends) if place is None else place for place in places]
    keyed = ", ".join([sql[: words[source].start].rstrip(), *added]) + " " + sql[words[source].start : end]
    return SortedQuery(keyed, keys, len(added), limit, offset)


def _place(term: str, items: list[str]) -> int | None:
    """Which selected column a sort term is; None where it is none by its number, alias or text, in SQLite's order."""
    if term.isdecimal() and len(term) < 6:  # a larger one is a constant
        return int(term) - 1
    if any(item == "*" or item.endswith(".*") for item in items):
        return None
    aliases = [_ALIAS.fullmatch(item) or _BARE_ALIAS.fullmatch(item) for item in items]
    names = [_unquoted(alias[2]) if alias else None for alias in aliases]
    if _unquoted(term) in names:
        return names.index(_unquoted(term))
    texts = [_squeezed(alias[1] if alias else item) for alias, item in zip(aliases, items, strict=True)]
    return texts.index(_squeezed(term)) if _squeezed(term) in texts else None


def _unquoted(name: str) -> str:
    return name.strip("\"'`[]").lower()


def _squeezed(text: str) -> str:
    return "".join(text.split()).lower()


def compared_literals(queries: Iterable[str]) -> dict[str, list[int | float | str]]:
    """Column name in lower case -> the numbers and texts that ``queries`` compare it with, each once.

    A comparison is ``column =|<>|!=|<|>|<=|>= value``, BETWEEN two values, IN a list, or LIKE, whose pattern stands as
    it is, with its percent signs. Which table the column is of is not told apart.
    """
    found: dict[str, dict] = {}
    for query in queries:
        for quoted, plain, values in _COMPARISON.findall(query):
            known = found.setdefault((quoted or plain).lower(), {})
            known.update((_literal(value), None) for value in _VALUE.findall(values))
    return {column: list(values) for column, values in found.items()}


def _literal(text: str) -> int | float | str:
    """The value; a whole number that is nearly too large for an integer of SQLite is a float."""
    if text[0] in "'\"":
        return text[1:-1].replace("''", "'")
    value = float(text)
    return value if "." in text or abs(value) >= LARGEST else int(text)
