"""Problems of the small world: questions and their queries, databases that judge them, splits by template, prompts.

Rows have the columns of `tasks.sql.problems`. The databases are made from their numbers alone. A question is asked of
the one that its hash names, and judged on the databases of the next numbers too: these are its hidden ones.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from random import Random

from datasets import Dataset

from common.errors import UserError
from rewards.sql.grader import CONTINUES, gold_result
from tasks.distinct import distinct
from tasks.load import CACHE, cache_folder, made_once
from tasks.sql import SCHEMA_VALUES, prompts
from tasks.sql.disk import writing
from tasks.sql.problems import FEATURES
from tasks.sql.tiny.query import CITIES, KINDS, LARGEST, Query

NAME = "sql_tiny"
SPLITS = {"train": range(0, 70), "validation": range(70, 85), "test": range(85, 100)}
TRAIN_PROBLEMS, TEST_PROBLEMS = 4_000, 512
TEST_SEED = -1  # none that a run draws its training questions by
DATABASES = 256
SCHEMA = """
PRAGMA page_size = 512;
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, price INTEGER, stock INTEGER,
    weight INTEGER);
CREATE TABLE sale (id INTEGER PRIMARY KEY, item INTEGER NOT NULL REFERENCES item(id), city TEXT NOT NULL,
    amount INTEGER NOT NULL);
"""
NAMES = ("alba", "brio", "cleo", "dune", "echo", "faro", "gala", "hugo", "iris", "juno", "kilo", "luna")
SMALL = 9  # largest number in half of the databases, so that ties and hits by chance occur
NULL_SHARE = 0.1
_MAX_FRUITLESS_DRAWS = 20_000


def split_of(query: Query) -> str:
    """The split of a template, by its hash; those without conditions, which others are made of, are for training."""
    digest = hashlib.blake2b(query.template.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") % 100 if query.conditions else 0
    return next(name for name, places in SPLITS.items() if place in places)


def draw_queries(split: str, rng: Random) -> Iterator[Query]:
    """Endless random queries of one split, repetitions possible."""
    while True:
        query = Query.drawn(rng)
        if split_of(query) == split:
            yield query


def generate(count: int, split: str, seed: int, num_hidden: int) -> Dataset:
    """``count`` different questions of ``split``, judged on ``num_hidden`` databases beside their own.

    A question whose query gives no rows there, or nothing but NULL, is left out: any wrong query that gives as little
    would be right. Raises `UserError` for an unknown split, more hidden databases than there are, and where the world
    does not hold that many questions.
    """
    if split not in SPLITS:
        raise UserError(f"--split={split!r} is no split of {NAME}; use one of {', '.join(SPLITS)}.")
    if not 0 <= num_hidden < DATABASES:
        raise UserError(f"--hidden_databases={num_hidden}: {NAME} has {DATABASES} databases; use 0 to {DATABASES - 1}.")
    paths, rows = databases(), []

    def refusal(_: int) -> str:
        return f"{NAME} has no {count} questions of split {split!r}, only {len(rows)}; ask for fewer."

    queries = draw_queries(split, Random(f"{seed}-{split}"))
    for query in distinct(queries, Query.words, _MAX_FRUITLESS_DRAWS, refusal):
        if row := _row(query, query.words(), paths, num_hidden, f"{split}-{len(rows)}"):
            rows.append(row)
        if len(rows) == count:
            return Dataset.from_list(rows, features=FEATURES)


def load_test(source: str, split: str, num_hidden: int = 3) -> Dataset:
    """`TEST_PROBLEMS` questions of ``split``, the same at every call. Raises `UserError` for another source."""
    if source != NAME:
        raise UserError(f"--data={source!r}: {NAME} makes its own questions; leave it out, or use --task=spider.")
    return generate(TEST_PROBLEMS, split, TEST_SEED, num_hidden)


def _row(query: Query, question: str, paths: list[str], num_hidden: int, identity: str) -> dict | None:
    """The row of a question; None where its query gives nothing on its own database."""
    digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
    first = int.from_bytes(digest, "big") % DATABASES
    judges = [paths[(first + number) % DATABASES] for number in range(num_hidden + 1)]
    gold = query.sql()
    own = gold_result(judges[0], gold)
    if all(value is None for row in own.rows for value in row):
        return None
    results = [own, *(gold_result(path, gold) for path in judges[1:])] if query.is_sorted else []
    return {
        "id": identity,
        "db": f"{NAME} {first}",
        "question": question,
        "evidence": "",
        "gold": gold,
        "ordered": query.is_sorted,
        "tied": False,
        "cut": False,
        "rows": len(own.rows),
        "columns": own.width,
        "databases": judges,
        # Sorted rows are told apart by the id behind the sort key, so no two may change places.
        "tie_groups": [[1] * len(result.rows) for result in results] or [[] for _ in judges],
    }


@lru_cache
def databases() -> list[str]:
    """Paths of the `DATABASES` files, which are made at the first call and kept in the cache of data sets."""
    scripts = [_script(Random(f"{NAME} {number}"), LARGEST if number % 2 else SMALL) for number in range(DATABASES)]
    digest = hashlib.sha256("\n".join(scripts).encode()).hexdigest()[:32]

    def make(unfinished: Path) -> None:
        for number, script in enumerate(scripts):
            _write(unfinished / f"{number}.sqlite", script)

    with writing(cache_folder(), CACHE):
        folder = made_once(Path(cache_folder()) / NAME / digest, make)
    return [str(folder / f"{number}.sqlite") for number in range(DATABASES)]


def _script(rng: Random, largest: int) -> str:
    """SQL that makes one database: 5 to 9 items and 3 to 11 sales."""

    def number() -> str:
        return "NULL" if rng.random() < NULL_SHARE else str(rng.randint(0, largest))

    lines, items = [SCHEMA], rng.randint(5, 9)
    for item in range(1, items + 1):
        numbers = ",".join(number() for _ in range(3))
        lines.append(f"INSERT INTO item VALUES ({item},'{rng.choice(NAMES)}','{rng.choice(KINDS)}',{numbers});")
    for sale in range(1, rng.randint(3, 11) + 1):
        amount = rng.randint(0, largest)
        lines.append(f"INSERT INTO sale VALUES ({sale},{rng.randint(1, items)},'{rng.choice(CITIES)}',{amount});")
    return "\n".join(lines)


def _write(path: Path, script: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(f"PRAGMA synchronous = OFF; {script}")
    finally:
        connection.close()


def short_prompt(question: str) -> str:
    """The question alone, and ``SQL:`` to go on from."""
    return f"{question}\nSQL:"


def add_prompts(
    rows: Dataset,
    prompt_type: str,
    num_shots: int = 0,
    seed: int = 0,
    schema_values: int = SCHEMA_VALUES,
) -> Dataset:
    """``rows`` with the columns prompt and `CONTINUES`. Raises `UserError` as `tasks.sql.prompts.check_prompt` does.

    "plain" is the `short_prompt`: the world has one schema, which a policy of its own learns in the warm start. The
    other types show the tables too, for a policy that comes from elsewhere.
    """
    if prompt_type != "plain":
        return prompts.add_prompts(rows, prompt_type, num_shots, seed, schema_values)
    prompts.check_prompt(prompt_type, num_shots)
    return rows.map(lambda row: {"prompt": short_prompt(row["question"]), CONTINUES: True})
