"""Registry of intrinsic bonuses: flag -> "module:Class", imported only when asked for."""

from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any

from common.errors import UserError
from intrinsic.base import LEVELS, Bonus

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
    "maxrl": "intrinsic.maxrl:MaxRL",
    "nsr": "intrinsic.nsr:NegativeSamples",
    "risk": "intrinsic.risk:Risk",
    "focal": "intrinsic.focal:Focal",
    "rarity": "intrinsic.rarity:Rarity",
    "smooth": "intrinsic.smoothing:DifferentialSmoothing",
    "unlikely": "intrinsic.unlikeliness:Unlikeliness",
    "majority": "intrinsic.majority:Majority",
    "certain": "intrinsic.token_certainty:TokenCertainty",
    "noise": "intrinsic.noise:Noise",
}
SHUFFLE = "shuffle:"  # before a name of the registry: its control
_SHUFFLED = "intrinsic.shuffle:Shuffle"
NO_BONUS = "no"
NOISE = "noise"
CONTAINED = {"knn+": "knn"}  # a bonus -> another whose whole payment it makes too
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


def bonus_class(name: str) -> Any:
    """The class, a `Bonus`, behind a registry name, or behind ``shuffle:NAME``; imports its module."""
    return _load(_SHUFFLED if name.startswith(SHUFFLE) else REGISTRY[name])


def label_free_names() -> list[str]:
    """The bonuses that can stand in for the verdict."""
    return [name for name in REGISTRY if bonus_class(name).label_free]


def build_bonus(name: str, options, level: str = LEVELS[0], beside: Bonus | None = None) -> Bonus:
    """The bonus ``name`` at ``level``, or the control ``shuffle:NAME`` around one.

    ``beside``: the bonus that ``noise`` stands beside and is as strong as; None for `rnd` with the same flags.
    Raises `UserError` for a bonus that cannot have the control.
    """
    if name.startswith(SHUFFLE):
        wrapped = build_bonus(name.removeprefix(SHUFFLE), options, level)
        return bonus_class(name)(wrapped, options.shuffle_seed, options.shuffle_within)
    if name == NOISE:
        bonus = beside or build_bonus("rnd", options)
        return bonus_class(name)(bonus, options.rnd_seed, learns=beside is None)
    return bonus_class(name).from_options(options).at_level(level)


def default_weight(name: str, level: str) -> float:
    """The weight of the bonus ``name`` at ``level`` where ``--ir_weight`` gives none; that of a shuffle is its own."""
    kind = bonus_class(name.removeprefix(SHUFFLE))
    return kind.advantage_weight if level == "advantage" and kind.placement == "reward" else 1.0


def build_bonuses(options) -> list[Bonus]:
    """The bonuses that ``options.use_ir`` names, in order, each at its level.

    Raises `UserError` for two that replace the advantage, for one beside rewards or bonuses that it would throw away or
    of a weight that is no share, for the level "reward" where no bonus has it, and for noise beside several bonuses.
    """
    names = options.bonus_names
    others = [
        build_bonus(name, options, level)
        for name, level in zip(names, options.levels, strict=True)
        if name != NOISE or len(names) == 1
    ]
    bonuses = list(others)
    if NOISE in names and len(names) > 1:
        if len(others) > 1:
            raise UserError(
                f"--use_ir={options.use_ir!r}: noise is as strong as the one bonus it stands beside, and here stand "
                f"{len(others)}; name one."
            )
        bonuses.insert(names.index(NOISE), build_bonus(NOISE, options, beside=others[0]))
    _check_levels(bonuses, options)
    for bonus, weight in zip(bonuses, options.weights, strict=True):
        check_share(bonus, weight, f"--ir_weight={options.ir_weight!r}")
    check_replaced(bonuses, options.reward_weights, f"--use_ir={options.use_ir!r}: ")
    return bonuses


def check_replaced(bonuses: Sequence[Bonus], rewards: Collection[str] = (), given: str = "") -> None:
    """Raise `UserError` for two that replace the advantage, and for one beside what it would throw away: bonuses in the
    reward and ``rewards``. ``given`` begins the sentence."""
    replacers = [bonus.name for bonus in bonuses if bonus.replaces]
    if len(replacers) > 1:
        raise UserError(f"{given}{' and '.join(replacers)} both replace the advantage; name one.")
    lost = [*(bonus.name for bonus in bonuses if bonus.placement == "reward"), *rewards]
    if replacers and lost:
        advice = ", or use --ir_level advantage" if given else ""
        raise UserError(
            f"{given}{replacers[0]} replaces the advantage that {', '.join(lost)} would be part of; leave one of them "
            f"out{advice}."
        )


def _check_levels(bonuses: list[Bonus], options) -> None:
    """Raise `UserError` where ``--ir_level`` asks for a place in the reward that a bonus does not have."""
    asked = [bonus for bonus, level in zip(bonuses, options.levels, strict=True) if level == "reward"]
    without = [bonus.name for bonus in asked if bonus.placement != "reward"]
    # One level for several bonuses is meant for those that can have it.
    if without and (len(without) == len(asked) or "," in options.ir_level):
        raise UserError(
            f"--ir_level={options.ir_level!r}: {', '.join(without)} joins after the group normalisation in its paper "
            "and has no place in the reward; use advantage."
        )


def check_share(bonus: Bonus, weight: float, given: str) -> None:
    """Raise `UserError` where the ``weight`` of a ``bonus`` that replaces the advantage is not from 0 to 1."""
    if bonus.replaces and not 0.0 <= weight <= 1.0:
        raise UserError(
            f"{given}: {bonus.name} replaces the advantage, and its weight {weight:g} is the share that it replaces; "
            "use 0 (plain GRPO) to 1, and --learning_rate for longer steps."
        )


def _load(target: str):
    module, name = target.split(":")
    return getattr(import_module(module), name)
