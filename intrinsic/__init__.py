"""Registry of intrinsic bonuses: flag -> "module:Class", imported only when asked for."""

from collections.abc import Sequence
from importlib import import_module

from intrinsic.base import Bonus
from training.errors import UserError

REGISTRY = {
    "knn": "intrinsic.knn_memory:MemoryR",
    "knn+": "intrinsic.knn_memory:MemoryRPlus",
    "sc": "intrinsic.self_certainty:SelfCertainty",
    "cfn": "intrinsic.cfn:Merci",
}
NO_BONUS = "no"
ALIASES = {"memoryr": "knn", "memoryr+": "knn+", "r1": NO_BONUS}


def parse_names(use_ir: str, others: Sequence[str] = ()) -> list[str]:
    """Split ``--use_ir`` ("knn+,cfn", "no") into names of the registry or of ``others``, in order; [] for no bonus.

    Raises `UserError` on an unknown or repeated name.
    """
    names = [ALIASES.get(name.strip(), name.strip()) for name in use_ir.split(",")]
    if names == [NO_BONUS]:
        return []
    for name in names:
        if name not in REGISTRY and name not in others:
            known = ", ".join([NO_BONUS, *REGISTRY, *others, *ALIASES])
            raise UserError(f"--use_ir={use_ir!r} names the unknown bonus {name!r}; known: {known}.")
    if len(set(names)) != len(names):
        raise UserError(f"--use_ir={use_ir!r} names a bonus twice; name each one once.")
    return names


def bonus_class(name: str) -> type[Bonus]:
    """The class behind a registry name; imports its module."""
    module, cls = REGISTRY[name].split(":")
    return getattr(import_module(module), cls)


def build_bonuses(options) -> list[Bonus]:
    """The bonuses of the registry that ``options.use_ir`` names, in order."""
    return [bonus_class(name).from_options(options) for name in options.bonus_names]
