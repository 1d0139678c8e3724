"""From dataclasses of flags to the page that ``--help`` prints; the page is kept in cli/pages/ for next time."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from importlib.metadata import version
from inspect import getsourcefile
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from trl import GRPOConfig

from cli.help import BONUSES, GROUP_OF, GROUPS, OTHER, PACKAGES, POLICY, ROOT, TASK, FlagHelp, Page, digest, shown
from common.yaml_flags import flags_of
from intrinsic import ALIASES
from intrinsic.flags.owners import owners
from intrinsic.options import IntrinsicOptions
from policy.options import EMBEDDED_NAMES, PolicyOptions
from training.run_name import NAME_RULE

_KINDS = (bool, int, float, str, list, dict, NoneType)


def page_of(script: str, types: Sequence[type], hidden: Mapping[str, str], task: str = "") -> Page:
    """The page of ``script``, whose flags are the fields of the dataclasses ``types``, but for the ``hidden`` ones.

    ``task``: whose files in configs/ hold the script's own defaults; "" for none.
    """
    known = flags_of(types)
    flags = [
        FlagHelp(
            name=field.name,
            group=group,
            help=" ".join(field.metadata["help"].split()),
            default=shown(default_of(field)),
            metavar=_metavar(known[field.name].kind),
            owners=sorted(owners(field)),
            kinds=[kind.__name__ for kind in _KINDS if kind in known[field.name].kinds],
            item=getattr(known[field.name].item, "__name__", ""),
            empty=field.default == "",
        )
        for group, items in grouped(types, {flag.removeprefix("--") for flag in hidden}).items()
        for field, _ in items
    ]
    files = {Path(getsourcefile(base)) for kind in types for base in kind.__mro__[:-1]}
    own = sorted(
        str(file.relative_to(ROOT)) for file in files if file.is_relative_to(ROOT) and ".venv" not in file.parts
    )
    return Page(
        script=script,
        task=task,
        embedded=list(EMBEDDED_NAMES),
        aliases=ALIASES,
        rule=NAME_RULE,
        hidden=dict(hidden),
        flags=flags,
        sources={name: digest(ROOT / name) for name in own},
        packages={name: version(name) for name in PACKAGES},
    )


def group_of(name: str, kind: type) -> str:
    """The group of the flag ``name``, a field of the dataclass ``kind``: one of `GROUPS`, or `OTHER`."""
    if name in GROUP_OF:
        return GROUP_OF[name]
    for base, group in ((PolicyOptions, POLICY), (IntrinsicOptions, BONUSES), (GRPOConfig, OTHER)):
        if issubclass(kind, base):
            return group
    return TASK


def grouped(types: Sequence[type], hidden: Collection[str] = ()) -> dict[str, list[tuple[Field, type]]]:
    """The flags of the dataclasses ``types``, each with its class, by group; those in ``hidden`` are left out."""
    groups = {group: [] for group in (*GROUPS, OTHER)}
    for kind in types:
        for field in fields(kind):
            if field.init and field.name not in hidden:
                groups[group_of(field.name, kind)].append((field, kind))
    rank = {name: place for place, name in enumerate(GROUP_OF)}
    for flags in groups.values():
        flags.sort(key=lambda flag: rank.get(flag[0].name, len(rank)))
    return groups


def default_of(field: Field) -> Any:
    """The default of a dataclass field; None for one without."""
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def _metavar(kind: Any) -> str:
    """What stands for the value of a flag of the annotated type ``kind``; a text where it may be one."""
    parts = {part for part in get_args(kind) or (kind,) if part is not NoneType}
    if parts & {str}:
        return "TEXT"
    names = [getattr(part, "__name__", "value") for part in parts]
    return {"bool": "BOOL", "int": "INT", "float": "FLOAT"}.get(names[0], "TEXT") if len(names) == 1 else "VALUE"
