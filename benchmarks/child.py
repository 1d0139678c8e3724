"""A part of a benchmark in a process of its own, with memory, threads and warm-up of its own; how a benchmark ends."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import RLock
from typing import Any

from common.errors import RunError

SAID = 2000  # characters of the standard error that are repeated where a process fails


class Processes:
    """Processes that threads of this one start and wait for, and that end with it."""

    def __init__(self):
        self._running: set[subprocess.Popen] = set()
        self._are_over = False
        self._lock = RLock()  # the handler of a signal may interrupt the thread that holds it

    def run(self, command: Sequence[str], **settings: Any) -> int:
        """Exit code of ``command``; ``settings`` are those of `subprocess.Popen`. `RunError` after `end`."""
        with self._lock:
            if self._are_over:
                raise RunError(f"{' '.join(command)} was not begun: this benchmark is ending.")
            process = subprocess.Popen(command, **settings)
            self._running.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)

    def end(self) -> None:
        """Send SIGTERM to those that run, and begin no other."""
        with self._lock:
            self._are_over = True
            for process in self._running:
                process.terminate()


def exit_on_sigterm(processes: Processes | None = None) -> None:
    """Let SIGTERM end this process as an exit with code 143 does, so that ``finally`` keeps what was measured.

    ``processes`` are ended first, as whoever waits for them would not end before they do. A further SIGTERM changes
    nothing, as launchers may send several and it would cut off what is being kept.
    """

    def leave(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        if processes:
            processes.end()
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def output_of(arguments: Sequence[object], cwd: Path | None = None) -> str:
    """Standard output of ``python *arguments``; `RunError` with how it ended and its last lines of error."""
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, cwd=cwd)
    if result.returncode:
        raise RunError(f"{' '.join(command)} {_end(result.returncode)}:\n{result.stderr[-SAID:].strip()}")
    return result.stdout


def measured(module: str, *flags: object) -> dict:
    """What ``python -m module *flags`` has measured: its last line, which is JSON; raises as `output_of` does."""
    return json.loads(output_of(["-m", module, *flags]).splitlines()[-1])


def _end(code: int) -> str:
    """How a process ended, by its exit code; of one that was killed, what usually kills it."""
    if code == -signal.SIGKILL:
        return "was killed, which the system does where memory runs out"
    return f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
