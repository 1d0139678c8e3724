"""Which text of a completion is the query, read without running it."""

import re
from collections.abc import Iterator

from rewards.format import ANSWER_CLOSE, CUT, outside_thinking

MAX_QUERY_LENGTH = 8_192  # characters
MAX_BLOCK_LENGTH = 65_536  # characters of an answer block with what stands around its query
# Strings, quoted names and comments as SQLite reads them; each may end with the text instead of its closing mark.
_OPAQUE = r"'(?:[^']|'')*+(?:'|\Z)|\"(?:[^\"]|\"\")*+(?:\"|\Z)|`(?:[^`]|``)*+(?:`|\Z)|\[[^\]]*+(?:\]|\Z)"
_COMMENT = r"--[^\n]*+|/\*(?:[^*]|\*(?!/))*+(?:\*/|\Z)"
_TOKEN = re.compile(
    rf"(?P<comment>{_COMMENT})|(?P<opaque>{_OPAQUE})|(?P<end>;)|(?P<blank>\n[ \t\r]*(?=\n))|(?P<space>\s)"
    r"|(?P<word>[^\W\d]\w*)|(?P<other>.)",
    re.DOTALL,
)
_FENCE = re.compile(r"```([^\n`]*)\n(.*?)```", re.DOTALL)
_SQL_LABELS = ("", "sql", "sqlite")
_QUERY_LINE = re.compile(r"^[ \t]*(?:SELECT|WITH)\b", re.IGNORECASE | re.MULTILINE)
_LOOSE_END = re.compile(rf";|\n[ \t\r]*\n|{re.escape(ANSWER_CLOSE)}|```|\Z")
_CLOCK_WORDS = ("current_date", "current_time", "current_timestamp")


class QueryError(ValueError):
    """A text that is not one query; the message is the verdict: no_answer, multiple_answers or unparsable."""


def tokens(sql: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of each token: comment, opaque (strings and quoted names), end, blank, space, word or other."""
    return ((match.lastgroup, match[0]) for match in _TOKEN.finditer(sql))


def read_query(block: str) -> str:
    """The query in ``block``: the content of its one fence, else all of it, without what follows the first ``;``.

    Raises `QueryError`: no_answer where nothing but spaces, ``;`` and comments is there; multiple_answers for two or
    more fences; unparsable for a text over `MAX_QUERY_LENGTH`, with a NUL, or with a second statement.
    """
    if len(block) > MAX_BLOCK_LENGTH:
        raise QueryError("unparsable")
    fences = _FENCE.findall(block)
    if len(fences) > 1:
        raise QueryError("multiple_answers")
    text = fences[0][1] if fences else block
    if len(text) > MAX_QUERY_LENGTH or "\0" in text:
        raise QueryError("unparsable")
    end, is_query, position = None, False, 0
    for kind, token in tokens(text):
        if kind == "end":
            end = position if is_query and end is None else end
        elif kind in ("opaque", "word", "other"):
            if end is not None:
                raise QueryError("unparsable")
            is_query = True
        position += len(token)
    if not is_query:
        raise QueryError("no_answer")
    return text[:end].strip()


def continued_query(completion: str) -> str:
    """What of ``completion``, which goes on behind ``SQL:``, is the query: up to a ``;`` or a blank line.

    Neither counts in quotes and comments. Raises `QueryError` as `read_query` does.
    """
    text = completion.lstrip()[: MAX_QUERY_LENGTH + 2]  # a longer query is as unparsable as this one
    position = 0
    for kind, token in tokens(text):
        if kind in ("end", "blank"):
            break
        position += len(token)
    return read_query(text[:position])


def loose_query(completion: str) -> str | None:
    """Where no one query stands at its place: the last SQL fence, else from the last line that begins with SELECT or
    WITH; None where there is neither, or it is no query.
    """
    scope = outside_thinking(completion).replace(CUT, "\n")
    fences = [text for label, text in _FENCE.findall(scope) if label.strip().lower() in _SQL_LABELS]
    if fences:
        text = fences[-1]
    elif starts := list(_QUERY_LINE.finditer(scope)):
        start = starts[-1].start()
        text = scope[start : _LOOSE_END.search(scope, start).start()]
    else:
        return None
    try:
        return read_query(text)
    except QueryError:
        return None


def reads_clock(sql: str) -> bool:
    """Whether ``sql`` names the time at which it runs: CURRENT_DATE and its kin, or the text 'now'."""
    return any(
        (kind == "word" and token.lower() in _CLOCK_WORDS)
        or (kind == "opaque" and token[1:-1].strip().lower() == "now")
        for kind, token in tokens(sql)
    )
