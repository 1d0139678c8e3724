"""Queries as the graders run them: in a process of their own (`worker`), which no query can hold up for long."""

import os
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from common.errors import RunError
from rewards.sql.rows import Row
from rewards.worker_process import WorkerProcess

WORKER = Path(__file__).with_name("worker.py")
CACHED_BYTES = 200_000_000  # about what kept results take in memory, with their queries
OBJECT_BYTES = 64  # of a value beside its text


class Result(NamedTuple):
    """What a query came to.

    Attributes:
        status: "ok", or error, forbidden, timeout or too_large.
        rows, width: its rows and how many columns each has; none and 0 unless the status is "ok".
        message: SQLite's sentence where it failed.
    """

    status: str
    rows: list[Row]
    width: int
    message: str

    @property
    def size(self) -> int:
        """About the bytes that it takes in memory."""
        texts = sum(len(value) for row in self.rows for value in row if isinstance(value, (str, bytes)))
        return OBJECT_BYTES * (4 + len(self.rows) * (1 + self.width)) + texts


class Runner:
    """Results of the worker process, which are kept, last used last."""

    def __init__(self):
        python = getattr(sys, "_base_executable", sys.executable)
        self.worker = WorkerProcess([python, "-I", "-S", str(WORKER)], "runs SQL", env={})
        self.lock = threading.Lock()
        self.kept: OrderedDict[tuple[str, str], Result] = OrderedDict()
        self.size = 0

    def run(self, path: str, sql: str) -> Result:
        """``sql`` on the database file ``path``. Raises `RunError` where the process or the database does not open."""
        with self.lock:
            found = self.kept.pop((path, sql), None)
            if found is None:
                found = self._ask(path, sql)
                self.size += found.size + len(sql)
            self.kept[path, sql] = found
            while self.size > CACHED_BYTES:
                (_, oldest), result = self.kept.popitem(last=False)
                self.size -= result.size + len(oldest)
            return found

    def _ask(self, path: str, sql: str) -> Result:
        reply = self.worker.ask({"path": path, "sql": sql})
        if reply is None:
            return Result("timeout", [], 0, "ended by the limit on processor time")
        if reply["status"] == "unopened":
            raise RunError(
                f"the database {path!r} cannot be opened ({reply['message']}); do not move it while it runs."
            )
        rows = [tuple(map(_value, row)) for row in reply.get("rows", ())]
        return Result(reply["status"], rows, reply.get("width", 0), reply["message"])

    def close(self) -> None:
        """End the process, if there is one, and forget the results."""
        self.worker.stop()
        with self.lock:
            self.kept.clear()
            self.size = 0


def _value(value):
    return bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value


_runner = Runner()


def runner() -> Runner:
    """The process's runner."""
    return _runner


def _forget() -> None:
    """A forked process may not wait for a lock that a thread of its parent held."""
    global _runner
    _runner = Runner()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
