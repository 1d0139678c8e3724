r"""Boxes of LaTeX: every complete ``\boxed{...}`` or ``\fbox{...}`` of a text, in linear time and without raising."""

import re

_BRACE = re.compile(r"(\\(?:boxed|fbox)\s*\{)|\\.|(\{)|(\})", re.DOTALL)
_BOX, _OPEN, _CLOSE = 1, 2, 3  # groups of _BRACE


def boxed_contents(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of every complete ``\\boxed{...}`` or ``\\fbox{...}`` of ``text``, inner boxes included."""
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
                found.append((box[0], match.end(), text[box[1] : match.start()].strip()))
    return sorted(found)


def outer_boxes(text: str) -> list[tuple[int, int, str]]:
    """The `boxed_contents` that are not inside another complete box, in the order of ``text``."""
    boxes, end = [], 0
    for box in boxed_contents(text):
        if box[0] >= end:
            boxes.append(box)
            end = box[1]
    return boxes


def last_box(text: str) -> str | None:
    """Content of the last complete box, inner boxes included."""
    boxes = boxed_contents(text)
    return boxes[-1][2] if boxes else None


def last_outer_box(text: str) -> str | None:
    """Content of the last complete box of ``text`` that is not inside another; None if there is none."""
    boxes = outer_boxes(text)
    return boxes[-1][2] if boxes else None
