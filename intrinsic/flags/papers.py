"""Flags of Memory-R, INTUITOR, MERCI and i-MENTOR; "ours" in a help sentence: the paper is silent."""

from dataclasses import dataclass

from common.flags import flag


@dataclass
class MemoryFlags:
    """Memory-R and Memory-R+ (knn, knn+, knn-sent)."""

    k: int = flag(
        1, "knn, knn-sent: number of nearest stored questions whose responses are compared with (K of the paper)."
    )
    memory_questions: int = flag(
        10_000, "knn, knn-sent: questions a memory holds; the oldest is evicted with its texts."
    )
    memory_responses: int = flag(100, "knn: responses a memory holds per question; the oldest is dropped.")
    memory_window: int = flag(
        100, "knn, knn-sent: past raw values that, with the current batch, set the min-max range of the normalisation."
    )
    explore_warmup: float = flag(
        0.1, "knn+, knn-sent: explore reward is 0 before this many optimiser steps (>= 1) or share of all steps (< 1)."
    )
    exploit_keys: int = flag(
        0,
        "knn, knn-sent: exploit reward is 0 until this many questions are stored with a right answer, 0 to "
        "--memory_questions; the authors' program for Countdown waits for 10000.",
    )
    beta_s: float = flag(1.0, "knn, knn-sent: weight of the exploit reward (nearness to past right answers).")
    beta_e: float = flag(1.0, "knn+, knn-sent: weight of the explore reward (distance from past wrong answers).")
    memory_read: str = flag(
        "past",
        "knn, knn-sent: what an answer is compared with: past (what was stored before its batch) or leave_one_out (the "
        "past and the batch, but for itself; ours).",
    )
    memory_gate: str = flag(
        "all",
        "knn, knn-sent: which answers are paid and stored: all or valid (those that obey the task's rules, on "
        "Countdown each given number once; the authors' program for Countdown).",
    )
    memory_legacy: bool = flag(
        False, "knn: reproduce the reference order (insert first, normalise sample by sample) with its defects."
    )
    encoder: str = flag(
        "sentence-transformers/all-MiniLM-L6-v2",
        "knn, knn-sent, rarity: text encoder, hub name, local path, or policy (its mean-pooled hidden states). The "
        "default falls back to its packaged copy when the hub is not at hand.",
    )


@dataclass
class SelfCertaintyFlags:
    """INTUITOR (sc)."""

    sc_lambda: float = flag(1.0, "sc: weight of the standardised self-certainty beside the standardised reward (ours).")
    sc_alone: bool = flag(
        False, "sc, majority, certain: no reward counts, correctness is only logged; the papers' own setting."
    )
    sc_annotator: str = flag(
        "online", "sc: who judges: online (the policy as it samples) or offline (as before training; an ablation)."
    )
    sc_truncated: str = flag(
        "pay",
        "sc, certain: completions cut off at --L tokens: pay (as others; sc's paper) or skip (0, and not part of their "
        "group's mean and deviation; ours).",
    )


@dataclass
class MerciFlags:
    """MERCI (cfn)."""

    cfn_mode: str = flag("network", "cfn: network (coin flips, the paper) or linear (elliptical, no training).")
    cfn_level: str = flag("trajectory", "cfn: trajectory (one bonus per response, the paper) or token (one per token).")
    cfn_gamma: float = flag(0.5, "cfn: scale of the bonus at the start, 0 or more; falls to 0 by half a cosine (ours).")
    cfn_alpha: float = flag(0.5, "cfn: most change of an advantage, as a share of it, in (0, 1) (ours).")
    cfn_top_percent: float = flag(
        50.0,
        "cfn: share of a response's most uncertain tokens that count, per cent, to 100 (the paper's example).",
    )
    cfn_min_run: int = flag(3, "cfn: fewest neighbouring uncertain tokens that count, 1 or more (ours).")
    cfn_filters: str = flag(
        "percentile,coherence,code,characters,repetition", "cfn: filters that are on, separated by commas, or none."
    )
    cfn_length: str = flag(
        "kept", "cfn, trajectory: length that a response's sum is divided by: kept or response (tokens) (ours)."
    )
    cfn_dim: int = flag(20, "cfn, network: coins per state, 1 or more.")
    cfn_width: int = flag(512, "cfn, network: width of the network's hidden layer, 1 or more (ours).")
    cfn_lr: float = flag(1e-3, "cfn, network: learning rate, above 0 (ours).")
    cfn_weight_decay: float = flag(1e-2, "cfn, network: weight decay, 0 or more (ours).")
    cfn_batch_size: int = flag(1024, "cfn, network: states per step, 1 or more (ours).")
    cfn_passes: int = flag(1, "cfn, network: passes over the states of a batch, 1 or more (ours).")
    cfn_replay: int = flag(16_384, "cfn, network: past visits kept for replay, 0 for none (ours).")
    cfn_ridge: float = flag(1.0, "cfn, linear: prior precision per dimension, above 0 (ours).")
    cfn_warmup: int = flag(20, "cfn: generation batches that are counted before the bonus pays, 0 or more (ours).")
    cfn_pretrain: int = flag(
        0,
        "cfn: generation batches of the untrained policy to count first, in place of the warm-up, 0 or more (ours).",
    )
    cfn_seed: int = flag(0, "cfn, network: seed of its weights and coins.")


@dataclass
class RndFlags:
    """i-MENTOR (rnd) and its controls (noise, shuffle)."""

    rnd_mode: str = flag("fixed", "rnd, noise: fixed (ours: see the card) or reference (the authors' program).")
    rnd_alpha: float = flag(40.0, "rnd, noise: bonus at batch t is scaled by alpha / (gamma + t); 0 or more.")
    rnd_gamma: float = flag(40.0, "rnd, noise: generation batches after which the bonus is halved; above 0.")
    rnd_center: bool | None = flag(
        None,
        "rnd, noise: subtract the mean bonus of the group's wrong answers, which else are all pushed up: true or "
        "false; unset: true with --rnd_mode=fixed, false with reference (ours).",
    )
    rnd_window: int = flag(1024, "rnd, noise, fixed: past completions that set the bonus's scale, 0 or more (ours).")
    rnd_lr: float = flag(1e-3, "rnd, noise: learning rate of the predictor, 0 or more.")
    rnd_weight_decay: float = flag(1e-2, "rnd, noise: weight decay of the predictor, 0 or more.")
    rnd_width: int = flag(512, "rnd, noise, fixed: hidden and output width of the networks, 1 or more (ours).")
    rnd_prompt_length: int = flag(256, "rnd, noise, reference: last prompt tokens that are read, 1 or more.")
    rnd_response_length: int = flag(1024, "rnd, noise, reference: response tokens that are read, --L or more.")
    rnd_seed: int = flag(0, "rnd, noise: seed of networks and noise, 0 or more.")
    shuffle_within: str = flag(
        "verdict",
        "shuffle: values are permuted within verdict (completions of one group that are all right, all wrong answers, "
        "or all without answer) or batch (all completions, which also cuts the tie between bonus and verdict).",
    )
    shuffle_seed: int = flag(0, "shuffle: seed of the permutations, 0 or more.")
