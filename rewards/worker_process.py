"""A child process that answers lines of JSON: started at the first request, and again after it ended.

What a policy wrote is compared or run there, so that nothing it makes a library do can hold up or end the training. The
child watches its own processor time, which does not hang on what else the machine does; the wall clock here is a
backstop.
"""

import atexit
import json
import os
import subprocess
import threading
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

from common.errors import RunError

WALL_SECONDS = 60.0
READY = "ready"  # the child's first line, once it has imported what it needs


class WorkerProcess:
    """One child process for requests from any thread, one at a time.

    Args:
        command: the program and its arguments. It prints `READY`, then a line of JSON for each one that it reads.
        what: what the process is, for the sentence when it does not start.
        settings: further arguments of `subprocess.Popen`.
    """

    def __init__(self, command: Sequence[str], what: str, **settings: Any):
        self.command, self.what, self.settings = command, what, settings
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        _workers.add(self)

    def ask(self, request: dict) -> Any:
        """The reply; None where the process ended or did not answer in `WALL_SECONDS`. Raises `RunError`."""
        with self.lock:
            if self.process is None:
                self.process = self._start()
            reply = _exchange(self.process, json.dumps(request))
            if reply is None:
                self._end()
            return reply

    def _start(self) -> subprocess.Popen:
        # A session of its own keeps signals meant for the training (Ctrl-C, SIGTERM to the group) away from it.
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            start_new_session=True,
            **self.settings,
        )
        if process.stdout.readline() != f"{READY}\n":
            process.kill()
            raise RunError(
                f"the process that {self.what} did not start (exit code {process.wait()}); run "
                f"`{' '.join(self.command)}` to see why."
            )
        return process

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def stop(self) -> None:
        """End the process, if there is one."""
        with self.lock:
            self._end()

    def forget(self) -> None:
        """Have no process: a forked one must not share the pipes of its parent."""
        self.lock, self.process = threading.Lock(), None


def _exchange(process: subprocess.Popen, request: str) -> Any:
    """The reply of ``process`` to a line; None where it ended or was ended."""
    deadline = threading.Timer(WALL_SECONDS, process.kill)
    deadline.start()
    try:
        process.stdin.write(request + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        return json.loads(line) if line.endswith("\n") else None
    except BrokenPipeError:
        return None
    finally:
        deadline.cancel()
        deadline.join()


_workers: WeakSet[WorkerProcess] = WeakSet()


def _for_all(act) -> None:
    for worker in list(_workers):
        act(worker)


atexit.register(_for_all, WorkerProcess.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _for_all(WorkerProcess.forget))
