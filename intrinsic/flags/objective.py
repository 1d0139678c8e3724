"""Flags of the objectives of the group's count; each field's help is the sentence printed by ``--help``."""

from dataclasses import dataclass

from common.flags import flag


@dataclass
class PassAtKFlags:
    """Pass@k training (passk)."""

    passk_k: int = flag(
        2, "passk: completions that a problem may be tried with, 1 (as GRPO) to --num_generations - 1 (ours)."
    )


@dataclass
class MaxRLFlags:
    """Truncated maximum likelihood (maxrl)."""

    maxrl_order: int = flag(
        0,
        "maxrl: 0 for (r - m) / m with m the group's share of right answers, or the order of the series without "
        "baselines, 1 (REINFORCE) to --num_generations.",
    )


@dataclass
class NegativeSampleFlags:
    """Negative-sample reinforcement (nsr)."""

    nsr_lambda: float = flag(
        0.1, "nsr: advantage of a right answer beside -1 of a wrong one; 0 (unlearn only) or more, 1 for plain +-1."
    )


@dataclass
class RiskFlags:
    """Risk-seeking training (risk)."""

    risk_beta: float = flag(2.0, "risk: how much the best answer counts over the mean; above 0.")


@dataclass
class FocalFlags:
    """Difficulty-focal weighting (focal)."""

    focal_gamma: float = flag(
        0.5, "focal: advantages are multiplied by (share of wrong answers in the group) to this power; 0 or more."
    )


@dataclass
class ObjectiveFlags(FocalFlags, RiskFlags, NegativeSampleFlags, MaxRLFlags, PassAtKFlags):
    """The flags of every objective of the group's count; those of the last base come first."""
