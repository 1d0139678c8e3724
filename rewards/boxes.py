r"""Boxes of LaTeX: every complete ``\boxed{...}`` or ``\fbox{...}`` of a text, in linear time and without raising."""

import re
from typing import NamedTuple

_BRACE = re.compile(r"(\\(?:boxed|fbox)\s*\{)|\\.|(\{)|(\})", re.DOTALL)
_BOX, _OPEN, _CLOSE = 1, 2, 3  # groups of _BRACE


class Box(NamedTuple):
    """Where a complete ``\\boxed{...}`` or ``\\fbox{...}`` and its content stand in a text.

    The content is not cut out before it is asked for: those of boxes in boxes have the square of the text's length.
    """

    start: int
    end: int
    inner_start: int
    inner_end: int

    def content(self, text: str) -> str:
        """What the box of ``text`` holds, without the spaces around it."""
        return text[self.inner_start : self.inner_end].strip()


def complete_boxes(text: str) -> list[Box]:
    """Every complete box of ``text``, inner boxes included, in the order in which they begin."""
    if "\\boxed" not in text and "\\fbox" not in text:
        return []
    opened: list[tuple[int, int] | None] = []
    found = []
    for match in _BRACE.finditer(text):
        kind = match.lastindex
        if kind == _BOX:
            opened.append(match.span())
        elif kind == _OPEN:
            opened.append(None)
        elif kind == _CLOSE and opened:
            box = opened.pop()
            if box is not None:
                found.append(Box(box[0], match.end(), box[1], match.start()))
    return sorted(found)


def outer_boxes(text: str) -> list[Box]:
    """The `complete_boxes` that are not inside another complete box, in the order of ``text``."""
    boxes, end = [], 0
    for box in complete_boxes(text):
        if box.start >= end:
            boxes.append(box)
            end = box.end
    return boxes


def last_box(text: str) -> str | None:
    """Content of the last complete box, inner boxes included."""
    boxes = complete_boxes(text)
    return boxes[-1].content(text) if boxes else None


def last_outer_box(text: str) -> str | None:
    """Content of the last complete box of ``text`` that is not inside another; None if there is none."""
    boxes = outer_boxes(text)
    return boxes[-1].content(text) if boxes else None
