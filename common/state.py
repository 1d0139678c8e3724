"""State on disk: a nested dict of tensors and JSON types as one safetensors and one JSON file.

Nothing here can execute what it reads.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from common.errors import UserError
from common.files import write_atomically, write_json

STATE_VERSION = 1
_PLAIN_TYPES = (str, int, float, bool, type(None))


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
