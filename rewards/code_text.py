"""Which text of a completion is its code, and which imports go before it."""

import re
from typing import NamedTuple

from rewards.format import ANSWER_CLOSE, ANSWER_OPEN, CUT, cut_thinking, outside_thinking
from rewards.sandbox.pool import sandbox

MAX_CODE = 65_536  # characters
PYTHON = ("", "py", "python", "python3")

_FENCE = re.compile(r"[ \t]*+```[ \t]*+([A-Za-z0-9+#.-]*+)[ \t]*+$")
_CODE_STARTS = re.compile(r"^(?:def |class |import |from |async def |@)", re.MULTILINE)
_IMPORT = re.compile(
    r"^from[ \t]+[\w.]+[ \t]+import[ \t]*\([^()]*\)|^(?:import[ \t]+\w|from[ \t]+[\w.]+[ \t]+import[ \t]+[\w*])"
    r"[^\n\\]*(?:\\\n[^\n\\]*)*$",
    re.MULTILINE,
)
_FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t]+\w[^\n]*\n?", re.MULTILINE)
_GOES_ON = (" ", "\t", "#", ")", "]", "}")  # how a line may start that still belongs to a function of column 0


class Fence(NamedTuple):
    """A fenced block: its label, its text, and where the line after it starts; ``end`` is -1 where it is not closed."""

    label: str
    text: str
    end: int


def fences(text: str) -> list[Fence]:
    """The fenced blocks of ``text``, in order; the last one may be unclosed. Linear in the text."""
    found, opened, position = [], None, 0
    for line in text.splitlines(keepends=True):
        position += len(line)
        mark = _FENCE.match(line.rstrip("\r\n"))
        if mark and opened is None:
            opened = (mark[1].lower(), position)
        elif mark and not mark[1]:
            label, start = opened
            found.append(Fence(label, text[start : position - len(line)], position))
            opened = None
    if opened is not None:
        found.append(Fence(opened[0], text[opened[1] :], -1))
    return found


def fenced_code(text: str, entry_point: str) -> str | None:
    """The last complete Python fence of ``text`` that defines ``entry_point``, else the last one; None without any."""
    complete = [fence.text for fence in fences(text) if fence.end >= 0 and fence.label in PYTHON]
    name = re.escape(entry_point)
    defines = re.compile(rf"^(?:async\s+def\s+|def\s+){name}\b|^{name}\s*=", re.MULTILINE)
    defining = [code for code in complete if entry_point and defines.search(code)]
    return (defining or complete or [None])[-1]


def is_code_well_formed(completion: str) -> bool:
    """Whether there is exactly one Python fence, with nothing after it but whitespace and the closing answer tag."""
    outside = cut_thinking(completion)
    for tag in (ANSWER_OPEN, ANSWER_CLOSE):  # a fence may begin and end on the line of a tag
        outside = outside.replace(tag, f"\n{tag}\n")
    python = [fence for fence in fences(outside) if fence.label in PYTHON]
    return len(python) == 1 and python[0].end >= 0 and outside[python[0].end :].strip() in ("", ANSWER_CLOSE)


def continued_code(prefix: str, completion: str) -> str:
    """``prefix`` and what of ``completion`` belongs to the function it begins, up to a line that starts something."""
    first, *lines = completion.split("\n")
    kept = [first]
    for line in lines:
        if line.strip() and not line.startswith(_GOES_ON):
            break
        kept.append(line)
    return prefix + "\n".join(kept)


def loose_code(completion: str, entry_point: str) -> str | None:
    """Where no complete answer stands: the last fence, closed or not, or the longest text that compiles from a
    definition or import on.
    """
    scope = outside_thinking(completion).replace(CUT, "\n")
    python = [fence for fence in fences(scope) if fence.label in PYTHON]
    if python:
        return python[-1].text if python[-1].end < 0 else fenced_code(scope, entry_point)
    start = _CODE_STARTS.search(scope)
    return (sandbox().longest_part(scope[start.start() :][:MAX_CODE]) or None) if start else None


def with_imports(imports: str, helpers: str, code: str) -> str:
    """``code`` behind ``imports`` and those of ``helpers``; what any imports from __future__, which must come first."""
    whole = "\n".join([*filter(None, (imports, *_IMPORT.findall(helpers))), code])
    future = [line if line.endswith("\n") else f"{line}\n" for line in _FUTURE.findall(whole)]
    return "".join(future) + _FUTURE.sub("", whole) if future else whole
