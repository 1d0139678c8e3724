"""Checkpoints that can be trusted: bonus state beside the policy, a completeness marker, and rotation after it.

A checkpoint counts only when its marker file `COMPLETE`, written last, lists files that are all there in full size.
"""

import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from common.errors import RunError, UserError
from common.files import TEMPORARY_PREFIX, flush_to_disk, write_json

ABSENT = object()
MARKER = "COMPLETE"
ABANDONED = "ABANDONED"
MARKER_VERSION = 1
HASHED_BELOW_BYTES = 1_000_000
# torch.save reports a full disk as a RuntimeError that names the source file of its writer.
_TORCH_WRITER = "inline_container"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def mark_complete(folder: Path) -> None:
    """Write the marker: size of every file in ``folder``, and SHA-256 of those under 1 MB; flushes them to disk first.

    Call it last, when every process has written its files.
    """
    folder = Path(folder)
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (MARKER, ABANDONED) and not path.name.startswith(TEMPORARY_PREFIX):
            flush_to_disk(path)
            files[path.relative_to(folder).as_posix()] = _fingerprint(path)
    write_json(folder / MARKER, {"version": MARKER_VERSION, "files": files})


def unmark(folder: Path) -> None:
    """Withdraw the trust in ``folder`` before something in it is written or deleted."""
    for name in (MARKER, ABANDONED):
        (Path(folder) / name).unlink(missing_ok=True)


def is_complete(folder: Path) -> tuple[bool, str]:
    """Whether ``folder`` is a finished checkpoint, and if not, why."""
    folder = Path(folder)
    if not folder.is_dir():
        return False, "no such folder"
    if (folder / ABANDONED).is_file():
        return False, "left behind when the run was resumed from an earlier step"
    if not (folder / MARKER).is_file():
        return False, f"no {MARKER} marker: saving was interrupted, or another program wrote it"
    try:
        files = json.loads((folder / MARKER).read_text(encoding="ascii"))["files"].items()
        for name, expected in files:
            if problem := _difference(folder / name, expected):
                return False, f"{name} {problem}"
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        return False, f"the {MARKER} marker is damaged"
    return True, ""


def _fingerprint(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size >= HASHED_BELOW_BYTES:
        return {"size": size}
    return {"size": size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _difference(path: Path, expected: dict[str, Any]) -> str:
    if not path.is_file():
        return "is missing"
    found = _fingerprint(path)
    if found["size"] != expected["size"]:
        return f"has {found['size']} bytes instead of {expected['size']}"
    return "has changed since it was saved" if found != expected else ""


@contextmanager
def saving(folder: Path, is_main: bool = True, wait_for_everyone: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Around everything that writes the checkpoint ``folder``: the marker goes first and comes back last.

    On several processes every rank enters with its ``is_main`` and ``accelerator.wait_for_everyone``; the main one
    writes the marker once all have written. An I/O error becomes a `RunError` and leaves the folder unmarked, so
    that it is never resumed from; earlier checkpoints are not touched.
    """
    folder = Path(folder)
    if is_main:
        unmark(folder)
    try:
        yield
        wait_for_everyone()
        if is_main:
            mark_complete(folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _TORCH_WRITER not in str(error):
            raise
        free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
        raise RunError(
            f"could not save {folder}: {error} ({free / 1e6:.0f} MB free on that disk); "
            "earlier checkpoints are untouched, mend this and go on with --resume auto."
        ) from error


def step_of(folder: Path) -> int | None:
    """N of a folder named checkpoint-N, else None."""
    match = _CHECKPOINT.fullmatch(Path(folder).name)
    return int(match.group(1)) if match else None


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Folders ``checkpoint-N`` of a run, complete or not, by rising N."""
    folders = [path for path in Path(output_dir).glob("checkpoint-*") if path.is_dir() and step_of(path) is not None]
    return sorted(folders, key=step_of)


def find_checkpoint(output_dir: Path, resume: str | None, report: Callable[[str], object] = print) -> Path | None:
    """The checkpoint that ``--resume`` asks for; None means a fresh start.

    ``resume``: "" or None (fresh), "auto" (newest complete checkpoint of ``output_dir``, incomplete ones are passed
    over with a reported reason), or a checkpoint folder. Raises `UserError` when that folder is not complete.
    """
    if not resume:
        return None
    if resume == "auto":
        for folder in reversed(list_checkpoints(output_dir)):
            complete, reason = is_complete(folder)
            if complete:
                return folder
            report(f"passing over {folder}: {reason}")
        report(f"no complete checkpoint in {output_dir}: the run begins at step 0")
        return None
    complete, reason = is_complete(Path(resume))
    if not complete:
        inside = ", ".join(str(path) for path in list_checkpoints(Path(resume)))
        hint = f"it holds {inside}; name one of them" if inside else "name a complete checkpoint, or use --resume auto"
        raise UserError(f"--resume={resume!r} is not a complete checkpoint ({reason}); {hint}.")
    return Path(resume)


def other_start(folder: Path, stem: str) -> str | None:
    """A sentence on the run beside ``folder`` that has a complete checkpoint and a name that begins with ``stem``.

    Of several it is the one whose name agrees longest with that of ``folder``; None where there is none.

    ``stem``: what names of runs of one policy, bonus and seed begin with; flags that change training follow it.
    """
    found = {}
    for path in Path(folder).parent.glob(f"{glob.escape(stem)}*"):
        complete = [checkpoint for checkpoint in list_checkpoints(path) if is_complete(checkpoint)[0]]
        if complete and path.name != folder.name and path.name.removeprefix(stem)[:1] in ("", "_"):
            found[path.name] = complete[-1]
    if not found:
        return None
    nearest = max(sorted(found), key=lambda name: len(os.path.commonprefix([name, folder.name])))
    its, ours = (name.removeprefix(stem).strip("_") or "none" for name in (nearest, folder.name))
    return (
        f"{found[nearest]} is of the same policy, bonus and seed under other flags (in its name: {its}; in this run's: "
        f"{ours}); to go on from it give its flags, or --resume {found[nearest]} to see what differs"
    )


def rotate(output_dir: Path, keep: int | None) -> list[Path]:
    """Delete all but the ``keep`` newest complete checkpoints, and the incomplete ones older than the newest of them.

    To be called after the marker of the newest one is written (TRL's own rotation runs before it, and with a limit
    of 1 a crash in between leaves nothing to resume from). None keeps all. Returns the deleted folders.
    """
    if keep is None:
        return []
    if keep < 1:
        raise UserError(f"keeping {keep} checkpoints leaves nothing to resume from; keep at least 1.")
    folders = list_checkpoints(output_dir)
    complete = [folder for folder in folders if is_complete(folder)[0]]
    if not complete:
        return []
    newest = step_of(complete[-1])
    doomed = [folder for folder in folders if step_of(folder) < newest and folder not in complete[-keep:]]
    for folder in doomed:
        unmark(folder)
        shutil.rmtree(folder)
    return doomed


def abandon_after(output_dir: Path, step: int) -> list[Path]:
    """Take the trust from complete checkpoints beyond ``step``, for a run that goes on from ``step`` without them.

    Otherwise ``--resume auto`` and `rotate` would prefer the old branch. The files stay; returns the folders.
    """
    later = [path for path in list_checkpoints(output_dir) if step_of(path) > step and (path / MARKER).is_file()]
    for folder in later:
        os.replace(folder / MARKER, folder / ABANDONED)
    return later


def without_tied(found: Any, policy: Any) -> Any:
    """What torch has ``found`` of a checkpoint, less missing keys that ``policy`` ties to others, which are saved."""
    tied = getattr(policy, "all_tied_weights_keys", {})
    return found._replace(missing_keys=[key for key in found.missing_keys if key not in tied])


def check_identity(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Compare nested dicts of the settings that a resumed run must share with its checkpoint.

    Raises `UserError` with a table ``setting | checkpoint | this run`` of the differences.
    """
    differences = list(_differences(saved, current))
    if not differences:
        return
    rows = [("setting", "checkpoint", "this run"), *differences]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    table = "\n".join(f"  {line}" for line in lines)
    raise UserError(
        f"the checkpoint was made with other settings:\n{table}\n"
        "Use the checkpoint's settings to resume it, or start a new run under another --run_name without --resume."
    )


def _differences(saved: dict[str, Any], current: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted name, saved value, current value) where they differ; settings of what one side lacks are one row."""
    for key in current | saved:
        sides = [side.get(key, ABSENT) for side in (saved, current)]
        if all(isinstance(side, dict) for side in sides):
            yield from _differences(*sides, f"{prefix}{key}.")
            continue
        before, now = map(_shown, sides)
        if before != now:
            yield f"{prefix}{key}", before, now


def _shown(value) -> str:
    """``value`` as JSON text, which makes a tuple equal to the list it was saved as."""
    if value is ABSENT:
        return "(absent)"
    return "(present)" if isinstance(value, dict) else json.dumps(value, default=str)
