"""Tables of reports and pages."""

from collections.abc import Iterable, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table of ``rows`` under ``heads``, each cell as `str` shows it.

    Raises ValueError where a row has another number of cells than ``heads``.
    """
    lines = [_line(heads), "|---" * len(heads) + "|"]
    lines += [_line(cell for _, cell in zip(heads, row, strict=True)) for row in rows]
    return "\n".join(lines)


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
