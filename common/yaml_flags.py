"""YAML files of flags, read as a person means them: ``use_ir: no`` is the word "no", and ``1e-4`` is a number.

YAML 1.1 turns words such as no, on and 2026-11-25 into other types than text. Here every plain value stays the text
that stands in the file, and the type of its flag decides what it is, as on a command line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from common.errors import UserError

EMPTY = ("", "~", "null", "Null", "NULL")
_TRUE, _FALSE = ("yes", "true", "on", "y"), ("no", "false", "off", "n")
# Flags of text whose "nothing" has a word of its own, which no, off, false and an empty value stand for.
_NOTHING = {
    "use_ir": "no",
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "scale_rewards": "none",
}
_CORE_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp"))
_CORE_TAGS += tuple(f"tag:yaml.org,2002:{name}" for name in ("seq", "map", "value", "merge"))


@dataclass(frozen=True)
class Flag:
    """What a flag takes: the type of its field as it is annotated, and the field's default."""

    kind: Any
    default: Any

    @property
    def kinds(self) -> set:
        """The types that a value may have, ``list`` and ``dict`` without those of their items."""
        return {get_origin(kind) or kind for kind in (self.kind, *get_args(self.kind))}

    @property
    def item(self) -> type | None:
        """The type of the items of a flag that takes a list and no text; None for any other flag."""
        lists = [kind for kind in (self.kind, *get_args(self.kind)) if get_origin(kind) is list]
        return get_args(lists[0])[0] if lists and (lists[0] is self.kind or str not in self.kinds) else None


def flags_of(types: Sequence[type]) -> dict[str, Flag]:
    """Name -> `Flag` of the fields of dataclasses that are flags.

    From the annotations: the parser of transformers narrows the types that the fields themselves hold.
    """
    hints = [(kind, get_type_hints(kind)) for kind in types]
    return {
        field.name: Flag(hint[field.name], field.default)
        for kind, hint in hints
        for field in fields(kind)
        if field.init
    }


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The ``key: value`` lines of a YAML file: texts as they are written, None for an empty value, lists of texts.

    A nested mapping is a dict of YAML's own types. Raises `UserError` when the file is no YAML, no mapping, gives a
    key twice, holds a list of anything but plain values, or a tag beyond YAML's own.
    """
    shape = f"--config={str(path)!r} must hold one 'flag: value' per line and nothing else."
    loader, root = _compose(path)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(shape)
    flags = {}
    for key, value in root.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(shape)
        if key.value in flags:
            raise UserError(f"{key.value!r} stands twice in --config={str(path)!r}; keep one of them.")
        flags[key.value] = _value(loader, key.value, value, path)
    return flags


def _compose(path: str | Path) -> tuple[yaml.SafeLoader, yaml.Node | None]:
    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8"))
        return loader, loader.get_single_node()
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        raise _not_yaml(path, error) from error


def _not_yaml(path: str | Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"--config={str(path)!r} is not YAML ({reason}); write one 'flag: value' per line.")


def _value(loader: yaml.SafeLoader, name: str, node: yaml.Node, path: str | Path) -> Any:
    if node.tag not in _CORE_TAGS:
        raise UserError(f"{name!r} in --config={str(path)!r} has the tag {node.tag!r}; write a plain value.")
    if isinstance(node, yaml.ScalarNode):
        return None if node.style is None and node.value in EMPTY else node.value
    if isinstance(node, yaml.MappingNode):
        try:
            return loader.construct_document(node)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise _not_yaml(path, error) from error
    items = [_value(loader, name, item, path) if isinstance(item, yaml.ScalarNode) else None for item in node.value]
    if None in items:
        raise UserError(
            f"{name!r} in --config={str(path)!r} is a list with an entry that is empty or no plain value; "
            "list plain values."
        )
    return items


def as_defaults(flags: Mapping[str, Any], known: Mapping[str, Flag], path: str | Path) -> dict[str, Any]:
    """``flags``, what `read_mapping` returned, as defaults for argparse, which checks texts as if they were typed.

    Args:
        known: name -> `Flag` of every flag; each key of ``flags`` is one.
        path: the file that ``flags`` are from, for messages.

    Raises `UserError` for a mapping where the flag takes none, a list where it takes one value, or no value where it
    needs one.
    """
    return {name: _default(name, value, known[name], str(path)) for name, value in flags.items()}


def _default(name: str, value: Any, flag: Flag, path: str) -> Any:
    if isinstance(value, dict):
        if dict not in flag.kinds:
            raise UserError(f"{name!r} in --config={path!r} is a mapping; write one value: '{name}: value'.")
        return value
    if isinstance(value, list):
        return _listed(name, value, flag, path)
    if value is None or (value.lower() == "none" and NoneType in flag.kinds and str not in flag.kinds):
        return _empty(name, flag, path)
    return _listed(name, [value], flag, path) if flag.item else _as_typed(name, value, flag.kinds)


def _as_typed(name: str, value: str, kinds: set) -> str:
    """The text that the command line takes for ``value``."""
    if bool in kinds:
        return "true" if value.lower() in _TRUE else "false" if value.lower() in _FALSE else value
    if name in _NOTHING and value.lower() in _FALSE:
        return _NOTHING[name]
    if int in kinds and float not in kinds:
        return _whole(value)
    return value


def _whole(value: str) -> str:
    """A whole number written as 1e3 or 1000.0, in digits; anything else as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    return str(int(number)) if number.is_integer() and not value.lstrip("+-").isdigit() else value


def _listed(name: str, values: list[str], flag: Flag, path: str) -> str | list:
    if flag.item:
        try:
            return [flag.item(_as_typed(name, value, {flag.item})) for value in values]
        except ValueError as error:
            raise UserError(f"{name!r} in --config={path!r}: {error}; list values of that type.") from error
    if str not in flag.kinds:
        raise UserError(f"{name!r} in --config={path!r} is a list, and the flag takes one value; give one.")
    return ",".join(_as_typed(name, value, flag.kinds) for value in values) or _empty(name, flag, path)


def _empty(name: str, flag: Flag, path: str) -> Any:
    """What a key without a value means: no bonus, no tracker, an unset flag."""
    if name in _NOTHING:
        return [_NOTHING[name]] if flag.item else _NOTHING[name]
    if NoneType in flag.kinds:
        return None
    if flag.default == "":
        return ""
    raise UserError(f"{name!r} in --config={path!r} has no value; write one, or remove the line.")
