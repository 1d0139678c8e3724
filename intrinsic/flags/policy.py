"""Flags of the bonuses on the policy's own outputs (ppl, entropy-adv, repexp). "ours": paper and program are silent."""

from dataclasses import dataclass

from common.flags import flag


@dataclass
class PerplexityFlags:
    """The actor bonus of CDE (ppl)."""

    ppl_kappa: float = flag(3.0, "ppl: the bonus is at most |reward| / kappa; above 0.")
    ppl_alpha: float = flag(1.0, "ppl: factor of the negative log-likelihood (nats per token) below that cap; above 0.")
    ppl_decay: str = flag(
        "staircase",
        "ppl: how the bonus falls to 0: staircase (full, then none), cosine or linear; the paper gains nothing without "
        "a fall.",
    )
    ppl_until: float = flag(
        0.5, "ppl: share of all steps after which the bonus is 0, above 0 to 1 (below 1 for staircase) (ours)."
    )


@dataclass
class EntropyAdvantageFlags:
    """Entropy-based advantage shaping (entropy-adv)."""

    entropy_adv_alpha: float = flag(
        0.4, "entropy-adv: factor of the entropy of a token's distribution (nats); 0 or more."
    )
    entropy_adv_kappa: float = flag(2.0, "entropy-adv: a token's bonus is at most |advantage| / kappa; above 1.")


@dataclass
class RepExpFlags:
    """Representation-based exploration (repexp)."""

    repexp_beta: float = flag(0.01, "repexp: weight of the bonus; 0 or more.")
    repexp_lambda: float = flag(
        0.01, "repexp: ridge, in the units of a squared feature; above 0. Larger: finer differences count less."
    )
    repexp_dim: int = flag(
        512, "repexp: dimensions that features wider than that are projected to at random; 0 for no projection."
    )
    repexp_features: str = flag(
        "unit", "repexp: unit (scaled to length 1; ours) or centered (less the group's mean; the authors' program)."
    )
    repexp_model: str = flag(
        "current", "repexp: whose hidden states: current (the policy as it samples) or initial (as before training)."
    )
    repexp_pay: str = flag(
        "solved", "repexp: solved (only groups with a right answer; the authors' program) or all (groups)."
    )
    repexp_memory: bool = flag(False, "repexp: novelty against all past batches too, not the group alone (ours).")
    repexp_memory_decay: float = flag(
        1.0, "repexp: what is left of the memory at each batch, above 0 to 1 (forgets nothing) (ours)."
    )
    repexp_seed: int = flag(0, "repexp: seed of the random projections, 0 or more.")
