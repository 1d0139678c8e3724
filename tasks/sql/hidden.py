"""Hidden databases: same tables, other rows, foreign keys kept, made so that queries right by accident are wrong there.

Rows are copies of real ones whose values are redrawn from few values: real ones, and those beside the numbers and texts
that gold queries compare the column with. So conditions and joins are met by some rows and missed by others.
"""

import sqlite3
from pathlib import Path
from random import Random

from tasks.sql.clauses import LARGEST, compared_literals
from tasks.sql.schema import Table, open_database, parents_first, quoted, read_tables

MAX_READ = 1_000  # real rows that a table's new ones are drawn from
SMALLEST, MOST = 3, 40  # rows of a table
FROM_DOMAIN, TO_NULL, BESIDE = 0.75, 0.05, 0.08  # chances that a value is redrawn, made NULL, or changed by one
REAL_VALUES = 5  # of a column's domain
PADDINGS = ("", "x", "Zq ")  # what a percent sign of a LIKE pattern is filled with


class Source:
    """Tables and rows that hidden databases are drawn from.

    Args:
        path: the database asked about.
        golds: the queries asked of it, whose literals matter.
    """

    def __init__(self, path: Path, golds: list[str]):
        connection = open_database(path)
        self.tables = parents_first(read_tables(connection))
        self.views = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'view'")]
        self.rows = {table.name: _read(connection, table) for table in self.tables}
        self.literals = compared_literals(golds)
        connection.close()

    def write(self, path: Path, seed: str) -> None:
        """Write one hidden database, which ``seed`` decides. Raises `sqlite3.Error` where the tables cannot be made."""
        rng, made = Random(seed), {}
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            for table in self.tables:
                connection.execute(table.sql)
                marks = ", ".join("?" * len(table.columns))
                names = ", ".join(map(quoted, table.columns))
                # Repeated keys, and whatever else the table's own rules refuse, are left out.
                insert = f"INSERT OR IGNORE INTO {quoted(table.name)} ({names}) VALUES ({marks})"
                connection.executemany(insert, self._drawn(table, made, rng))
                stored = connection.execute(f"SELECT {names} FROM {quoted(table.name)}").fetchall()
                made[table.name] = [dict(zip(table.columns, row, strict=True)) for row in stored]
            for view in self.views:
                connection.execute(view)
            self._remove_orphans(connection)
            connection.execute("COMMIT")
        finally:
            connection.close()

    def _drawn(self, table: Table, made: dict[str, list[dict]], rng: Random) -> list[list]:
        """New rows of ``table``; ``made`` holds those of the tables before it."""
        real = self.rows[table.name]
        most = min(MOST, max(6, len(real)))
        count = rng.randint(max(SMALLEST, most // 2), most + 4)
        domains = {column: self._domain(column, real, rng) for column in table.columns}
        links = [link for link in table.foreign_keys if link.parent in made or link.parent == table.name]
        linked = {column for link in links for column in link.columns}
        keys = _key_values(table, real, count, rng)
        rows: list[dict] = []
        for number in range(count):
            row = dict(rng.choice(real)) if real else dict.fromkeys(table.columns)
            for column in table.columns:
                if column not in table.key and column not in linked:
                    row[column] = _redrawn(row[column], domains[column], column in table.nullable, rng)
            if keys:
                row[table.key[0]] = keys[number % len(keys)]
            for link in links:
                parents = rows if link.parent == table.name else made[link.parent]
                if parents and not (row[link.columns[0]] is None and table.nullable.issuperset(link.columns)):
                    chosen = rng.choice(parents)
                    row.update({mine: chosen[theirs] for mine, theirs in zip(link.columns, link.targets, strict=True)})
                elif table.nullable.issuperset(link.columns):
                    row.update(dict.fromkeys(link.columns))
            rows.append(row)
        return [[row[column] for column in table.columns] for row in rows]

    def _domain(self, column: str, real: list[dict], rng: Random) -> list:
        """The few values that ``column`` is redrawn from."""
        values = sorted(
            {row[column] for row in real if row[column] is not None}, key=lambda value: (str(type(value)), value)
        )
        domain = rng.sample(values, min(REAL_VALUES, len(values)))
        for literal in self.literals.get(column.lower(), []):
            if isinstance(literal, str):
                domain += [literal.replace("%", padding) for padding in PADDINGS] if "%" in literal else [literal]
            else:
                domain += [literal - 1, literal, literal + 1]
        return domain

    def _remove_orphans(self, connection: sqlite3.Connection) -> None:
        """Delete rows that refer to none, until there is none: circles of tables and shared columns leave some."""
        while sum(_delete_orphans(connection, table) for table in self.tables):
            pass


def _delete_orphans(connection: sqlite3.Connection, table: Table) -> int:
    """Delete the rows of ``table`` that refer to none; returns how many there were."""
    try:
        orphans = connection.execute(f"PRAGMA foreign_key_check({quoted(table.name)})").fetchall()
    except sqlite3.OperationalError:
        return 0  # keys that are declared wrongly, which SQLite calls a mismatch, hold nothing
    rowids = {rowid for _, rowid, _, _ in orphans} - {None}
    connection.executemany(f"DELETE FROM {quoted(table.name)} WHERE rowid = ?", [(rowid,) for rowid in sorted(rowids)])
    return len(rowids)


def _read(connection: sqlite3.Connection, table: Table) -> list[dict]:
    """Up to `MAX_READ` rows from all over the table."""
    name = quoted(table.name)
    (count,) = connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()
    names = ", ".join(map(quoted, table.columns))
    every = f" WHERE rowid % {count // MAX_READ + 1} = 0" if count > MAX_READ else ""
    try:
        rows = connection.execute(f"SELECT {names} FROM {name}{every} LIMIT {MAX_READ}").fetchall()
    except sqlite3.OperationalError:  # a table without rowid
        rows = connection.execute(f"SELECT {names} FROM {name} LIMIT {MAX_READ}").fetchall()
    return [dict(zip(table.columns, row, strict=True)) for row in rows]


def _key_values(table: Table, real: list[dict], count: int, rng: Random) -> list:
    """Different values for a key of one column, in random order; none for a key of several."""
    if len(table.key) != 1:
        return []
    values = sorted({row[table.key[0]] for row in real} - {None}, key=lambda value: (str(type(value)), value))
    return rng.sample(values, min(count, len(values))) or list(range(1, count + 1))


def _redrawn(value, domain: list, nullable: bool, rng: Random):
    chance = rng.random()
    if chance < FROM_DOMAIN:
        return rng.choice(domain) if domain else value
    if chance < FROM_DOMAIN + TO_NULL:
        return None if nullable else value
    if chance < FROM_DOMAIN + TO_NULL + BESIDE and isinstance(value, int | float):
        beside = value + rng.choice((-1, 1))
        return beside if isinstance(value, float) or abs(beside) < LARGEST else value
    return value
