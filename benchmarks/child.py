"""A part of a benchmark in a process of its own, with memory, threads and warm-up of its own; how a benchmark ends."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import RunError

SAID = 2000  # characters of the standard error that are repeated where a process fails


def exit_on_sigterm() -> None:
    """Let SIGTERM end this process as an exit with code 143 does, so that ``finally`` keeps what was measured.

    A further SIGTERM changes nothing, as launchers may send several and it would cut off what is being kept.
    """

    def leave(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
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
