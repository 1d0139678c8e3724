"""Which bonuses a flag is for, as its help sentence says.

A sentence begins with the bonuses that the flag is for and a colon; those of the memories (knn) are for knn+ too.
"""

from collections.abc import Iterable
from dataclasses import Field

from intrinsic import REGISTRY, SHUFFLE

_OWNERS = {*REGISTRY, SHUFFLE.rstrip(":")}


def owners(item: Field) -> frozenset[str]:
    """The bonuses that a flag is for, as its help sentence names them; empty for one that every run has."""
    first, *others = (name.strip() for name in item.metadata["help"].split(":")[0].split(","))
    names = {first, *others} & _OWNERS if first in _OWNERS else set()
    return frozenset(names | ({"knn+"} if "knn" in names else set()))


def is_for(item: Field, names: Iterable[str]) -> bool:
    """Whether a flag is for a run with the bonuses ``names`` of ``--use_ir``."""
    parts = {part for name in names for part in name.split(":")}
    return not owners(item) or bool(owners(item) & parts)
