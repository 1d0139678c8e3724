"""A disk that is full or cannot be written, told from tables that SQLite cannot make."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError

_SQLITE_CODES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
_ERRNOS = {errno.EACCES, errno.EIO, errno.ENOSPC, errno.EROFS}


@contextmanager
def writing(folder: str | Path, variable: str) -> Iterator[None]:
    """Around what writes databases below ``folder``, which the environment variable ``variable`` sets.

    Raises `UserError` where the disk is full or does not do as it should. An error of the tables passes as it is.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        # The low byte of SQLite's code is the kind of error; errors of Python's own module have none.
        is_of_disk = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _SQLITE_CODES
        if not is_of_disk and getattr(error, "errno", None) not in _ERRNOS:
            raise
        raise UserError(
            f"databases cannot be made in {str(folder)!r} ({error}); make room there, or set {variable} to another "
            "folder."
        ) from error
