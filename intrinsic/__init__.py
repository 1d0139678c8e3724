"""Registry of intrinsic bonuses: flag -> "module:Class", imported only when asked for."""

from importlib import import_module

from intrinsic.base import Bonus
from training.errors import UserError

REGISTRY = {
    "knn": "intrinsic.knn_memory:MemoryR",
    "knn+": "intrinsic.knn_memory:MemoryRPlus",
}
ALIASES = {"memoryr": "knn", "memoryr+": "knn+"}
NO_BONUS = "no"


def parse_names(use_ir: str) -> list[str]:
    """Split ``--use_ir`` ("knn+,cfn", "no") into registry names; raises `UserError` on an unknown or repeated one."""
    names = [ALIASES.get(name.strip(), name.strip()) for name in use_ir.split(",")]
    if names == [NO_BONUS]:
        return []
    for name in names:
        if name not in REGISTRY:
            known = ", ".join([NO_BONUS, *REGISTRY, *ALIASES])
            raise UserError(f"--use_ir={use_ir!r} names the unknown bonus {name!r}; known: {known}.")
    if len(set(names)) != len(names):
        raise UserError(f"--use_ir={use_ir!r} names a bonus twice; name each one once.")
    return names


def bonus_class(name: str) -> type[Bonus]:
    """The class behind a registry name; imports its module."""
    module, cls = REGISTRY[name].split(":")
    return getattr(import_module(module), cls)


def build_bonuses(options) -> list[Bonus]:
    """The bonuses named by ``options.use_ir``, in order."""
    return [bonus_class(name).from_options(options) for name in parse_names(options.use_ir)]
