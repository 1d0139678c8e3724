"""Errors that a person can act on, and the exit code they lead to."""

import sys
from collections.abc import Callable, Collection


class UserError(ValueError):
    """Bad input: the message is one sentence with the offending value and the fix. Exit code 2."""


def check_choice(flag: str, value: object, known: Collection[str]) -> None:
    """Raise `UserError` unless the value of ``--flag`` is one of the words ``known``."""
    if value not in known:
        raise UserError(f"--{flag}={value!r} is unknown; use one of {', '.join(filter(None, known))}.")


class RunError(RuntimeError):
    """A run that cannot go on (for example a bonus that keeps returning NaN). Exit code 1."""


def run_cli(main: Callable[[], None]) -> None:
    """Call ``main`` and turn `UserError` into one line on stderr and exit code 2, `RunError` into exit code 1."""
    try:
        main()
    except UserError as error:
        sys.exit(_report(error, code=2))
    except RunError as error:
        sys.exit(_report(error, code=1))


def _report(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
