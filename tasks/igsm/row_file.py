"""A file of rows that is written line by line, and goes on where it was killed.

Rows first go to ``<output>.partial``, whose first line holds the settings; the whole becomes ``<output>``, jsonl or
parquet, at the end, with ``<output>.meta.json`` beside it.
"""

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from filelock import FileLock, Timeout

from common.errors import UserError
from common.files import parse_json, read_json, write_atomically, write_json

FORMATS = (".jsonl", ".parquet")
RESTART = "remove it, or give --overwrite true"
_ROWS_PER_GROUP = 1000
_SPANS = pyarrow.list_(
    pyarrow.struct([("start", pyarrow.int64()), ("end", pyarrow.int64()), ("kind", pyarrow.string())])
)
_MESSAGES = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))


class RowFile:
    """The file ``output`` of rows with ``settings``, plain JSON; holds a lock from `open` to `close`.

    Rows come in groups of ``group_size``, which a resumed file holds whole or not at all.
    """

    def __init__(self, output: Path, settings: dict[str, Any], group_size: int = 1):
        if output.suffix not in FORMATS:
            raise UserError(f"--output={str(output)!r} must be a file that ends in {' or '.join(FORMATS)}.")
        self.output, self.settings, self.group_size = output, settings, group_size
        self.partial = output.with_name(f"{output.name}.partial")
        self.meta = output.with_name(f"{output.name}.meta.json")
        self.lock = FileLock(output.with_name(f".{output.name}.lock"))

    def __enter__(self) -> "RowFile":
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"--output={str(self.output)!r} is being written by another process; wait for it or give another."
            ) from None
        except OSError as error:
            raise UserError(f"--output={str(self.output)!r} cannot be written ({error}); give another.") from error
        return self

    def __exit__(self, *exception) -> None:
        self.lock.release()

    def discard(self) -> None:
        """Remove the file and what there is of it."""
        for path in (self.output, self.meta, self.partial):
            path.unlink(missing_ok=True)

    def is_complete(self) -> bool:
        """Whether the file is there already; raises `UserError` when it was made with other settings."""
        if not self.output.exists() or self.partial.exists():
            return False
        settings = read_json(self.meta, RESTART).get("settings") if self.meta.exists() else None
        self._check_settings(settings)
        return True

    def rows(self) -> Iterator[dict]:
        """The rows written so far."""
        with self.partial.open(encoding="utf-8") as file:
            next(file)
            for line in file:
                yield json.loads(line)

    def recover(self) -> int:
        """Cut off what a killed run left of its last group, or begin a new file; the number of whole groups there are.

        Raises `UserError` when the partial file was made with other settings.
        """
        if not self.partial.exists() or not self.partial.stat().st_size:
            self.partial.write_text(json.dumps({"settings": self.settings}) + "\n", encoding="utf-8")
            return 0
        whole, ends = 0, []
        with self.partial.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    whole += len(line)
                    ends.append(whole)
        if not ends:
            self.partial.unlink()
            return self.recover()
        with self.partial.open("rb") as file:
            first = parse_json(file.readline(), str(self.partial), RESTART)
        self._check_settings(first.get("settings"))
        groups = (len(ends) - 1) // self.group_size
        os.truncate(self.partial, ends[groups * self.group_size])
        return groups

    def append(self, groups: Iterable[list[dict]]) -> None:
        """Write groups of rows as they come."""
        with self.partial.open("a", encoding="utf-8") as file:
            for group in groups:
                file.write("".join(json.dumps(row) + "\n" for row in group))

    def finish(self, summary: dict[str, Any]) -> None:
        """Turn the partial file into the output, and write its settings and ``summary`` beside it."""
        write_json(self.meta, {"settings": self.settings, "summary": summary})
        write_atomically(self.output, self._write_parquet if self.output.suffix == ".parquet" else self._write_lines)
        self.partial.unlink()

    def summary(self) -> dict:
        """What `finish` was given."""
        return read_json(self.meta, RESTART)["summary"]

    def _write_lines(self, path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in self.rows())

    def _write_parquet(self, path: Path) -> None:
        rows = self.rows()
        batch = list(islice(rows, _ROWS_PER_GROUP))
        with pyarrow.parquet.ParquetWriter(path, _schema(batch[0])) as writer:
            while batch:
                writer.write_table(pyarrow.Table.from_pylist(batch, writer.schema))
                batch = list(islice(rows, _ROWS_PER_GROUP))

    def _check_settings(self, settings: dict | None) -> None:
        if settings == self.settings:
            return
        found = settings if isinstance(settings, dict) else {}
        changed = sorted(name for name, value in self.settings.items() if found.get(name) != value)
        there = self.partial if self.partial.exists() else self.output
        raise UserError(
            f"--output={str(self.output)!r}: {str(there)!r} is there and was made with other settings "
            f"({', '.join(changed)}); give another, or --overwrite true."
        )


def read_column(path: str | Path, column: str) -> list:
    """One column of a file of rows, jsonl or parquet; raises `UserError` when there is no such file or column."""
    path = Path(path)
    if not path.is_file() or path.suffix not in FORMATS:
        raise UserError(f"{str(path)!r} is no file of rows; give one that ends in {' or '.join(FORMATS)}.")
    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path, columns=[column]).column(column).to_pylist()
        with path.open(encoding="utf-8") as file:
            return [json.loads(line)[column] for line in file]
    except (KeyError, TypeError, ValueError, RecursionError, OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{str(path)!r} has no readable column {column!r}; give a file of iGSM problems.") from error


def _schema(row: dict) -> pyarrow.Schema:
    """Arrow types of the columns, by the first row; lists may be empty there, so theirs are given."""
    of_lists = {"prompt": _MESSAGES, "completion": _MESSAGES, "injected": _SPANS, "content": _SPANS}

    def arrow_type(name: str, value) -> pyarrow.DataType:
        if isinstance(value, list):
            return of_lists[name]
        return pyarrow.int64() if isinstance(value, int) else pyarrow.string()

    return pyarrow.schema([(name, arrow_type(name, value)) for name, value in row.items()])
