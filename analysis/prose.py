"""Are the numbers that prose tells also told by a record? A sentence then cannot go stale beside a new table.

Intervals have to stand in any block or report. Of a page with blocks every decimal number and every count of per cent
or points has to stand in a block of its own, in a report that it links to, or in a block of a page that it links to.
What no record can say is marked, in its paragraph: ``<!-- no record: WHY -->`` for a measurement, and for a definition
or an example ``<!-- no measurement -->``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK = re.compile(r"(<!-- results: (?P<what>[^\n]*?) -->\n).*?(<!-- end of results -->)", re.DOTALL)
NO_RECORD = re.compile(r"<!-- no record: (?P<why>[^\n]*?) -->")
_NO_MEASUREMENT = "<!-- no measurement -->"
_NUMBER = r"[+−-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_UNIT = r"(?:\s*%|\s*(?:percentage )?points?|\s+(?:below|above|ms|s|nats)\b)*"
_INTERVAL = re.compile(
    rf"(?<![\w.,+−-])(?P<value>{_NUMBER}){_UNIT}\s*"
    rf"(?:±\s*(?P<half>{_NUMBER})|\[(?P<low>{_NUMBER})\s*%?,\s*(?P<high>{_NUMBER})\s*%?\])"
)
_FIGURE = re.compile(
    rf"(?<![\w.,+−/@=*^-])(?P<figure>[+−-]?\d*\.\d+|{_NUMBER}(?=\s*(?:%|points?\b)))(?![\w/*^]|\.\d)"
    r"(?!\s*%\s+(?:t\s+)?(?:intervals?|power)\b)"
)
_ANY = re.compile(rf"(?<![\w.])({_NUMBER})(?!\w)")
# Sections of what others have measured: no record of ours has it.
_CLAIMS = re.compile(r"^## What the paper reports\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
# Fences, indented lines, code, addresses of links, and numbers of arXiv.
_CODE = re.compile(r"```.*?```|^ {4}.*?$|`[^`\n]*`|\]\([^)]*\)|\b\d{4}\.\d{5}\b", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?P<page>[^)#\s]+\.md)(?:#[^)]*)?\)")
_POWERS = (0, 2, -2)  # of ten, from a record to prose: as it is, a share in per cent, per cent as a share


@dataclass(frozen=True)
class Told:
    """Numbers as a text tells them.

    Attributes:
        text: of it.
        numbers: a number alone; of an interval value and half width, or value, low and high.
        digits: of each of them, behind the point.
        line: of the text in which it begins, from 1.
    """

    text: str
    numbers: tuple[float, ...]
    digits: tuple[int, ...]
    line: int


def intervals(text: str) -> list[Told]:
    """Every "value ± half" and "value [low, high]" of ``text``, also across the end of a line."""
    return [_told(text, match, ("value", "half", "low", "high")) for match in _INTERVAL.finditer(text)]


def figures(text: str) -> list[Told]:
    """Every decimal number and every count of per cent or points of ``text`` that is in no interval and in no code."""
    for pattern in (_INTERVAL, _CODE):
        text = pattern.sub(_blank, text)
    return [_told(text, match, ("figure",)) for match in _FIGURE.finditer(text)]


def _told(text: str, match: re.Match, names: tuple[str, ...]) -> Told:
    parts = [part.replace("−", "-").replace(",", "") for part in match.group(*names, names[0])[:-1] if part]
    digits = tuple(len(part.partition(".")[2]) for part in parts)
    line = text.count("\n", 0, match.start()) + 1
    return Told(" ".join(match[0].split()), tuple(map(float, parts)), digits, line)


def _blank(found: re.Match) -> str:
    """As many lines without text."""
    return "\n" * found[0].count("\n")


def untold(pages: dict[Path, str], reports: dict[Path, str]) -> Iterator[tuple[Path, Told]]:
    """The intervals and figures of ``pages`` (path -> text with its blocks) that no block and none of the ``reports``
    (path -> text) tells as precisely.

    Prose may round, tell a share in per cent, and turn all signs ("ends 3.1 points [-9.0, 15.2] below"). Which record
    it speaks of is not known, so a number of one or two digits may be found in a wrong one. The sections "What the
    paper reports" are left out.
    """
    blocks = {path: "\n".join(found[0] for found in BLOCK.finditer(text)) for path, text in pages.items()}
    records = [told for text in (*reports.values(), *blocks.values()) for told in intervals(text)]
    for path, text in pages.items():
        prose = _CLAIMS.sub(_blank, BLOCK.sub(_blank, text))
        for told in intervals(prose):
            if not any(_says(record, told) for record in records):
                yield path, told
        if blocks[path]:
            linked = {(path.parent / found["page"]).resolve() for found in _LINK.finditer(text)}
            sources = [blocks[path], *(texts[to] for texts in (blocks, reports) for to in linked if to in texts)]
            known = _Numbers("\n".join(sources))
            yield from ((path, told) for told in figures(_measured(prose)) if told not in known)


def _measured(prose: str) -> str:
    """``prose`` without the paragraphs that are marked as no record, or as no measurement."""
    parts = re.split(r"(\n\s*\n)", prose)
    marked = (_NO_MEASUREMENT in part or NO_RECORD.search(part) for part in parts)
    return "".join(
        "\n" * part.count("\n") if is_marked else part for part, is_marked in zip(parts, marked, strict=True)
    )


def outside(pages: dict[Path, str]) -> str:
    """Markdown: what ``pages`` (path -> text) mark as told without a record, and where; links as from docs/."""
    rows = []
    for path, text in pages.items():
        if reasons := [found["why"] for found in NO_RECORD.finditer(text)]:
            page = path.name if path.parent.name == "docs" else f"{path.parent.name}/{path.name}"
            rows.append(f"| [{path.stem}]({page}) | {'; '.join(reasons)} |")
    return "\n".join(["| page | told without a record |", "|---|---|", *rows])


class _Numbers:
    """All numbers of a text."""

    def __init__(self, text: str):
        found = sorted({found.replace("−", "-").replace(",", "") for found in _ANY.findall(text)})
        self.values = np.abs(np.array(found, dtype=float))
        self.digits = np.array([len(number.partition(".")[2]) for number in found], dtype=int)

    def __contains__(self, told: Told) -> bool:
        (number,), (digits,) = told.numbers, told.digits
        near = [np.abs(self.values * 10.0**power - abs(number)) <= _tolerance(digits) for power in _POWERS]
        return any((close & (self.digits - power >= digits)).any() for close, power in zip(near, _POWERS, strict=True))


def _says(record: Told, prose: Told) -> bool:
    """Whether ``prose`` is the interval of ``record``, rounded, in per cent, or with all signs turned."""
    if len(record.numbers) != len(prose.numbers):
        return False
    for power in _POWERS:
        if all(own - power >= told for own, told in zip(record.digits, prose.digits, strict=True)):
            scaled = [number * 10.0**power for number in record.numbers]
            if any(_rounds_to(turned, prose) for turned in (scaled, _turned(scaled))):
                return True
    return False


def _turned(numbers: list[float]) -> list[float]:
    """The interval of the difference the other way round."""
    value, *bounds = numbers
    return [-value, *bounds] if len(bounds) == 1 else [-value, *(-bound for bound in reversed(bounds))]


def _rounds_to(numbers: list[float], prose: Told) -> bool:
    tolerances = map(_tolerance, prose.digits)
    pairs = zip(numbers, prose.numbers, tolerances, strict=True)
    return all(abs(number - told) <= tolerance for number, told, tolerance in pairs)


def _tolerance(digits: int) -> float:
    """How far a number rounded to ``digits`` may be from what it was."""
    return 0.5 * 10.0**-digits + 1e-9
