"""Reading the one query of an answer block."""

import pytest

from rewards.sql.text import MAX_QUERY_LENGTH, QueryError, continued_query, loose_query, read_query, reads_clock


@pytest.mark.parametrize(
    "block, query",
    [
        (" SELECT 1;; -- done\n", "SELECT 1"),
        ("```sql\nSELECT 1;\n```", "SELECT 1"),
        (
            "SELECT ';' , \"a;b\", [c;d], 'it''s;' /* ; */ FROM t",
            "SELECT ';' , \"a;b\", [c;d], 'it''s;' /* ; */ FROM t",
        ),
        ("-- the query\nSELECT 1", "-- the query\nSELECT 1"),
    ],
)
def test_query(block, query):
    assert read_query(block) == query


@pytest.mark.parametrize(
    "block, verdict",
    [
        ("", "no_answer"),
        (" ; -- SELECT 1", "no_answer"),
        ("/* SELECT 1", "no_answer"),
        ("```\nSELECT 1\n```\n```\nSELECT 2\n```", "multiple_answers"),
        ("SELECT 1; SELECT 2", "unparsable"),
        ("SELECT 1\0", "unparsable"),
        ("SELECT " + "1" * MAX_QUERY_LENGTH, "unparsable"),
    ],
)
def test_no_query(block, verdict):
    with pytest.raises(QueryError, match=f"^{verdict}$"):
        read_query(block)


@pytest.mark.parametrize(
    "completion, query",
    [
        (" SELECT 1;\nQuestion: next", "SELECT 1"),
        ("SELECT a\nFROM t\n \nThis query", "SELECT a\nFROM t"),
        ("SELECT ';\n\n' FROM t", "SELECT ';\n\n' FROM t"),
    ],
)
def test_what_a_base_model_goes_on_with(completion, query):
    assert continued_query(completion) == query


@pytest.mark.parametrize(
    "completion, query",
    [
        ("```python\nx\n```\n```sql\nSELECT 1\n```", "SELECT 1"),
        (
            "SELECT 1;\nor better\n  with a as (select 2) select * from a\n\nthat is it",
            "with a as (select 2) select * from a",
        ),
        ("<think>SELECT 1</think>nothing", None),
        ("<think>SELECT 1", "SELECT 1"),
        ("the SELECT statement", None),
    ],
)
def test_the_loose_tier_finds_a_query_elsewhere(completion, query):
    found = loose_query(completion.replace("<think>SELECT 1", "<think>\nSELECT 1"))
    assert (found or "").split("</think>")[0] == (query or "")


def test_queries_that_read_the_clock_are_known():
    assert reads_clock("SELECT date('now')") and reads_clock("SELECT Current_Date")
    assert not reads_clock("SELECT 'now that', current_dates FROM t -- now")
