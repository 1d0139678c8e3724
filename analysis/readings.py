"""Was the prose of a page read against the tables as they are? A sentence then cannot go stale beside a new table.

Of each page docs/read_against.json keeps digests of the tables that it speaks of, made when it was last read against
them. A table that has changed since names the page as one to read again. A number in prose is not looked up in the
tables: among hundreds of numbers almost any is found, so that would find nothing wrong.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from common.markdown import markdown_table

BLOCK = re.compile(r"(<!-- results: (?P<what>[^\n]*?) -->\n).*?(<!-- end of results -->)", re.DOTALL)
_NO_RECORD = re.compile(r"<!-- no record: (?P<why>[^\n]*?) -->")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^(?P<level>#{1,6}) (?P<title>.*)$", re.MULTILINE)
_TABLE_ROW = re.compile(r"^\|.*$", re.MULTILINE)
_LINK = re.compile(r"\]\((?P<page>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")
_DIGEST_LENGTH = 12

Tables = dict[str, str]  # name -> digest


@dataclass(frozen=True)
class Section:
    """A part of a page, from one heading to the next.

    Attributes:
        title: its heading.
        level: of the heading; 1 for the title of the page.
        text: heading included.
    """

    title: str
    level: int
    text: str

    @property
    def anchor(self) -> str:
        """What a link to it names behind the #."""
        return re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")

    @property
    def blocks(self) -> Tables:
        """Its blocks, by what they show."""
        return {found["what"]: _digest(found[0]) for found in BLOCK.finditer(self.text)}

    @property
    def prose(self) -> str:
        """Its text without blocks and fences."""
        return _FENCE.sub("", BLOCK.sub("", self.text))

    @property
    def tells(self) -> bool:
        """Whether the prose tells numbers, be it in the address of a link."""
        return bool(re.search(r"\d", self.prose))


def sections(text: str) -> list[Section]:
    """The sections of a page; what stands before the first heading has no title. In a fence nothing is a heading."""
    visible = _FENCE.sub(lambda found: re.sub(r"[^\n]", "x", found[0]), text)
    heads = [(head.start(), head["title"], len(head["level"])) for head in _HEADING.finditer(visible)]
    if not heads or heads[0][0] > 0:
        heads.insert(0, (0, "", 1))
    ends = [start for start, *_ in heads[1:]] + [len(text)]
    return [Section(title, level, text[start:end]) for (start, title, level), end in zip(heads, ends, strict=True)]


def tables_spoken_of(pages: dict[Path, str], reports: dict[Path, str]) -> dict[Path, Tables]:
    """Page -> the tables that its prose speaks of; pages without any are left out.

    These are, of its sections with digits in the prose, the blocks, the reports that they link to, and the blocks of
    the pages or sections that they link to.

    Args:
        pages, reports: path -> text; the paths have no ``..``.
    """
    parts = {path: sections(text) for path, text in pages.items()}
    found = {}
    for path, own in parts.items():
        tables: Tables = {}
        for section in own:
            if section.tells:
                tables |= section.blocks
                for linked in _linked(path, section, parts, reports):
                    tables |= linked
        if tables:
            found[path] = dict(sorted(tables.items()))
    return found


def _linked(
    path: Path, section: Section, parts: dict[Path, list[Section]], reports: dict[Path, str]
) -> Iterator[Tables]:
    """The tables of what the prose of ``section`` in the page ``path`` links to."""
    for link in _LINK.finditer(_TABLE_ROW.sub("", section.prose)):  # a row that links to a page is an index of pages
        to = Path(os.path.normpath(path.parent / link["page"])) if link["page"] else path
        if to in reports:
            yield {to.name: _digest(reports[to])}
        for part in _below(parts.get(to, []), link["anchor"]):
            yield part.blocks


def _below(parts: list[Section], anchor: str | None) -> list[Section]:
    """All sections, or that of ``anchor`` and what stands below it."""
    if not anchor:
        return parts
    at = next((place for place, part in enumerate(parts) if part.anchor == anchor), len(parts))
    end = next((place for place in range(at + 1, len(parts)) if parts[place].level <= parts[at].level), len(parts))
    return parts[at:end]


def to_read(now: dict[str, Tables], read: dict[str, Tables]) -> dict[str, list[str]]:
    """Page -> the names of its tables that are not as they were when it was ``read``."""
    changed = {
        page: [name for name, digest in tables.items() if read.get(page, {}).get(name) != digest]
        for page, tables in now.items()
    }
    return {page: names for page, names in changed.items() if names}


def told_without_record(pages: dict[Path, str], folder: Path) -> str:
    """Markdown: what paragraphs of ``pages`` (path -> text) mark with ``<!-- no record: WHY -->``.

    Links are as from a page in ``folder``.
    """
    rows = []
    for path, text in pages.items():
        if reasons := [found["why"] for found in _NO_RECORD.finditer(text)]:
            rows.append([f"[{path.stem}]({Path(os.path.relpath(path, folder)).as_posix()})", "; ".join(reasons)])
    return markdown_table(["page", "told without a record"], rows)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
