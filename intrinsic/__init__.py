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
    "rnd": "intrinsic.rnd:RandomNetworkDistillation",
    "knn-sent": "intrinsic.sentence_memory:SentenceMemory",
    "entropy": "intrinsic.text_entropy:TextEntropy",
    "ltree": "intrinsic.lexical_novelty:LexicalNovelty",
    "ppl": "intrinsic.perplexity:Perplexity",
    "entropy-adv": "intrinsic.entropy_advantage:EntropyAdvantage",
    "repexp": "intrinsic.repexp:RepExp",
    "outcome": "intrinsic.outcome:Outcome",
    "passk": "intrinsic.pass_at_k:PassAtK",
    "noise": "intrinsic.noise:Noise",
}
SHUFFLE = "shuffle:"  # before a name of the registry: its control
NO_BONUS = "no"
ALIASES = {"memoryr": "knn", "memoryr+": "knn+", "surprise": "ppl", "r1": NO_BONUS}


def known_names(others: Sequence[str] = ()) -> str:
    """What ``--use_ir`` takes, for help and messages: bonuses, ``others``, and aliases with what they stand for."""
    aliases = [f"{alias} ({name})" for alias, name in ALIASES.items()]
    return ", ".join([NO_BONUS, *REGISTRY, f"{SHUFFLE}NAME", *others, *aliases])


def parse_names(use_ir: str, others: Sequence[str] = ()) -> list[str]:
    """Split ``--use_ir`` ("knn+,cfn", "no") into names of the registry or of ``others``, in order; [] for no bonus.

    Raises `UserError` on an unknown or repeated name.
    """
    names = [_whole_name(name.strip()) for name in use_ir.split(",")]
    if names == [NO_BONUS]:
        return []
    for name in names:
        if name.removeprefix(SHUFFLE) not in REGISTRY and name not in others:
            raise UserError(f"--use_ir={use_ir!r} names the unknown bonus {name!r}; known: {known_names(others)}.")
    if len(set(names)) != len(names):
        raise UserError(f"--use_ir={use_ir!r} names a bonus twice; name each one once.")
    return names


def _whole_name(name: str) -> str:
    prefix = SHUFFLE if name.startswith(SHUFFLE) else ""
    return prefix + ALIASES.get(name.removeprefix(prefix), name.removeprefix(prefix))


def bonus_class(name: str) -> type[Bonus]:
    """The class behind a registry name; imports its module."""
    return _load(REGISTRY[name])


def build_bonus(name: str, options) -> Bonus:
    """The bonus ``name``, or the control ``shuffle:NAME`` around one; raises `UserError` for one without control."""
    if not name.startswith(SHUFFLE):
        return bonus_class(name).from_options(options)
    return _load("intrinsic.shuffle:Shuffle")(build_bonus(name.removeprefix(SHUFFLE), options), options.shuffle_seed)


def build_bonuses(options) -> list[Bonus]:
    """The bonuses that ``options.use_ir`` names, in order.

    Raises `UserError` for two that replace it, or for one beside rewards or bonuses that it would throw away.
    """
    bonuses = [build_bonus(name, options) for name in options.bonus_names]
    replacers = [bonus.name for bonus in bonuses if bonus.replaces]
    if len(replacers) > 1:
        raise UserError(f"--use_ir={options.use_ir!r}: {' and '.join(replacers)} both replace the advantage; name one.")
    lost = [bonus.name for bonus in bonuses if bonus.placement == "reward"] + list(options.reward_weights)
    if replacers and lost:
        raise UserError(
            f"--use_ir={options.use_ir!r}: {replacers[0]} replaces the advantage that {', '.join(lost)} would be part "
            "of; leave one of them out."
        )
    return bonuses


def _load(target: str):
    module, name = target.split(":")
    return getattr(import_module(module), name)
