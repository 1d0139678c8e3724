"""State on disk: atomic writes, and a nested dict of tensors and JSON types as one safetensors and one JSON file.

Nothing here can execute what it reads.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from common.errors import UserError

STATE_VERSION = 1
TEMPORARY_PREFIX = ".writing-"
MADE_BY = "made_by_run.json"  # in folders that a run made and may replace
ON_WINDOWS = os.name == "nt"  # where no folder can be opened, and only what is open for writing be flushed
_PLAIN_TYPES = (str, int, float, bool, type(None))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file in the folder of ``path``, then move it over ``path`` in one step.

    Whatever goes wrong (a full disk, an interrupt), ``path`` keeps its old content and the temporary file is removed.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        write(temporary)
        flush_to_disk(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


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


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as ASCII JSON atomically; non-finite numbers raise ValueError, they are not JSON."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="ascii"))


def check_jsonl(output: str) -> None:
    """Raise `UserError` unless ``--output`` names a file for `write_jsonl`."""
    if Path(output).suffix != ".jsonl":
        raise UserError(f"--output={output!r} must be a file that ends in .jsonl.")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write ``rows`` to ``path``, a line of JSON each, and make its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_json(path: Path, fix: str, kind: type = dict) -> Any:
    """The content of a JSON file, a ``kind``; raises `UserError`, which ends in ``fix``, when it is damaged or none."""
    return parse_json(path.read_bytes(), str(path), fix, kind)


def parse_json(text: bytes | str, name: str, fix: str, kind: type = dict) -> Any:
    """``text`` as JSON, a ``kind``; raises `UserError` with ``name``, which it was read from, and ``fix``."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not JSON ({error}); {fix}.") from error
    if not isinstance(content, kind):
        raise UserError(f"{name} holds a {type(content).__name__} instead of a {kind.__name__}; {fix}.")
    return content


def flush_to_disk(path: Path) -> None:
    """Make the content of a file, or the entries of a folder, survive a power cut; on Windows not those of a folder."""
    if ON_WINDOWS and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if ON_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_state(state: dict[str, Any], folder: Path, name: str = "intrinsic_state") -> None:
    """Write a nested dict of tensors and plain JSON types to ``<name>.safetensors`` and ``<name>.json``.

    Tensors are stored on CPU, contiguous, under their path in the state ("/knn/keys"); lists may hold tensors too.
    Raises TypeError on anything else (numpy arrays, tuples, keys that are not text), before a file is touched.
    """
    folder = Path(folder)
    tensors: dict[str, torch.Tensor] = {}
    nonfinite: dict[str, str] = {}
    if not isinstance(state, dict):
        raise TypeError(f"the state must be a dict, not {type(state).__name__}")
    tree = _take_leaves(state, "", tensors, nonfinite)
    content = {"version": STATE_VERSION, "state": tree, "tensors": sorted(tensors), "nonfinite": nonfinite}
    unshared = _unshare(tensors)
    write_atomically(folder / f"{name}.safetensors", lambda temporary: save_file(unshared, temporary))
    write_json(folder / f"{name}.json", content)


def load_state(folder: Path, name: str = "intrinsic_state") -> dict[str, Any]:
    """The nested dict that `save_state` wrote, tensors on CPU with their dtype and shape.

    Raises `UserError` when a file is missing, damaged, or the two do not belong together.
    """
    folder = Path(folder)
    try:
        content = json.loads((folder / f"{name}.json").read_text(encoding="ascii"))
        tensors = load_file(folder / f"{name}.safetensors", device="cpu")
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise UserError(
            f"the state '{name}' in {folder} cannot be read ({error}); resume from another checkpoint."
        ) from error
    if not isinstance(content, dict) or content.get("version") != STATE_VERSION:
        raise UserError(
            f"{folder / name}.json is not a state of version {STATE_VERSION}; resume from another checkpoint."
        )
    try:
        named, tree, nonfinite = content["tensors"], content["state"], content["nonfinite"]
        state = _put_leaves(tree, "", tensors | {path: float(text) for path, text in nonfinite.items()})
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / name}.json is damaged ({error!r}); resume from another checkpoint.") from error
    if named != sorted(tensors) or not isinstance(state, dict):
        raise UserError(
            f"{name}.json and {name}.safetensors in {folder} name different tensors; resume from another checkpoint."
        )
    return state


def _take_leaves(node: Any, path: str, tensors: dict[str, torch.Tensor], nonfinite: dict[str, str]) -> Any:
    """Copy of ``node`` as strict JSON; tensors and non-finite floats move into the dicts and leave None behind.

    ``path`` is a JSON pointer (RFC 6901), so that a "/" inside a key cannot make two paths collide.
    """
    if isinstance(node, torch.Tensor):
        if node.layout != torch.strided:
            raise TypeError(f"state at {path} is a {node.layout} tensor; store its dense parts")
        tensors[path] = node.detach()
        return None
    if isinstance(node, dict):
        for key in node:
            if type(key) is not str:
                raise TypeError(f"state at {path or '/'} has the key {key!r}; keys must be text")
        return {key: _take_leaves(value, f"{path}/{_escape(key)}", tensors, nonfinite) for key, value in node.items()}
    if isinstance(node, list):
        return [_take_leaves(value, f"{path}/{index}", tensors, nonfinite) for index, value in enumerate(node)]
    if type(node) not in _PLAIN_TYPES:
        raise TypeError(
            f"state at {path} is a {type(node).__module__}.{type(node).__name__}; use a tensor or JSON type"
        )
    if isinstance(node, float) and not math.isfinite(node):
        nonfinite[path] = str(node)
        return None
    return node


def _put_leaves(node: Any, path: str, leaves: dict[str, Any]) -> Any:
    if path in leaves and node is None:
        return leaves[path]
    if isinstance(node, dict):
        return {key: _put_leaves(value, f"{path}/{_escape(key)}", leaves) for key, value in node.items()}
    if isinstance(node, list):
        return [_put_leaves(value, f"{path}/{index}", leaves) for index, value in enumerate(node)]
    return node


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _unshare(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous CPU tensors that share no memory with each other, which safetensors would refuse."""
    seen: set[int] = set()
    result = {}
    for path, tensor in tensors.items():
        tensor = tensor.resolve_conj().resolve_neg().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        result[path] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return result
