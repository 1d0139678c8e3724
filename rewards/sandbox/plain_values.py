"""Plain values as text and back, between processes that do not trust each other: JSON in which every value has a tag.

Exact types cross: None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict. Containers and enums
of the standard library become their plain kind. What else a value is stays behind: it arrives as an `Opaque` with the
truth value that its sender claims. Standard library alone, since it is imported inside the sandbox.
"""

import json
from collections import Counter, OrderedDict, defaultdict, deque
from enum import Enum
from typing import Any

MAX_DEPTH = 60
MAX_INT_BITS = 40_000
_KIND_OF: dict[Any, type] = {Counter: dict, OrderedDict: dict, defaultdict: dict, deque: list}
_CONTAINERS = {"l": list, "t": tuple, "s": set, "z": frozenset}
_TAGS: dict[Any, str] = {kind: tag for tag, kind in _CONTAINERS.items()}


class ValueRefused(ValueError):
    """A value that does not cross: nested too deeply, or a number too large."""


class Opaque:
    """Stands for a value that did not cross: it has a truth value, and equals nothing."""

    def __init__(self, truth: bool):
        self._truth = truth

    def __bool__(self):
        return self._truth

    def __eq__(self, other):
        return False

    def __ne__(self, other):
        return True

    __hash__ = None


def encode(value) -> bytes:
    """``value`` as bytes. Raises `ValueRefused`."""
    return json.dumps(_tagged(value, 0)).encode("ascii")


def canonical(value) -> bytes:
    """The same bytes for equal values: of any order in sets and dicts, and of any type of an equal number."""
    return json.dumps(_ordered(value)).encode("ascii")


def _ordered(value):
    if isinstance(value, (bool, int, float, complex)):
        if isinstance(value, complex) and value.imag == 0:
            value = value.real
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, (float, complex)):
            return ["f", repr(value)]
        return ["i", hex(value)]
    if isinstance(value, (set, frozenset)):
        return ["s", *sorted(map(_ordered, value), key=json.dumps)]
    if isinstance(value, dict):
        return ["d", *sorted(([_ordered(key), _ordered(item)] for key, item in value.items()), key=json.dumps)]
    if isinstance(value, (list, tuple)):
        return [_TAGS[type(value)], *map(_ordered, value)]
    return ["o"] if isinstance(value, Opaque) else _tagged(value, 0)


def decode(data: bytes):
    """What `encode` got. Raises `ValueRefused` on anything that it did not write."""
    try:
        return _untagged(json.loads(data), 0)
    except ValueRefused:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueRefused("no plain value") from error


def _tagged(value, depth: int):
    if depth > MAX_DEPTH:
        raise ValueRefused(f"nested more than {MAX_DEPTH} levels")
    kind = type(value)
    if isinstance(value, Enum) and type(value._value_) in (int, str):
        value, kind = value._value_, type(value._value_)
    kind = _KIND_OF.get(kind, kind)
    if value is None or kind is bool:
        return value
    if kind is int:
        if value.bit_length() > MAX_INT_BITS:
            raise ValueRefused(f"an integer of more than {MAX_INT_BITS} bits")
        return ["i", hex(value)]
    if kind is float:
        return ["f", value.hex()]
    if kind is complex:
        return ["c", value.real.hex(), value.imag.hex()]
    if kind is str:
        return ["u", value]
    if kind is bytes:
        return ["b", value.hex()]
    if kind in _TAGS:
        return [_TAGS[kind], *(_tagged(item, depth + 1) for item in value)]
    if kind is dict:
        return ["d", *([_tagged(key, depth + 1), _tagged(item, depth + 1)] for key, item in value.items())]
    return ["o", bool(value)]


def _untagged(data, depth: int):
    if depth > MAX_DEPTH:
        raise ValueRefused(f"nested more than {MAX_DEPTH} levels")
    if data is None or data is True or data is False:
        return data
    tag, *items = data
    if tag == "i":
        if len(items[0]) > MAX_INT_BITS // 4 + 4:
            raise ValueRefused(f"an integer of more than {MAX_INT_BITS} bits")
        return int(items[0], 16)
    if tag == "f":
        return float.fromhex(items[0])
    if tag == "c":
        return complex(float.fromhex(items[0]), float.fromhex(items[1]))
    if tag == "u":
        return str(items[0])
    if tag == "b":
        return bytes.fromhex(items[0])
    if tag == "d":
        return {_untagged(key, depth + 1): _untagged(item, depth + 1) for key, item in items}
    if tag == "o":
        return Opaque(items[0] is True)
    return _CONTAINERS[tag](_untagged(item, depth + 1) for item in items)
