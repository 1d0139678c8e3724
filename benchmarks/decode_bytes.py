"""Bytes that decoding one token for a batch of completions moves, counted kernel by kernel on shapes alone.

python -m benchmarks.decode_bytes [--rows 256] [--tokens 350]

Decoding is bound by memory: its time is what it reads and writes, over the bandwidth. One forward pass of the policy
runs on tensors without data; each kernel reads its inputs once and writes its outputs once. Sampling from the logits is
not counted. Nothing is measured and nothing downloaded.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, DynamicCache

from benchmarks.flag_checks import check_listed
from benchmarks.machine import publish
from benchmarks.shapes import SHAPES, architecture
from common.errors import run_cli
from common.flags import OutputStem, check_least, flag, parse_one
from common.markdown import markdown_table
from policy.growing_cache import GrowingCache

# Kernels that read as many bytes of their first argument as they return, and not all of it.
GATHERS = ("embedding", "index_select", "gather")


@dataclass(frozen=True)
class Way:
    """How the policy decodes: type of its weights, whether one autocast holds for all tokens, and whose cache it is."""

    weights: torch.dtype = torch.float32
    one_autocast: bool = False
    growing_cache: bool = False


WAYS = {
    "autocast around each pass": Way(),
    "one autocast": Way(one_autocast=True),
    "growing cache": Way(growing_cache=True),
    "one autocast, growing cache": Way(one_autocast=True, growing_cache=True),
    "bfloat16 weights, growing cache": Way(weights=torch.bfloat16, one_autocast=True, growing_cache=True),
}


@dataclass
class Options:
    """The shapes that are counted."""

    shapes: str = flag(
        "qwen2.5-0.5b,qwen2.5-1.5b,qwen2.5-3b,qwen2.5-7b",
        f"Sizes of the policy, separated by commas: {', '.join(SHAPES)}.",
    )
    rows: int = flag(256, "Completions that are decoded at once, 1 or more.")
    tokens: int = flag(350, "Tokens of prompt and completion so far, 2 or more.")
    output: OutputStem = flag("outputs/decode_bytes", "Path of the results, without extension.")

    def __post_init__(self):
        check_listed("shapes", self.shapes, SHAPES)
        check_least(self, rows=1, tokens=2)


class BytesMoved(TorchDispatchMode):
    """While on, ``total`` grows by the bytes of each kernel's inputs and outputs; views move nothing."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        written = [value for value in tree_leaves(outputs) if isinstance(value, Tensor)]
        read = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        storages = {value.untyped_storage()._cdata for value in read}
        if func is torch.ops.aten.copy_.default:  # writes to its first argument and does not read it
            self.total += sum(map(_held, read))
        elif any(value.untyped_storage()._cdata not in storages for value in written):
            if func._overloadpacket.__name__ in GATHERS:
                read = [*written, *read[1:]]
            self.total += sum(map(_held, [*read, *written]))
        return outputs


def _held(value: Tensor) -> int:
    """Bytes of ``value``; an expanded dimension is there once."""
    sizes = (size for size, stride in zip(value.shape, value.stride(), strict=True) if stride)
    return math.prod(sizes) * value.itemsize


def bytes_of_step(policy, rows: int, tokens: int, way: Way) -> int:
    """Bytes moved by the forward pass that decodes the last of ``tokens`` of each of ``rows``, on real or fake tensors.

    Prompts are of one length, so no mask is read, as without padding. The growing cache has room for the token.
    """

    def autocast(on: bool):
        return torch.autocast("cpu", torch.bfloat16) if on else nullcontext()

    cache = GrowingCache(policy.config, torch.bfloat16) if way.growing_cache else DynamicCache(config=policy.config)
    inputs = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
    with torch.no_grad(), autocast(way.one_autocast):
        for length in (tokens - 1, 1):
            ids = torch.zeros(rows, length, dtype=torch.long)
            with BytesMoved() as moved, autocast(not way.one_autocast):
                policy(input_ids=ids, **inputs)
    return moved.total


@contextmanager
def policy_without_data(shape: str, dtype: torch.dtype) -> Iterator[torch.nn.Module]:
    """The policy of that shape on fake tensors, which hold no data, while open."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield AutoModelForCausalLM.from_config(architecture(shape, attn_implementation="sdpa"), dtype=dtype).eval()


def count(options: Options) -> dict[str, dict[str, int]]:
    """Shape -> way -> bytes."""
    found = {}
    for shape in options.shapes.split(","):
        found[shape] = {}
        for name, way in WAYS.items():
            with policy_without_data(shape, way.weights) as policy:
                found[shape][name] = bytes_of_step(policy, options.rows, options.tokens, way)
    return found


def table(found: dict[str, dict[str, int]], rows: int, tokens: int) -> str:
    """Gigabytes of a step by shape and way."""
    sizes = ([shape, *(f"{size / 1e9:.1f}" for size in ways.values())] for shape, ways in found.items())
    about = f"Gigabytes moved to decode one token for {rows} completions at {tokens} tokens."
    return f"{about}\n\n{markdown_table(['shape', *WAYS], sizes)}"


def main() -> None:
    options = parse_one(Options)
    found = count(options)
    publish(options.output, table(found, options.rows, options.tokens), {"options": asdict(options), "bytes": found})


if __name__ == "__main__":
    run_cli(main)
