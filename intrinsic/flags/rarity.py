"""Flags of the bonuses among right answers (rarity, smooth, unlikely); each field's help is the printed sentence."""

from dataclasses import dataclass

from common.flags import flag

APPROACH_TASKS = ("countdown", "igsm")  # whose rewards tell `Rollout.approaches`
SEVERAL_ANSWERS = ("countdown",)  # whose right answers to one problem can be different answers
BY_APPROACH = ("exact", "random")  # partitions that need them


@dataclass
class RarityFlags:
    """Credit moved among right answers by the rarity of their approach (rarity)."""

    rarity_partition: str = flag(
        "exact",
        f"rarity: what an approach is: exact (the task's normal form; {' and '.join(APPROACH_TASKS)} have one), answer "
        "(final answers), bigram or embedding (clusters of texts, by word pairs or by --encoder), likelihood (weights "
        "by the policy's own log-probabilities), or random (those of exact, permuted; the control).",
    )
    rarity_rule: str = flag(
        "redistribute",
        "rarity: redistribute (credit moves among right answers, its sum stays), uarl (every advantage times size ** "
        "-alpha), darling (reward by distance from other right answers) or ips (reward over its share of the group; "
        "with --ir_level reward, or an --ir_weight).",
    )
    rarity_alpha: float = flag(
        0.8, "rarity, redistribute and uarl: power of the size of an approach, 0 (no effect) or more."
    )
    rarity_tau: float = flag(0.2, "rarity, likelihood: share of a right answer's credit that moves, 0 to 1.")
    rarity_clip_low: float = flag(
        0.3, "rarity, redistribute: least weight of a right answer before the mean is 1 again, above 0 to 1."
    )
    rarity_clip_high: float = flag(
        3.0, "rarity, redistribute: largest weight of a right answer before the mean is 1 again, 1 or more."
    )
    rarity_threshold: float | None = flag(
        None,
        "rarity, bigram and embedding: mean distance up to which two clusters are one, 0 or more; unset: 0.4 (bigram, "
        "1 - Jaccard) or 0.15 (embedding, 1 - cosine).",
    )
    rarity_seed: int = flag(0, "rarity, random: seed of the permutations, 0 or more.")


@dataclass
class SmoothFlags:
    """Differential smoothing (smooth)."""

    smooth_right: float = flag(
        0.05, "smooth: what a right answer gains per nat of its mean negative log-probability, 0 or more."
    )
    smooth_wrong: float = flag(
        0.05, "smooth: what a wrong answer loses per nat of its mean negative log-probability, 0 or more."
    )
    smooth_mixed: bool = flag(
        False, "smooth: only in groups with a right and a wrong answer (ours); the authors' program pays all groups."
    )


@dataclass
class UnlikelyFlags:
    """Unlikeliness reward (unlikely)."""

    unlikely_beta: float = flag(
        0.25, "unlikely: share of its reward that a right answer loses as the likeliest of a large group, 0 to 1."
    )
