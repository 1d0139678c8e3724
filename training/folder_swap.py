"""Folders that are replaced as a whole: whatever stops a save, the earlier folder or the new one is there, complete.

The new one is written to a sibling, ``<name>.partial``, which takes the name once it is on the disk; the earlier one
steps aside to ``<name>.old`` and goes last. Where a folder is a link, the folder that it leads to is replaced.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.files import flush_to_disk


@contextmanager
def replacing(
    folder: Path, is_main: bool = True, wait_for_everyone: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """Around what writes a new ``folder``: yields where to write it, and puts it in place at the end.

    On several processes every rank enters with its ``is_main`` and ``accelerator.wait_for_everyone``; the main one
    moves folders. What is raised inside leaves ``folder`` as it was.
    """
    folder = folder.resolve()
    new = partial_of(folder)
    if is_main:
        settle(folder)
    wait_for_everyone()
    try:
        yield new
        wait_for_everyone()
        if is_main:
            put_in_place(new, folder)
    except BaseException:
        if is_main:
            settle(folder)
        raise


def put_in_place(new: Path, folder: Path) -> None:
    """Move the complete folder ``new`` to ``folder``, and remove what was there.

    Files of the earlier folder that the new one does not have, such as those that somebody else put there, stay.
    """
    folder = folder.resolve()
    flush_to_disk(new)
    for path in new.rglob("*"):
        if path.is_file():
            flush_to_disk(path)
    if folder.exists():
        _clear_old(folder)
        folder.rename(_old_of(folder))
    new.rename(folder)
    flush_to_disk(folder.parent)
    _clear_old(folder)


def settle(folder: Path) -> None:
    """End what a program that was killed in `replacing` had begun: finish moving what is complete, remove the rest."""
    folder = folder.resolve()
    new, old = partial_of(folder), _old_of(folder)
    if old.exists() and new.exists() and not folder.exists():  # the old one steps aside for a complete one alone
        new.rename(folder)
    shutil.rmtree(new, ignore_errors=True)
    if folder.exists():
        _clear_old(folder)


def partial_of(folder: Path) -> Path:
    """Where a new ``folder`` is written."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.partial")


def _old_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")


def _clear_old(folder: Path) -> None:
    """Remove the folder that ``folder`` has replaced, but for what only that one holds."""
    old = _old_of(folder)
    if not old.exists():
        return
    for path in old.iterdir():
        if not (folder / path.name).exists():
            path.rename(folder / path.name)
    shutil.rmtree(old)
