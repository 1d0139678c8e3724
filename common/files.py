"""Files: atomic writes, JSON, places to write to. Nothing here can execute what it reads."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.errors import UserError

TEMPORARY_PREFIX = ".writing-"
MADE_BY = "made_by_run.json"  # in folders that a run made and may replace
ON_WINDOWS = os.name == "nt"  # where no folder can be opened, and only what is open for writing be flushed

logger = logging.getLogger(__name__)
_PATH_STARTS = ("outputs/", ".", "/", "~")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file in the folder of ``path``, then move it over ``path`` in one step.

    Whatever goes wrong (a full disk, an interrupt), ``path`` keeps its old content and the temporary file is removed.
    Where ``path`` is a link, the file behind it is replaced.
    """
    path = path.resolve()
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        write(temporary)
        flush_to_disk(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


def is_path(name: str) -> bool:
    """Whether ``name`` is the path of a file or folder, about which no hub need be asked: its names have one slash."""
    return name.startswith(_PATH_STARTS) or name.count("/") > 1


def check_writable(folder: Path, name: str, fix: str) -> None:
    """Raise `UserError` unless ``folder``, called ``name``, can be written to; what was made to try it is removed."""
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]  # raises where a name is too long
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{name} cannot be written ({error.strerror}); {fix}.") from error
    with suppress(OSError):  # somebody else may have put something there by now
        for path in missing:
            path.rmdir()


def check_output(flag: str, output: str | Path, kind: str) -> None:
    """Raise `UserError` unless ``--flag`` says where something can be written.

    ``kind``: "file"; "lines", a file for `write_jsonl`; "stem", of the names of several files; or "folder".
    """
    path, is_file = Path(output), kind in ("file", "lines")
    if kind == "lines" and path.suffix != ".jsonl":
        raise UserError(f"--{flag}={str(output)!r} must be a file that ends in .jsonl.")
    if is_file and path.is_dir():
        raise UserError(f"--{flag}={str(output)!r} is a folder; name a file.")
    if is_file and path.exists() and not path.is_file():
        raise UserError(f"--{flag}={str(output)!r} is no file that can be replaced; name another.")
    check_writable(path if kind == "folder" else path.parent, f"--{flag}={str(output)!r}", "give another place")


def mark_made(folder: Path, of: str) -> None:
    """Say in ``folder`` that a run made it, and of what."""
    write_json(folder / MADE_BY, {"of": of})


def remove_made(folder: Path) -> None:
    """Remove ``folder``, if there is one; raises `UserError` where no run made it."""
    if not folder.exists():
        return
    if not (folder / MADE_BY).is_file():
        raise UserError(f"{folder} is in the way, and no run made it; move it, or give another --output_dir.")
    shutil.rmtree(folder)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8 atomically, and make its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as ASCII JSON atomically; non-finite numbers raise ValueError, they are not JSON."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write ``rows`` to ``path`` atomically, a line of JSON each, and make its folder where there is none."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def read_json(path: Path, fix: str) -> dict[str, Any]:
    """The object in a JSON file; raises `UserError`, which ends in ``fix``, when it is damaged or holds none."""
    return parse_json(path.read_bytes(), str(path), fix)


def parse_json(text: bytes | str, name: str, fix: str, kind: type = dict) -> Any:
    """``text`` as JSON, a ``kind``; raises `UserError` with ``name``, which it was read from, and ``fix``."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not JSON ({error}); {fix}.") from error
    if not isinstance(content, kind):
        raise UserError(f"{name} holds a {type(content).__name__} instead of a {kind.__name__}; {fix}.")
    return content


def read_steps(path: Path, needed: Collection[str] = ()) -> list[dict[str, Any]]:
    """The records of a file of JSON lines that a run appends to, each a dict with a whole number under "step".

    Empty where there is no file. A last line without its line break, which a killed run leaves, is left out with a
    warning; blank lines are none.

    Args:
        needed: what else every record must hold.

    Raises:
        UserError: with the number of a line that holds something else.
    """
    if not path.exists():
        return []
    *lines, rest = path.read_bytes().split(b"\n")
    if rest.strip():
        logger.warning("%s: the last line is cut off (the run was killed while writing it); left out.", path)
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name = f"line {number} of {path}"
        record = parse_json(line, name, "remove the line", object)
        if not isinstance(record, dict) or not record.keys() >= {"step", *needed}:
            raise UserError(f"{name} does not hold {', '.join(['step', *needed])}; remove the line.")
        if type(record["step"]) is not int:
            raise UserError(f"{name} has step={record['step']!r}, which is no whole number; remove the line.")
        records.append(record)
    return records


def flush_to_disk(path: Path) -> None:
    """Make the content of a file, or the entries of a folder, survive a power cut; on Windows not those of a folder."""
    if ON_WINDOWS and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if ON_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
