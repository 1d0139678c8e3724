"""Markdown tables: every row fills the columns of its head."""

import pytest

from common.markdown import markdown_table


def test_a_table_has_a_line_for_its_heads_and_one_for_each_row():
    assert markdown_table(["arm", "seeds"], [["`no`", 3], ("knn", "")]) == (
        "| arm | seeds |\n|---|---|\n| `no` | 3 |\n| knn |  |"
    )


@pytest.mark.parametrize("row", [["a"], ["a", "b", "c"]])
def test_a_row_of_another_length_is_refused(row):
    with pytest.raises(ValueError, match="shorter|longer"):
        markdown_table(["one", "two"], [row])
