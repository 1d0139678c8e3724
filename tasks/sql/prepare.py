"""Golds examined and hidden databases made, once per database and set of golds, and kept in the cache of data sets."""

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rewards.sql import rows, worker
from tasks.load import CACHE, cache_folder, made_once
from tasks.sql import clauses, golds, hidden, schema
from tasks.sql.disk import writing
from tasks.sql.golds import Gold, examine
from tasks.sql.hidden import Source

MAX_SHUFFLED_BYTES = 32_000_000  # of a database; golds on larger ones are judged by their sort keys alone
_MADE_BY = (rows, worker, clauses, golds, hidden, schema)  # whose change makes what is kept stale


class Prepared(NamedTuple):
    """A database with the golds asked of it.

    Attributes:
        golds: query -> its `Gold` on the database itself.
        judges: query -> (path, tie groups) of each hidden database on which its result is determined.
        hidden: how many hidden databases there are; 0 too where SQLite cannot make the tables again.
    """

    golds: dict[str, Gold]
    judges: dict[str, list[tuple[str, list[int]]]]
    hidden: int


def prepare(path: Path, queries: Sequence[str], num_hidden: int, suite: Sequence[Path] = ()) -> Prepared:
    """`Prepared` of the database ``path``: judged on the files of ``suite``, or else on ``num_hidden`` made ones.

    A hidden database is left out for a gold that fails there or whose rows are not determined there. Raises `UserError`
    where the disk is full or cannot be written; nothing is kept then.
    """
    queries = sorted(set(queries))
    made = list(suite)
    with writing(cache_folder(), CACHE):
        folder = made_once(
            Path(cache_folder()) / "sql" / _identity(path, queries, num_hidden, suite),
            lambda unfinished: _build(unfinished, path, queries, num_hidden, suite),
        )
    kept = json.loads((folder / "golds.json").read_text(encoding="utf-8"))
    made = made or [folder / f"{number}.sqlite" for number in range(kept["hidden"])]
    first = {query: Gold(*found[0]) for query, found in kept["golds"].items()}
    judges = {query: [] for query in first}
    for query, found in kept["golds"].items():
        for place, gold in zip(made, map(lambda fields: Gold(*fields), found[1:]), strict=True):
            if not (gold.problem or gold.cut):
                judges[query].append((str(place), gold.tie_groups))
    return Prepared(first, judges, len(made))


def _identity(path: Path, queries: Sequence[str], num_hidden: int, suite: Sequence[Path]) -> str:
    files = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in (path, *suite)]
    sources = [hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest() for module in _MADE_BY]
    parts = [sqlite3.sqlite_version, files, queries, 0 if suite else num_hidden, sources]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _build(folder: Path, path: Path, queries: Sequence[str], num_hidden: int, suite: Sequence[Path]) -> None:
    """Write hidden databases and ``golds.json`` into ``folder``."""
    made = list(suite)
    if not suite and num_hidden:
        try:
            with writing(cache_folder(), CACHE):
                source = Source(path, list(queries))
                for number in range(num_hidden):
                    made.append(folder / f"{number}.sqlite")
                    source.write(made[-1], f"{path.stem} {number}")
        except sqlite3.Error:  # tables that SQLite cannot make again, such as those of a module that it lacks
            made = []
    found: dict[str, list[Gold]] = {query: [] for query in queries}
    for place in (path, *made):
        with tempfile.TemporaryDirectory() as copies:
            shuffled = _shuffled(place, Path(copies))
            for query in queries:
                found[query].append(examine(str(place), shuffled, query))
    text = json.dumps({"hidden": 0 if suite else len(made), "golds": found})
    (folder / "golds.json").write_text(text, encoding="utf-8")


def _shuffled(path: Path, folder: Path) -> list[str]:
    """Copies of ``path`` with the rows in other orders; none of one that is too large or cannot be copied."""
    if path.stat().st_size > MAX_SHUFFLED_BYTES:
        return []
    copies = [folder / f"{number}.sqlite" for number in range(len(schema.ORDERS))]
    try:
        with writing(folder.parent, "TMPDIR"):
            for copy, order in zip(copies, schema.ORDERS, strict=True):
                schema.shuffled_copy(path, copy, order)
    except sqlite3.Error:
        return []
    return list(map(str, copies))
