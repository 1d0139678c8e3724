"""Queries as the graders run them: in a process of their own (`worker`), which no query can hold up for long."""

import atexit
import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from common.errors import RunError
from rewards.sql.rows import Row

WORKER = Path(__file__).with_name("worker.py")
WALL_SECONDS = 60.0  # beside the worker's own limit on processor time, which a loaded machine stretches
CACHED_VALUES = 2_000_000  # values of results that are kept


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
    def values(self) -> int:
        return 1 + len(self.rows) * self.width


class Runner:
    """The worker process: started at the first query, and again after it ended; results are kept, last used last."""

    def __init__(self):
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.kept: OrderedDict[tuple[str, str], Result] = OrderedDict()
        self.values = 0

    def run(self, path: str, sql: str) -> Result:
        """``sql`` on the database file ``path``. Raises `RunError` where the process or the database does not open."""
        with self.lock:
            found = self.kept.pop((path, sql), None) or self._ask(path, sql)
            self.kept[path, sql] = found
            return found

    def _ask(self, path: str, sql: str) -> Result:
        if self.process is None:
            self.process = self._start()
        reply = self._exchange(json.dumps({"path": path, "sql": sql}))
        if reply is None:
            self._stop()
            result = Result("timeout", [], 0, "ended by the limit on processor time")
        elif reply["status"] == "unopened":
            raise RunError(
                f"the database {path!r} cannot be opened ({reply['message']}); do not move it while it runs."
            )
        else:
            rows = [tuple(map(_value, row)) for row in reply.get("rows", ())]
            result = Result(reply["status"], rows, reply.get("width", 0), reply["message"])
        self.values += result.values
        while self.values > CACHED_VALUES and self.kept:
            self.values -= self.kept.popitem(last=False)[1].values
        return result

    def _exchange(self, request: str) -> dict | None:
        """The reply; None where the process ended or did not answer in time."""
        deadline = threading.Timer(WALL_SECONDS, self.process.kill)
        deadline.start()
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            return json.loads(line) if line.endswith("\n") else None
        except BrokenPipeError:
            return None
        finally:
            deadline.cancel()
            deadline.join()

    def _start(self) -> subprocess.Popen:
        # A session of its own keeps signals meant for the training (Ctrl-C, SIGTERM to the group) away from it.
        process = subprocess.Popen(
            [getattr(sys, "_base_executable", sys.executable), "-I", "-S", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            env={},
            start_new_session=True,
        )
        if process.stdout.readline() != "ready\n":
            process.kill()
            raise RunError(
                f"the process that runs SQL ended at once (exit code {process.wait()}); run `python -I -S {WORKER}` to "
                "see why."
            )
        return process

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def close(self) -> None:
        """End the process, if there is one, and forget the results."""
        with self.lock:
            self._stop()
            self.kept.clear()
            self.values = 0


def _value(value):
    return bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value


_runner = Runner()
atexit.register(lambda: _runner.close())


def runner() -> Runner:
    """The process's runner."""
    return _runner


def _forget() -> None:
    """A forked process must not share the pipes of its parent."""
    global _runner
    _runner = Runner()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
