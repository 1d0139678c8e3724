"""The server's processes: forked and confined, read up to a deadline, and ended."""

import itertools
import os
import select
import signal
import sys
import time

import confine

WALL_PER_CPU = 4  # the wall clock is a backstop
HIGH = 1024  # a child closes the descriptors below, but for those it is given


def fork_child(keep: list[int], mode: str, seconds: int, body, prepare=None) -> int:
    """Fork a confined process that runs ``body(*what prepare read)`` and ends; returns its id.

    ``prepare`` reads from standard input before anything of it is closed; ``keep``: the descriptors that stay open.
    """
    child = os.fork()
    if child:
        return child
    try:
        given = prepare() if prepare else ()
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            if descriptor not in keep:
                os.dup2(null, descriptor)
        kept = sorted({2, HIGH, *keep} - {0, 1})
        for low, high in itertools.pairwise(kept):
            os.closerange(low + 1, high)
        confine.limit(seconds)
        if mode != "process":
            confine.confine(landlock=confine.landlock_abi() > 0, seccomp=confine.has_seccomp())
        body(*given)
        os._exit(0)
    except BaseException:
        os._exit(1)


def is_starved(process: int) -> bool:
    """Whether ``process`` wants a processor rather than sleeps."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] == b"R"
    except OSError:
        return False


def read_until(descriptor: int, most: int, deadline: float) -> tuple[bytes, bool]:
    """(what comes from ``descriptor`` until its end, ``most`` bytes or the ``deadline``, whether the end was seen)."""
    parts: list[bytes] = []
    count = 0
    while count < most and select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(descriptor, min(most - count, 1 << 16))
        if not part:
            return b"".join(parts), True
        parts.append(part)
        count += len(part)
    return b"".join(parts), False


def end(process: int, seconds: int, grace: float = 0.0) -> tuple[str, int | None]:
    """Kill ``process``, if it does not end within ``grace`` seconds, and wait for it.

    Returns (how it ended, its exit code): "timeout" where it used up its CPU time, "killed" by another signal than
    ours, "ended" by itself, "stopped" by us.
    """
    deadline = time.monotonic() + grace
    while True:
        done, status, usage = os.wait4(process, os.WNOHANG)
        if done or time.monotonic() >= deadline:
            break
        time.sleep(0.001)
    how = "ended"
    if not done:
        os.kill(process, signal.SIGKILL)
        _, status, usage = os.wait4(process, 0)
        how = "stopped"
    elif os.WIFSIGNALED(status):
        how = "killed"
    spent = usage.ru_utime + usage.ru_stime >= 0.9 * seconds  # as where the answer ignores the signal
    if how != "ended" and (spent or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)):
        how = "timeout"
    return how, os.WEXITSTATUS(status) if os.WIFEXITED(status) else None


def started(ready: tuple[int, int]) -> None:
    """Wait until the child forked last has read its part of the request; the server ends where it could not."""
    if os.read(ready[0], 1) != b"r":
        sys.exit(1)
