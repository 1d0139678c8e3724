"""Flags and data of run_sql.py."""

import atexit
import hashlib
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from common.errors import UserError
from common.flags import ANY_WEIGHT, check_choices, check_least, flag
from tasks.load import local_path, refuse_test_sets
from tasks.sql import SCHEMA_VALUES
from tasks.sql.problems import HUB_TEST, SPIDER, load_sql, split_file
from tasks.sql.prompts import EXAMPLE_SCRIPT, add_prompts, check_prompt
from tasks.sql.tiny import problems as tiny
from tasks.validation_split import MAX_VALIDATION_SHARE, draw, first_by_hash

RESULTS, SQL_R1 = REWARDS = ("results", "sql_r1")


@dataclass
class SqlOptions:
    """Data, prompt and rewards."""

    data: str = flag(
        SPIDER,
        "Training questions: a folder in Spider's or BIRD's layout or with <split>.jsonl, a json, jsonl or parquet "
        "file with db_id, question and query, a hub name, or sql_tiny: generated questions on small databases.",
    )
    databases: str = flag(
        "",
        "Folder of the SQLite files, <db>.sqlite or <db>/<db>.sqlite. Unset: a folder called databases, database or "
        "train_databases beside the questions; a hub data set has none.",
    )
    split: str = flag("train", "Split of a folder or hub data set to train on; not test or dev.")
    eval_split: str = flag(
        "",
        "Split to validate on, not test or dev. Unset: validation where the folder has it; else whole databases are "
        "set aside from the training split.",
    )
    hidden_databases: int = flag(
        3,
        "Hidden databases per database, on which a query has to be right too, 0 or more; made at the first start and "
        "kept in the cache of data sets.",
    )
    skip_bad_golds: bool = flag(
        False,
        "Leave questions out whose gold query fails, exceeds a limit or reads the clock; else they end the run. BIRD "
        "has some.",
    )
    train_problems: int = flag(0, f"Random training questions to use; 0 uses all, of sql_tiny {tiny.TRAIN_PROBLEMS:,}.")
    schema_values: int = flag(SCHEMA_VALUES, "Example texts per column that the prompt shows, 0 or more.")
    prompt_type: str = flag(
        "reasoning",
        "How is asked: reasoning or think (the query in tags), plain (the query behind SQL:, for a policy without chat "
        "template; of sql_tiny without the tables, for a policy that a warm start has taught them).",
    )
    reward: str = flag(
        RESULTS,
        "results (correctness, with the weights below), or sql_r1: SQL-R1's reward in steps in its place, for "
        "comparison.",
    )
    execute_weight: float = flag(0.0, "Weight of the reward for a query that runs, whatever its result." + ANY_WEIGHT)
    format_weight: float = flag(0.0, "Weight of the reward for the tags alone; plain has none." + ANY_WEIGHT)

    def __post_init__(self):
        check_prompt(self.prompt_type, 0)
        check_choices(self, reward=REWARDS)
        if self.reward == SQL_R1 and (self.prompt_type == "plain" or self.execute_weight or self.format_weight):
            raise UserError(
                f"--reward={SQL_R1} pays for tags and for running by itself; use it with tags (--prompt_type=think), "
                "and without --execute_weight and --format_weight."
            )
        check_least(self, train_problems=0, hidden_databases=0, schema_values=0)
        refuse_test_sets(self, "dev", *filter(None, [HUB_TEST.get(self.data)]))
        if self.eval_split and local_path(self.data).is_file():
            raise UserError(
                f"--eval_split={self.eval_split!r}: the file --data={self.data!r} has one split; leave it out, and "
                "whole databases are set aside from it."
            )
        if self.data == tiny.NAME:
            given = {"split": self.split != "train", "eval_split": self.eval_split, "databases": self.databases}
            for name in (name for name, is_given in given.items() if is_given):
                raise UserError(
                    f"--{name}={getattr(self, name)!r}: --data={tiny.NAME} makes its own questions and databases, and "
                    "has one split to train on; leave it out."
                )


def load_problems(options: SqlOptions, eval_problems: int, validate: bool, seed: int) -> tuple[Dataset, Dataset | None]:
    """(training, validation) rows with prompts; no database is in both.

    Which questions validate does not depend on the seed, nor do the hidden databases. Questions without a determined
    answer, and those whose gold gives no rows, which any wrong query that gives none would match, are not trained on.
    Raises `UserError` when no training question is left.
    """
    if options.data == tiny.NAME:
        return _generated(options, eval_problems, validate, seed)

    def load(split: str) -> Dataset:
        return load_sql(options.data, split, options.databases, options.hidden_databases, options.skip_bad_golds)

    train, validation = load(options.split), None
    if validate:
        split = options.eval_split or ("validation" if _has_split(options.data, "validation") else "")
        validation = load(split) if split else _databases_set_aside(train, eval_problems)
        held_out = set(validation["db"])
        train = train.select([index for index, db in enumerate(train["db"]) if db not in held_out])
        validation = first_by_hash(validation, eval_problems)
        validation = add_prompts(validation, options.prompt_type, schema_values=options.schema_values)
    train = _learnable(train)
    if not len(train):
        raise UserError(f"no training question of {options.data!r} is left; give questions on more databases.")
    if options.train_problems:
        train = draw(train, options.train_problems, seed)
    return add_prompts(train, options.prompt_type, schema_values=options.schema_values), validation


def _generated(options: SqlOptions, eval_problems: int, validate: bool, seed: int) -> tuple[Dataset, Dataset | None]:
    """(training, validation) rows of the small world: the seed draws training questions, no template is in both."""

    def rows(count: int, split: str, seed: int) -> Dataset:
        found = tiny.generate(count, split, seed, options.hidden_databases)
        return tiny.add_prompts(found, options.prompt_type, schema_values=options.schema_values)

    train = rows(options.train_problems or tiny.TRAIN_PROBLEMS, "train", seed)
    return train, rows(eval_problems, "validation", 0) if validate else None


def _has_split(data: str, split: str) -> bool:
    """Whether the folder ``data`` has a file for ``split``."""
    if not local_path(data).is_dir():
        return False
    try:
        return split_file(data, split) is not None
    except UserError:
        return False


def _databases_set_aside(rows: Dataset, count: int) -> Dataset:
    """The questions of whole databases, in an order that their names decide, until there are ``count`` of them.

    At most `MAX_VALIDATION_SHARE` of the questions, but one database at least.
    """
    order = sorted(set(rows["db"]), key=lambda db: hashlib.blake2b(db.encode()).digest())
    chosen: list[int] = []
    for db in order:
        found = [index for index, name in enumerate(rows["db"]) if name == db]
        if chosen and (len(chosen) >= count or len(chosen) + len(found) > MAX_VALIDATION_SHARE * len(rows)):
            continue
        chosen += found
    return rows.select(chosen)


def _learnable(rows: Dataset) -> Dataset:
    """``rows`` whose gold has rows, and determined ones; prints how many were left out."""
    cut = sum(rows["cut"])
    kept = [index for index, row in enumerate(rows) if not row["cut"] and row["rows"]]
    if len(kept) < len(rows):
        print(
            f"left out of training: {cut} of {len(rows)} questions whose gold determines no answer (as a LIMIT that "
            f"cuts through ties), {len(rows) - len(kept) - cut} more whose gold gives no rows",
            flush=True,
        )
    return rows.select(kept)


def example_database() -> str:
    """Path of a database made by `EXAMPLE_SCRIPT`, which ends with the process."""
    folder = tempfile.mkdtemp(prefix="sql-example-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "example.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(EXAMPLE_SCRIPT + "INSERT INTO city VALUES ('Oslo', 717710), ('Rome', 2746984);")
    connection.close()
    return str(path)
