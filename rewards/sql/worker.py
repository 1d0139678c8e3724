"""The process that runs queries: `python -I -S worker.py`, lines of JSON in, lines of JSON out.

It imports nothing of the project. A request is {"path", "sql"}; the reply {"status", "message"}, and for the status
"ok" also {"width", "rows"}. Bytes are {"bytes": hexadecimal}. A query opens its database read-only and immutable, under
an authorizer that knows reading alone, limits on sizes, and a budget of virtual-machine steps. What a single step holds
up is ended by processor time: the signal SIGPROF kills the process, and the caller starts another.
"""

import json
import pathlib
import signal
import sqlite3
import sys

STEP_BUDGET = 20_000_000  # virtual-machine steps of a query; the same verdict on a fast and on a loaded machine
STEPS_PER_CALL = 1_000
CPU_SECONDS = 4.0
MAX_MEMORY = 400 * 2**20  # bytes of address space
MAX_ROWS, MAX_BYTES = 20_000, 8_000_000
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 100_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_COLUMN: 200,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
# Functions of time, and the place of their first argument that is one: without it, or where it is one of `NOW`, they
# read the clock.
TIMES = {"date": 0, "time": 0, "datetime": 0, "julianday": 0, "unixepoch": 0, "strftime": 1, "timediff": 0}
NOW = ("now", "subsec", "subsecond")
CLOCKS = ("current_date", "current_time", "current_timestamp")  # which a view, or a name in quotes, calls too
REFUSED_FUNCTIONS = ("load_extension", "random", "randomblob", "zeroblob", "fts3_tokenizer", *CLOCKS)


_plain = sqlite3.connect(":memory:")
_KNOWN = {name for (name,) in _plain.execute("SELECT name FROM pragma_function_list")}


def _is_now(value) -> bool:
    """Whether SQLite reads ``value`` as the time at which it runs: a blob is text to it, and text ends at a NUL."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return isinstance(text, str) and text.partition("\0")[0].lower() in NOW


class TooLarge(Exception):
    """More rows or bytes than a result may have."""


class Query:
    """One query on one database; `run` gives its reply."""

    def __init__(self, path: str):
        self.denied = False
        self.steps = 0
        uri = pathlib.Path(path).absolute().as_uri() + "?mode=ro&immutable=1"
        # No isolation level: the module would begin a transaction before a statement that writes.
        self.connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        self.connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        self.connection.execute("PRAGMA query_only = 1")
        self.connection.execute("PRAGMA temp_store = MEMORY")  # large sorts would write files, which is not allowed
        for limit, value in LIMITS.items():
            self.connection.setlimit(limit, value)
        for name in TIMES:
            self._guard_time(name)
        self.connection.set_authorizer(self._authorize)
        self.connection.set_progress_handler(self._count, STEPS_PER_CALL)

    def _authorize(self, action, first, second, database, trigger) -> int:
        name = (second or "").lower()
        allowed = action in READING or (
            action == sqlite3.SQLITE_FUNCTION and name not in REFUSED_FUNCTIONS and not name.startswith("sqlite_")
        )
        self.denied |= not allowed
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def _guard_time(self, name: str) -> None:
        """Let the function ``name`` of time have its value, unless it would read the clock."""
        last = 2 if name == "timediff" else TIMES[name] + 1

        def function(*arguments):
            times = arguments[TIMES[name] : last]
            if not times or any(map(_is_now, times)):
                self.denied = True
                raise ValueError("reads the clock")
            return _plain.execute(f"SELECT {name}({', '.join('?' * len(arguments))})", arguments).fetchone()[0]

        if name in _KNOWN:
            self.connection.create_function(name, -1, function, deterministic=True)

    def _count(self) -> bool:
        self.steps += STEPS_PER_CALL
        return self.steps >= STEP_BUDGET

    def run(self, sql: str) -> dict:
        try:
            cursor = self.connection.execute(sql)
            width = len(cursor.description or ())
            return {"status": "ok", "message": "", "width": width, "rows": list(self._rows(cursor))}
        except (TooLarge, MemoryError) as error:
            return {"status": "too_large", "message": str(error) or "out of memory"}
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            return {"status": self._status(error), "message": str(error)}

    def _rows(self, cursor):
        size = 0
        for count, row in enumerate(cursor, start=1):
            size += sum(len(value) if isinstance(value, (str, bytes)) else 8 for value in row)
            if count > MAX_ROWS or size > MAX_BYTES:
                raise TooLarge(f"over {MAX_ROWS} rows or {MAX_BYTES} bytes")
            yield [{"bytes": value.hex()} if isinstance(value, bytes) else value for value in row]

    def _status(self, error: Exception) -> str:
        if self.denied:
            return "forbidden"
        if self.steps >= STEP_BUDGET:
            return "timeout"
        return "too_large" if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_TOOBIG else "error"

    def close(self) -> None:
        self.connection.close()


def limit_process() -> None:
    """Cap memory and forbid files and core dumps, where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_cpu(seconds: float) -> None:
    """End the process after so much more processor time; 0 takes the limit away."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_PROF, seconds)


def answer(request: dict) -> dict:
    """The reply to one request."""
    try:
        query = Query(request["path"])
    except sqlite3.Error as error:
        return {"status": "unopened", "message": str(error)}
    try:
        limit_cpu(CPU_SECONDS)
        return query.run(request["sql"])
    finally:
        limit_cpu(0)
        query.close()


def serve() -> None:
    """Answer requests from standard input until it ends."""
    limit_process()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
