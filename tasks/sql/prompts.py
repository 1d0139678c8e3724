"""Prompts of text-to-SQL: the tables as they were created, a hint if there is one, the question."""

import sqlite3
from functools import lru_cache
from pathlib import Path

from datasets import Dataset

from common.errors import UserError
from rewards.sql.grader import CONTINUES
from tasks.sql import SCHEMA_VALUES
from tasks.sql.schema import create_statements, open_database, quoted, read_tables

_TAGGED = (
    "Answer the question with one SQLite query. Write your reasoning between <{thinking}> and </{thinking}>, then only "
    "the query between <answer> and </answer>, each tag on a line of its own."
)
SYSTEM_PROMPTS = {
    "reasoning": _TAGGED.format(thinking="reasoning"),
    "think": _TAGGED.format(thinking="think"),
    "plain": "Answer the question with one SQLite query.",
}
PROMPT_TYPES = tuple(SYSTEM_PROMPTS)
LONGEST_VALUE = 40  # characters of an example value; a longer one is left out
SEARCHED_ROWS = 1_000  # of a table, in which example values are looked for
EXAMPLE_SCRIPT = "CREATE TABLE city (name TEXT PRIMARY KEY, people INTEGER);"
EXAMPLE_QUESTION, EXAMPLE_GOLD = "How many cities are there?", "SELECT COUNT(*) FROM city"


def check_prompt(prompt_type: str, num_shots: int) -> None:
    """Raise `UserError` unless such prompts can be made."""
    if prompt_type not in PROMPT_TYPES:
        raise UserError(f"--prompt_type={prompt_type!r} does not go with SQL; use one of {', '.join(PROMPT_TYPES)}.")
    if num_shots:
        raise UserError(f"--num_shots={num_shots}: SQL is asked without worked examples; use 0.")


@lru_cache(maxsize=4096)
def schema_text(path: str, num_values: int) -> str:
    """The CREATE TABLE statements of a database as they are stored, with ``num_values`` example texts per column."""
    connection = open_database(Path(path))
    try:
        lines = [sql.strip().rstrip(";") + ";" for sql in create_statements(connection)]
        for table in read_tables(connection) if num_values else []:
            for column in table.columns:
                if values := _examples(connection, table.name, column, num_values):
                    lines.append(f"-- {table.name}.{column}: {', '.join(values)}")
    except sqlite3.Error as error:
        raise UserError(f"the database {path!r} cannot be read ({error}); mend or replace it.") from None
    finally:
        connection.close()
    return "\n".join(lines)


def _examples(connection: sqlite3.Connection, table: str, column: str, count: int) -> list[str]:
    """Different short texts among the first rows of a column, as SQL writes them."""
    name = quoted(column)
    first = f"SELECT {name} AS value FROM {quoted(table)} LIMIT {SEARCHED_ROWS}"
    found = connection.execute(
        f"SELECT DISTINCT value FROM ({first}) WHERE typeof(value) = 'text' AND length(value) <= {LONGEST_VALUE} "
        f"AND instr(value, char(10)) = 0 LIMIT {count}"
    )
    return ["'" + value.replace("'", "''") + "'" for (value,) in found]


def asked(schema: str, evidence: str, question: str) -> str:
    """Schema, blank line, evidence if any, question."""
    hint = f"{evidence.strip()}\n" if evidence.strip() else ""
    return f"{schema}\n\n{hint}{question.strip()}"


def prompt(schema: str, evidence: str, question: str, prompt_type: str) -> list[dict] | str:
    """A conversation, or for "plain" a text that ends in ``SQL:`` and is continued by the query."""
    system, text = SYSTEM_PROMPTS[prompt_type], asked(schema, evidence, question)
    if prompt_type == "plain":
        return f"{system}\n\n{text}\nSQL:"
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def add_prompts(
    rows: Dataset, prompt_type: str, num_shots: int = 0, seed: int = 0, schema_values: int = SCHEMA_VALUES
) -> Dataset:
    """``rows`` with the columns prompt and `CONTINUES`. Raises `UserError` as `check_prompt` does."""
    check_prompt(prompt_type, num_shots)

    def columns(row: dict) -> dict:
        schema = schema_text(row["databases"][0], schema_values)
        return {
            "prompt": prompt(schema, row["evidence"], row["question"], prompt_type),
            CONTINUES: prompt_type == "plain",
        }

    return rows.map(columns)


def worked_example(prompt_type: str, path: str) -> tuple[dict, str]:
    """(a row with its prompt, its right answer in the shape asked for), which the check at the start has graded.

    Args:
        path: of a database made by `EXAMPLE_SCRIPT`.
    """
    row = {
        "id": "example",
        "question": EXAMPLE_QUESTION,
        "gold": EXAMPLE_GOLD,
        "databases": [path],
        "tie_groups": [[]],
        "prompt": prompt(EXAMPLE_SCRIPT, "", EXAMPLE_QUESTION, prompt_type),
        CONTINUES: prompt_type == "plain",
    }
    if prompt_type == "plain":
        return row, f" {EXAMPLE_GOLD};"
    return row, f"<{prompt_type}>\nCount the rows.\n</{prompt_type}>\n<answer>\n{EXAMPLE_GOLD}\n</answer>"
