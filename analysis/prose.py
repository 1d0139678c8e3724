"""Are the intervals that prose tells also told by a record? A sentence then cannot go stale beside a new table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_NUMBER = r"[+-]?(?:\d+\.\d+|\.\d+|\d+)"
_INTERVAL = re.compile(
    rf"(?P<value>{_NUMBER})(?:\s*(?:%|points))?\s*(?:±\s*(?P<half>{_NUMBER})|\[(?P<low>{_NUMBER}),\s*(?P<high>{_NUMBER})\])"
)
# Sections of what others have measured: no record of ours has it.
CLAIMS = re.compile(r"^## What the paper reports\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
SCALES = (1, 100)  # a share, and the same in per cent


@dataclass(frozen=True)
class Told:
    """An interval as a text tells it: ``numbers`` are value and half width, or value, low and high, without signs.

    Prose says "ends 3.1 points below", so signs are not compared; low and high are in the order of their sizes.
    """

    text: str
    numbers: tuple[float, ...]
    digits: int
    line: int


def intervals(text: str) -> list[Told]:
    """Every "value ± half" and "value [low, high]" of ``text``, also across the end of a line."""
    found = []
    for match in _INTERVAL.finditer(text):
        parts = [part for part in match.group("value", "half", "low", "high") if part]
        value, *bounds = (abs(float(part)) for part in parts)
        digits = max(len(part.partition(".")[2]) for part in parts)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Told(" ".join(match[0].split()), (value, *sorted(bounds)), digits, line))
    return found


def unsupported(pages: dict[Path, str], records: Iterable[str]) -> list[tuple[Path, Told]]:
    """The intervals of ``pages`` (path -> prose) that no text of ``records`` tells with as many digits or more.

    A record's interval is also taken rounded, and as per cent of a share. Sections of `CLAIMS` are left out.
    """
    known = [told for text in records for told in intervals(text)]
    told = [
        (path, told)
        for path, text in pages.items()
        for told in intervals(CLAIMS.sub(lambda claims: "\n" * claims[0].count("\n"), text))
    ]
    return [(path, one) for path, one in told if not any(_says(record, one) for record in known)]


def _says(record: Told, prose: Told) -> bool:
    if len(record.numbers) != len(prose.numbers):
        return False
    tolerance = 0.5 * 10.0**-prose.digits + 1e-9
    return any(
        record.digits >= prose.digits + (2 if scale == 100 else 0)
        and all(abs(scale * a - b) <= tolerance for a, b in zip(record.numbers, prose.numbers, strict=True))
        for scale in SCALES
    )
