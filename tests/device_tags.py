"""Real CPU tensors that claim to be on cuda:0: code for a GPU runs on a CPU, and calls that mix devices are found.

The claim sticks to the storage, so views, ``.data`` and parameters share it. While `DeviceTags` is open, a tensor made
from claiming ones claims too, ``.to("cuda")`` and ``device="cuda"`` make claims, ``.cpu()`` ends them, and each call
that CUDA would refuse is noted with its line of code. Arithmetic is the CPU's: values say nothing about a GPU.
"""

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
ROOT = Path(__file__).parents[1]
# Calls that may read one device and write, or index, another; those with conditions are in `DeviceTags._refused`.
CROSSING = {"copy_", "set_", "is_same_size", "type_as", "__deepcopy__", "_has_compatible_shallow_copy_type"}
TO_HOST = {"numpy", "__array__"}


def claim(value: Any, device: torch.device = CUDA) -> Any:
    """``value``, with every tensor in it, or of it where it is a module, claiming to be on ``device``."""
    if isinstance(value, torch.nn.Module):
        claim([*value.parameters(), *value.buffers()], device)
        return value
    for tensor in tensors_in(value):
        tensor.untyped_storage().claims_cuda = device.type == "cuda"
    return value


def claimed(tensor: torch.Tensor) -> torch.device:
    """The device that ``tensor`` claims to be on."""
    return CUDA if getattr(tensor.untyped_storage(), "claims_cuda", False) else tensor.device


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def names_cuda(device: Any) -> bool:
    """Whether ``device``, as an argument of torch, means a GPU."""
    return (isinstance(device, int) and not isinstance(device, bool)) or str(device).startswith("cuda")


def is_device(value: Any) -> bool:
    """Whether ``value`` is a device, or the name of one."""
    return isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda"))


class DeviceTags(TorchFunctionMode):
    """Checks every torch call while open.

    Attributes:
        mixes: one line per call that CUDA would refuse: the call, the devices of its tensors, where it stands.
    """

    def __init__(self):
        super().__init__()
        self.mixes: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            return self._read(func, args)
        if name == "__set__":
            return func(*args, **kwargs)
        if name == "get_device" and claimed(args[0]) == CUDA:
            return CUDA.index
        if name in ("to", "cpu", "cuda"):
            return self._move(func, name, args, kwargs)
        return self._call(func, name, args, kwargs)

    def _read(self, func, args):
        """An attribute of a tensor: its device is the claimed one, its gradient is where the tensor is."""
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        found = func(*args)
        if claimed(args[0]) != CUDA:
            return found
        if attribute == "grad" and found is not None:
            return claim(found)
        return {"device": CUDA, "is_cuda": True, "is_cpu": False}.get(attribute, found)

    def _move(self, func, name: str, args, kwargs):
        """``tensor.to(...)``, ``.cpu()``, ``.cuda()``: another storage where the claim changes."""
        tensor, *others = args
        devices = [CUDA] if name == "cuda" else [CPU] if name == "cpu" else []
        devices += [value for value in (*others, *kwargs.values()) if is_device(value) or type(value) is int]
        devices += [claimed(value) for value in tensors_in(others)]
        target = claimed(tensor)
        if devices:
            target = CUDA if names_cuda(devices[0]) else torch.device(devices[0])
        if name == "to":
            here = [CPU if is_device(value) or type(value) is int else value for value in others]
            there = {key: CPU if is_device(value) else value for key, value in kwargs.items()}
            moved = func(tensor, *here, **there) if target.type in ("cpu", "cuda") else func(*args, **kwargs)
        else:
            moved = tensor
        if target == claimed(tensor) and moved is tensor:
            return tensor
        if moved.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
            moved = moved.clone()
        return claim(moved, target)

    def _call(self, func, name: str, args, kwargs):
        inputs = tensors_in((args, kwargs))
        asked = kwargs.get("device")
        to_cuda = asked is not None and names_cuda(asked)
        if to_cuda:
            kwargs["device"] = CPU
        self._note(name, args, kwargs, inputs, to_cuda)
        output = func(*args, **kwargs)
        old = {tensor.untyped_storage()._cdata for tensor in inputs}
        new = [tensor for tensor in tensors_in(output) if tensor.untyped_storage()._cdata not in old]
        if name == "__deepcopy__":
            claim(new, claimed(args[0]))
        elif new:
            claim(new, CUDA if to_cuda or (asked is None and CUDA in map(claimed, inputs)) else CPU)
        return output

    def _note(self, name: str, args, kwargs, inputs: list[torch.Tensor], to_cuda: bool) -> None:
        """Add a line to ``mixes`` if CUDA would refuse the call."""
        on_cuda = to_cuda or CUDA in map(claimed, inputs)
        generator = kwargs.get("generator")
        if name in TO_HOST and on_cuda:
            self.mixes.append(f"{name} of a tensor on the GPU; {_place()}")
        elif on_cuda and isinstance(generator, torch.Generator):
            self.mixes.append(f"{name} on the GPU draws from a generator of the CPU; {_place()}")
        elif self._refused(name, args, inputs):
            shapes = ", ".join(f"{claimed(tensor)} {tuple(tensor.shape)}" for tensor in inputs)
            self.mixes.append(f"{name} of {shapes}; {_place()}")

    def _refused(self, name: str, args, inputs: list[torch.Tensor]) -> bool:
        """Whether CUDA refuses these devices: a number (no dimensions) of the CPU may be mixed in, nothing else."""
        if name == "__getitem__":  # indices of the CPU are copied to the GPU, not the other way round
            indices = [tensor for tensor in tensors_in(args[1]) if tensor.dim() > 0]
            return claimed(args[0]) == CPU and CUDA in map(claimed, indices)
        if name == "__setitem__":
            indices = tensors_in(args[1])
            values = [tensor for tensor in tensors_in(args[2:]) if tensor.dim() > 0]
            from_gpu = claimed(args[0]) == CPU and CUDA in map(claimed, indices)
            return from_gpu or bool(indices) and any(claimed(value) != claimed(args[0]) for value in values)
        devices = {claimed(tensor).type for tensor in inputs if tensor.dim() > 0 or claimed(tensor) == CUDA}
        return name not in CROSSING and len(devices) > 1


def _place() -> str:
    """The innermost line of this project, tests left out, that the call comes from; else the innermost at all."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
    ours = list(_of_project(frames)) or frames
    return f"{ours[-1].filename.removeprefix(f'{ROOT}/')}:{ours[-1].lineno} {ours[-1].line}"


def _of_project(frames) -> Iterator[traceback.FrameSummary]:
    for frame in frames:
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] not in (".venv", "tests"):
            yield frame
