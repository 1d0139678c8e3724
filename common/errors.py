"""Errors that a person can act on, and the exit code they lead to."""

import math
import os
import select
import sys
from collections.abc import Callable, Collection

READER_GONE = 128 + 13  # exit code of a program that SIGPIPE ends


class UserError(ValueError):
    """Bad input: the message is one sentence with the offending value and the fix. Exit code 2."""


def check_choice(flag: str, value: object, known: Collection[str]) -> None:
    """Raise `UserError` unless the value of ``--flag`` is one of the words ``known``."""
    if value not in known:
        raise UserError(f"--{flag}={value!r} is unknown; use one of {', '.join(filter(None, known))}.")


def check_number(
    flag: str,
    value: float,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> None:
    """Raise `UserError` unless the value of ``--flag`` is a finite number from ``least`` to ``most``.

    ``above`` and ``below``: limits that it must not reach.
    """
    if above < value < below and least <= value <= most:
        return
    limits = {"above": above, "at least": least, "below": below, "at most": most}
    words = " and ".join(f"{word} {limit}" for word, limit in limits.items() if math.isfinite(limit))
    kind = "a finite number" if isinstance(value, float) and min(below, most) == math.inf else ""
    raise UserError(f"--{flag}={value} must be {', '.join(filter(None, (kind, words)))}.")


class RunError(RuntimeError):
    """A run that cannot go on (for example a bonus that keeps returning NaN). Exit code 1."""


def run_cli(main: Callable[[], None]) -> None:
    """Call ``main`` and turn `UserError` into one line on stderr and exit code 2, `RunError` into exit code 1.

    Where the reader of stdout, such as ``head``, has gone, what is still to be printed goes nowhere, without a message;
    a program that it stops ends with `READER_GONE`.
    """
    try:
        main()
    except UserError as error:
        sys.exit(_report(error, code=2))
    except RunError as error:
        sys.exit(_report(error, code=1))
    except BrokenPipeError:
        if not _is_reader_gone():  # the pipe of a worker
            raise
        sys.exit(READER_GONE)
    finally:
        if _is_reader_gone():
            discard_stdout()


def discard_stdout() -> None:
    """Send what is not printed yet nowhere; else the exit prints it to a reader that has gone, and an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_reader_gone() -> bool:
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (AttributeError, OSError, ValueError):  # Windows has no poll; a closed or captured stdout has no pipe
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _report(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
