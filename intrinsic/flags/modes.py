"""Which flags of a bonus have no effect beside its other flags: those of a mode that is not the chosen one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from intrinsic import NOISE, SHUFFLE


@dataclass(frozen=True)
class ModeRule:
    """``flags`` have no effect where ``holds`` of the `IntrinsicOptions` of a run with their bonus, for ``reason``."""

    flags: str
    holds: Callable[[Any], bool]
    reason: str


def _has_filter(flags: Any, name: str) -> bool:
    return name in (word.strip() for word in flags.cfn_filters.split(","))


def _noise_of_another(flags: Any) -> bool:
    names = {name.removeprefix(SHUFFLE) for name in flags.bonus_names}
    return NOISE in names and len(names) > 1 and "rnd" not in names


MODE_RULES = (
    ModeRule(
        "cfn_dim cfn_width cfn_lr cfn_weight_decay cfn_batch_size cfn_passes cfn_replay cfn_seed",
        lambda flags: flags.cfn_mode == "linear",
        "--cfn_mode linear has no network",
    ),
    ModeRule("cfn_ridge", lambda flags: flags.cfn_mode != "linear", "--cfn_mode is not linear"),
    ModeRule("cfn_warmup", lambda flags: flags.cfn_pretrain > 0, "--cfn_pretrain takes the place of the warm-up"),
    ModeRule("cfn_length", lambda flags: flags.cfn_level == "token", "--cfn_level token divides no sum"),
    ModeRule(
        "cfn_top_percent",
        lambda flags: not _has_filter(flags, "percentile"),
        "--cfn_filters does not name percentile",
    ),
    ModeRule("cfn_min_run", lambda flags: not _has_filter(flags, "coherence"), "--cfn_filters does not name coherence"),
    ModeRule(
        "rnd_mode rnd_alpha rnd_gamma rnd_center rnd_window rnd_lr rnd_weight_decay rnd_width rnd_prompt_length "
        "rnd_response_length",
        _noise_of_another,
        "noise is as strong as the bonus beside it, which is not rnd",
    ),
    ModeRule("rnd_width rnd_window", lambda flags: flags.rnd_mode != "fixed", "--rnd_mode is not fixed"),
    ModeRule(
        "rnd_prompt_length rnd_response_length",
        lambda flags: flags.rnd_mode != "reference",
        "--rnd_mode is not reference",
    ),
    ModeRule("ltree_lines", lambda flags: flags.ltree_form != "tree", "--ltree_form is not tree"),
    ModeRule("repexp_memory_decay", lambda flags: not flags.repexp_memory, "there is no memory (--repexp_memory)"),
    ModeRule("repexp_seed", lambda flags: flags.repexp_dim == 0, "--repexp_dim 0 projects nothing"),
    ModeRule(
        "outcome_baseline outcome_constant outcome_questions outcome_answers",
        lambda flags: flags.outcome_mode == "batch",
        "--outcome_mode batch takes no counts",
    ),
    ModeRule(
        "outcome_constant", lambda flags: flags.outcome_baseline != "constant", "--outcome_baseline is not constant"
    ),
    ModeRule(
        "rarity_alpha",
        lambda flags: flags.rarity_partition == "likelihood" or flags.rarity_rule in ("darling", "ips"),
        "no power of a size is taken",
    ),
    ModeRule(
        "rarity_clip_low rarity_clip_high",
        lambda flags: flags.rarity_partition == "likelihood" or flags.rarity_rule != "redistribute",
        "these weights are not clipped",
    ),
    ModeRule(
        "rarity_tau", lambda flags: flags.rarity_partition != "likelihood", "--rarity_partition is not likelihood"
    ),
    ModeRule(
        "rarity_threshold",
        lambda flags: flags.rarity_partition not in ("bigram", "embedding"),
        "this partition has no distances",
    ),
    ModeRule("rarity_seed", lambda flags: flags.rarity_partition != "random", "nothing is drawn by this partition"),
)
