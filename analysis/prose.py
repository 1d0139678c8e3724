"""Are the intervals that prose tells also told by a record? A sentence then cannot go stale beside a new table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_NUMBER = r"[+−-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_UNIT = r"(?:\s*%|\s*(?:percentage )?points?|\s+(?:below|above|ms|s|nats)\b)*"
_INTERVAL = re.compile(
    rf"(?<![\w.,+−-])(?P<value>{_NUMBER}){_UNIT}\s*"
    rf"(?:±\s*(?P<half>{_NUMBER})|\[(?P<low>{_NUMBER})\s*%?,\s*(?P<high>{_NUMBER})\s*%?\])"
)
# Sections of what others have measured: no record of ours has it.
_CLAIMS = re.compile(r"^## What the paper reports\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_POWERS = (0, 2, -2)  # of ten, from a record to prose: as it is, a share in per cent, per cent as a share


@dataclass(frozen=True)
class Told:
    """An interval as a text tells it.

    Attributes:
        text: of it.
        numbers: value and half width, or value, low and high.
        digits: of each of them, behind the point.
        line: of the text in which it begins, from 1.
    """

    text: str
    numbers: tuple[float, ...]
    digits: tuple[int, ...]
    line: int


def intervals(text: str) -> list[Told]:
    """Every "value ± half" and "value [low, high]" of ``text``, also across the end of a line."""
    found = []
    for match in _INTERVAL.finditer(text):
        parts = [
            part.replace("−", "-").replace(",", "") for part in match.group("value", "half", "low", "high") if part
        ]
        digits = tuple(len(part.partition(".")[2]) for part in parts)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Told(" ".join(match[0].split()), tuple(map(float, parts)), digits, line))
    return found


def unsupported(pages: dict[Path, str], records: Iterable[str]) -> list[tuple[Path, Told]]:
    """The intervals of ``pages`` (path -> prose) that no text of ``records`` tells as precisely.

    Prose may round, tell a share in per cent, and turn all signs ("ends 3.1 points [-9.0, 15.2] below"). Which record
    it speaks of is not known, so a number of one or two digits may be found in a wrong one. The sections "What the
    paper reports" are left out.
    """
    known = [told for text in records for told in intervals(text)]
    found = []
    for path, text in pages.items():
        ours = _CLAIMS.sub(lambda claims: "\n" * claims[0].count("\n"), text)
        found += [(path, told) for told in intervals(ours) if not any(_says(record, told) for record in known)]
    return found


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
    tolerances = [0.5 * 10.0**-digits + 1e-9 for digits in prose.digits]
    pairs = zip(numbers, prose.numbers, tolerances, strict=True)
    return all(abs(number - told) <= tolerance for number, told, tolerance in pairs)
