"""The sandbox as the graders see it: servers of `child`, a check of the isolation at start, and jobs for them."""

import atexit
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

from common.errors import UserError
from rewards.sandbox.job_head import COMPILES, FUNCTION, HEADER, PROGRAM
from rewards.sandbox.wire import read_exactly, write_all

SERVER = Path(__file__).with_name("child.py")
MODES = ("auto", "strict", "process")
MOST_SECONDS = 3600  # of processor time for a job
WAYS_OUT = (
    "run on Linux 5.13 or later with Landlock and seccomp allowed, or give --sandbox=process, under which model code "
    "can read and write this account's files"
)
STRICT_ABI = 6  # the first Landlock that holds back TCP and signals as well as files
# What an answer tries; each line must fail. What succeeds is printed.
_ESCAPES = """
import os, signal, socket
def write():
    path = "/tmp/sandbox-self-test-" + os.urandom(8).hex()
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)
def tries():
    yield "read files", lambda: open("/etc/passwd").read()
    yield "write files", write
    yield "start processes", lambda: os.fork() or os._exit(0)
    yield "open sockets", lambda: socket.socket()
    yield "signal other processes", lambda: os.kill(os.getppid(), 0)
for name, attempt in tries():
    try:
        attempt()
    except (OSError, PermissionError):
        continue
    print(name)
"""


@dataclass(frozen=True)
class Job:
    """One thing to run. ``code``: of the answer; ``rest``: tests as JSON, or a program's standard input."""

    kind: int
    code: str
    rest: str
    entry_point: str = ""
    most_output: int = 0


def function_job(code: str, helpers: str, test: str, entry_point: str) -> Job:
    """The answer ``code``, whose ``entry_point`` the asserts of ``test`` call; ``helpers`` are defined beside them."""
    rest = json.dumps({"helpers": helpers, "test": test, "entry_point": entry_point})
    return Job(FUNCTION, code, rest, entry_point)


def program_job(code: str, given: str, most_output: int) -> Job:
    """The program ``code`` on the standard input ``given``; more than ``most_output`` bytes are too many."""
    return Job(PROGRAM, code, given, most_output=most_output)


class Server:
    """One process of `child`, which runs one job at a time."""

    def __init__(self, mode: str):
        self.process = subprocess.Popen(
            [getattr(sys, "_base_executable", sys.executable), "-I", "-S", str(SERVER), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            bufsize=0,
        )
        self.found = self._read()  # which mechanisms there are

    def run(self, job: Job, seconds: int) -> dict:
        """The reply to ``job``. Raises `EOFError` when the server has died."""
        code = (f"{job.entry_point}\0" if job.kind == FUNCTION else "") + job.code
        parts = [text.encode("utf-8", "surrogatepass") for text in (code, job.rest)]
        request = HEADER.pack(job.kind, *map(len, parts), seconds, job.most_output) + b"".join(parts)
        try:
            write_all(self.process.stdin.fileno(), request)
        except BrokenPipeError:
            raise EOFError from None
        return self._read()

    def _read(self) -> dict:
        (length,) = struct.unpack("=I", self._exactly(4))
        return json.loads(self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        data = read_exactly(self.process.stdout.fileno(), count)
        if len(data) < count:
            raise EOFError
        return data

    def close(self) -> None:
        """End the server; its children end with it."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()


class Sandbox:
    """Servers, and the isolation that was found in force.

    Args:
        mode: "auto" runs where files, processes, sockets and signals are held back, by whatever mechanism; "strict"
            wants every mechanism; "process" runs with resource limits alone.
        seconds: of processor time for an answer; the wall clock allows 4 times that.
        workers: servers, answers that are run at once.

    Raises `UserError` where the mode cannot be kept.
    """

    def __init__(self, mode: str = "auto", seconds: int = 5, workers: int = 1):
        self.mode, self.seconds = mode, seconds
        self.again = Lock()
        self.servers = [self._start()]
        self.free: SimpleQueue[Server] = SimpleQueue()
        self.free.put(self.servers[0])
        self.escapes = self._self_test()
        self._check()
        for _ in range(workers - 1):
            self.servers.append(self._start())
            self.free.put(self.servers[-1])
        self.threads = ThreadPoolExecutor(workers)
        atexit.register(self.close)

    def _start(self) -> Server:
        try:
            return Server(self.mode)
        except (EOFError, OSError) as error:
            raise UserError(f"the sandbox does not start ({error or 'its server ended'}); {WAYS_OUT}.") from error

    def _self_test(self) -> list[str]:
        """What an answer can do that it must not. Raises `UserError` where a right answer does not pass."""
        right = self.run(function_job("def f(x):\n    return x + 1", "", "assert f(1) == 2", "f"))
        if right["verdict"] != "correct":
            raise UserError(f"the sandbox judges a right answer {right['verdict']}; {WAYS_OUT}.")
        reply = self.run(program_job(_ESCAPES, "", 1000))
        return reply["output"].split("\n")[:-1] if reply["verdict"] == "ended" else [f"unknown ({reply['verdict']})"]

    def _check(self) -> None:
        if self.mode == "process":
            return
        found = self.servers[0].found
        missing = [f"Landlock {STRICT_ABI} (found {found['landlock']})"] if found["landlock"] < STRICT_ABI else []
        missing += [] if found["seccomp"] else ["seccomp"]
        if self.mode == "strict" and missing:
            self.close()
            raise UserError(f"--sandbox=strict: this machine lacks {' and '.join(missing)}; {WAYS_OUT}.")
        if self.escapes:
            self.close()
            raise UserError(f"the sandbox does not hold: an answer can {', '.join(self.escapes)}; {WAYS_OUT}.")

    def describe(self) -> str:
        """One line that names the isolation in force."""
        found = self.servers[0].found
        parts = ["a process of its own", "resource limits"]
        parts += [f"Landlock {found['landlock']}"] if found["landlock"] else []
        parts += ["seccomp"] if found["seccomp"] else []
        can = f"; an answer CAN {', '.join(self.escapes)}" if self.escapes else "; escapes tried, none succeeded"
        return f"sandbox: {', '.join(parts)}{can}"

    def run(self, job: Job) -> dict:
        """The reply to ``job``; a server that died is replaced once, and the answer judged "killed" the second time.

        An answer that the wall clock ended while it waited for a processor is run once more, one such at a time.
        """
        reply = self._run(job)
        if reply.get("starved"):
            with self.again:
                reply = self._run(job)
        return reply

    def _run(self, job: Job) -> dict:
        server = self.free.get()
        try:
            for _ in range(2):
                try:
                    return server.run(job, self.seconds)
                except EOFError:
                    server.close()
                    self.servers.remove(server)
                    server = self._start()
                    self.servers.append(server)
            return {"verdict": "killed", "passed": 0, "total": 0, "digest": None, "output": "", "lines": 0}
        finally:
            self.free.put(server)

    def map(self, grade: Callable, items: Sequence) -> list:
        """``grade`` of each item, on all workers, in the order of the items."""
        return list(self.threads.map(grade, items))

    def longest_part(self, code: str) -> str:
        """The longest part of ``code``, in whole lines from its start, that compiles."""
        return "\n".join(code.split("\n")[: self.run(Job(COMPILES, code, ""))["lines"]])

    def close(self) -> None:
        """End every server."""
        while self.servers:
            self.servers.pop().close()
        atexit.unregister(self.close)


_active: list[Sandbox] = []


def open_sandbox(mode: str, seconds: int, workers: int = 0) -> Sandbox:
    """Start the process's sandbox, which `sandbox` then returns, in place of an earlier one; 0 workers: all cores."""
    while _active:
        _active.pop().close()
    _active.append(Sandbox(mode, seconds, workers or os.cpu_count() or 1))
    return _active[0]


def sandbox() -> Sandbox:
    """The process's sandbox, with the defaults where `open_sandbox` has not started one."""
    return _active[0] if _active else open_sandbox("auto", 5, 1)
