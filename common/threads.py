"""How many threads torch computes with on a CPU, chosen by the load of the machine before torch is imported.

OpenMP's threads wait for each other by spinning. Where another program takes one of their cores, each parallel region
waits for the thread that lost its core, and a step takes 3 to 20 times as long. So a process takes only the cores that
are free when it starts, and lets threads sleep while they wait unless all cores are free.
Imports nothing but the standard library: OpenMP reads its variables when torch is loaded.
"""

import os
import sys
import time
from functools import cache
from typing import NamedTuple

THREADS, WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"
LOOK = 0.25  # seconds over which the load is measured
BUSY = 0.3  # cores in use below which the machine counts as idle: what a desktop and a monitor take

_IDLE_COLUMNS = (4, 5)  # of a line of /proc/stat, the name first: idle, waiting for a disk


class ThreadChoice(NamedTuple):
    """What was chosen: number of threads (None: as torch decides), whether they sleep while waiting, and why."""

    threads: int | None
    passive: bool
    reason: str

    def __str__(self) -> str:
        threads = "as many as torch takes" if self.threads is None else str(self.threads)
        return f"CPU threads: {threads}{', passive waiting' if self.passive else ''} ({self.reason})"


@cache
def choose_threads() -> ThreadChoice:
    """Set OpenMP's environment variables by the load of the machine; call it before torch is imported.

    A variable that the user set is left alone, and so is everything once torch is loaded. The first call decides.
    """
    given = [f"{name}={os.environ[name]}" for name in (THREADS, WAITING) if name in os.environ]
    if given:
        threads = os.environ.get(THREADS, "")
        passive = os.environ.get(WAITING, "").upper() == "PASSIVE"
        return ThreadChoice(int(threads) if threads.isdecimal() else None, passive, f"{', '.join(given)} is set")
    if "torch" in sys.modules:
        return ThreadChoice(None, False, "torch was loaded already")
    choice = by_load(usable_cores(), busy_cores())
    if choice.threads is not None:
        os.environ[THREADS] = str(choice.threads)
        os.environ[WAITING] = "PASSIVE"
    return choice


def by_load(cores: int, busy: float) -> ThreadChoice:
    """The choice for ``cores`` usable cores of which ``busy`` are in use by others."""
    load = f"{busy:.1f} of {cores} cores in use at start"
    if busy < BUSY:
        return ThreadChoice(None, False, load)
    return ThreadChoice(max(1, min(cores - 1, round(cores - busy))), True, load)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_cores() -> float:
    """Cores in use now, of those that this process may run on; by the average of the last minute off Linux."""
    before = _core_times()
    if before:
        time.sleep(LOOK)
        pairs = [
            (earlier, later) for earlier, later in zip(before, _core_times(), strict=True) if later[0] > earlier[0]
        ]
        return sum(1.0 - (later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in pairs)
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _core_times() -> list[tuple[int, int]]:
    """(all, idle) ticks since boot of each usable core, [] where the system does not tell them."""
    try:
        with open("/proc/stat", encoding="ascii") as lines:
            rows = [line.split() for line in lines if line.startswith("cpu") and not line.startswith("cpu ")]
    except OSError:
        return []
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(rows))
    chosen = [row for row in rows if int(row[0].removeprefix("cpu")) in usable]
    return [(sum(map(int, row[1:9])), sum(int(row[column]) for column in _IDLE_COLUMNS)) for row in chosen]
