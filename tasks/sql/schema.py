"""Tables of a SQLite file, and copies of it with the rows in another order."""

import hashlib
import re
import sqlite3
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError

# Of shuffled rows. Each pair of rows stands both ways round, so that what their order decides never looks determined.
ORDERS = ("rowid DESC", "place(rowid)", "place(rowid) DESC")


class ForeignKey(NamedTuple):
    """``columns`` of a table hold values of ``targets`` in the table ``parent``."""

    parent: str
    columns: list[str]
    targets: list[str]


class Table(NamedTuple):
    """A table: its statement, the names of its columns, those that may be NULL, its primary key, its foreign keys.

    Foreign keys whose parent or columns are not there are left out.
    """

    name: str
    sql: str
    columns: list[str]
    nullable: set[str]
    key: list[str]
    foreign_keys: list[ForeignKey]


def quoted(name: str) -> str:
    """``name`` as SQL takes it, whatever its characters."""
    return '"' + name.replace('"', '""') + '"'


def open_database(path: Path) -> sqlite3.Connection:
    """A connection that reads ``path`` and writes nothing. Raises `UserError` unless it is a whole SQLite file."""
    for ending in ("-wal", "-journal"):
        beside = path.with_name(path.name + ending)
        if beside.is_file() and beside.stat().st_size:
            raise UserError(
                f"the database {str(path)!r} is locked: it is being written, or its writer was cut off, and "
                f"{beside.name} holds what it lacks; close the writer, or open and close it once with sqlite3."
            )
    try:
        connection = sqlite3.connect(path.absolute().as_uri() + "?mode=ro&immutable=1", uri=True)
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise UserError(f"the database {str(path)!r} cannot be read ({error}); give a SQLite 3 file.") from error
    return connection


def create_statements(connection: sqlite3.Connection) -> list[str]:
    """The statements that make the tables, as they are stored."""
    found = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    )
    return [sql for (sql,) in found if sql]


def read_tables(connection: sqlite3.Connection) -> list[Table]:
    """The tables with rows of their own, in the order of the file; virtual ones are left out."""
    found = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' "
        "AND sql NOT LIKE 'CREATE VIRTUAL%'"
    ).fetchall()
    columns = {name: connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall() for name, _ in found}
    real_names = {name.lower(): name for name in columns}
    tables = []
    for name, sql in found:
        names = [column[1] for column in columns[name]]
        key = [column[1] for column in sorted(columns[name], key=lambda column: column[5]) if column[5]]
        nullable = {column[1] for column in columns[name] if not column[3]} - set(key)
        tables.append(Table(name, sql, names, nullable, key, []))
    by_name = {table.name: table for table in tables}
    for table in tables:
        links: dict[int, list] = {}
        for link in connection.execute(f"PRAGMA foreign_key_list({quoted(table.name)})"):
            links.setdefault(link[0], []).append(link)
        for parts in links.values():
            parent = by_name.get(real_names.get(parts[0][2].lower(), ""))
            if parent is None:
                continue
            parts.sort(key=lambda part: part[1])
            # Without names of its own the parent's primary key is meant.
            targets = [part[4] or (parent.key[part[1]] if part[1] < len(parent.key) else "") for part in parts]
            pairs = [
                (_real(part[3], table), _real(target, parent)) for part, target in zip(parts, targets, strict=True)
            ]
            if all(mine and theirs for mine, theirs in pairs):
                mine, theirs = map(list, zip(*pairs, strict=True))
                table.foreign_keys.append(ForeignKey(parent.name, mine, theirs))
    return tables


def _real(name: str, table: Table) -> str | None:
    return next((column for column in table.columns if column.lower() == name.lower()), None)


def parents_first(tables: list[Table]) -> list[Table]:
    """The tables so that each comes after those that it refers to; where they form a circle, in their own order."""
    left, done = list(tables), []
    while left:
        placed = {table.name for table in done}
        ready = [
            table
            for table in left
            if all(link.parent in placed or link.parent == table.name for link in table.foreign_keys)
        ] or left[:1]
        done += ready
        left = [table for table in left if table not in ready]
    return done


def shuffled_copy(source: Path, target: Path, order: str) -> None:
    """Write ``source`` to ``target`` with the rows of every table in one of `ORDERS`.

    INTEGER becomes INT, and AUTOINCREMENT and WITHOUT ROWID are dropped, so that no key orders the rows; indexes are
    left out. Raises `sqlite3.Error` where the file has something that cannot be copied so.
    """
    with sqlite3.connect(source.absolute().as_uri() + "?mode=ro&immutable=1", uri=True) as original:
        statements = original.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    original.close()
    connection = sqlite3.connect(target.absolute().as_uri(), uri=True, isolation_level=None)
    try:
        connection.create_function("place", 1, _place, deterministic=True)
        connection.execute("ATTACH ? AS original", (source.absolute().as_uri() + "?mode=ro&immutable=1",))
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for kind, name, sql in statements:
            if kind == "table" and not name.lower().startswith("sqlite_"):
                connection.execute(_keyless(sql))
                rows = f"SELECT * FROM original.{quoted(name)}"
                is_keyed = re.search(r"WITHOUT\s+ROWID\W*$", sql, re.IGNORECASE)
                sorting = "" if is_keyed else f" ORDER BY {order}"
                connection.execute(f"INSERT INTO main.{quoted(name)} {rows}{sorting}")
        for kind, _, sql in statements:
            if kind == "view":
                connection.execute(sql)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _place(rowid: int) -> bytes:
    return hashlib.blake2b(str(rowid).encode(), digest_size=8).digest()


def _keyless(sql: str) -> str:
    sql = re.sub(r"\bAUTOINCREMENT\b", "", re.sub(r"\bINTEGER\b", "INT", sql, flags=re.IGNORECASE), flags=re.IGNORECASE)
    return re.sub(r"\bWITHOUT\s+ROWID\b", "", sql, flags=re.IGNORECASE)
