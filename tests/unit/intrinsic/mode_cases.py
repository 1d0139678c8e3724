"""Flags of a mode: (flags, a run with their bonus in which they have no effect, one in which they have)."""

OF_MODE = (
    (
        "cfn_dim cfn_width cfn_lr cfn_weight_decay cfn_batch_size cfn_passes cfn_replay cfn_seed",
        {"use_ir": "cfn", "cfn_mode": "linear"},
        {"use_ir": "shuffle:cfn"},
    ),
    ("cfn_ridge", {"use_ir": "cfn"}, {"use_ir": "cfn", "cfn_mode": "linear"}),
    ("cfn_warmup", {"use_ir": "cfn", "cfn_pretrain": 1}, {"use_ir": "cfn"}),
    ("cfn_length", {"use_ir": "cfn", "cfn_level": "token"}, {"use_ir": "cfn"}),
    ("cfn_top_percent", {"use_ir": "cfn", "cfn_filters": "coherence, code"}, {"use_ir": "cfn"}),
    ("cfn_min_run", {"use_ir": "cfn", "cfn_filters": "none"}, {"use_ir": "cfn"}),
    (
        "rnd_alpha rnd_gamma rnd_center rnd_window rnd_lr rnd_weight_decay rnd_width",
        {"use_ir": "outcome,noise"},
        {"use_ir": "noise"},
    ),
    ("rnd_mode", {"use_ir": "outcome,noise"}, {"use_ir": "shuffle:rnd,noise"}),
    ("rnd_width rnd_window", {"use_ir": "rnd", "rnd_mode": "reference"}, {"use_ir": "rnd,noise"}),
    ("rnd_prompt_length rnd_response_length", {"use_ir": "rnd"}, {"use_ir": "rnd", "rnd_mode": "reference"}),
    ("ltree_lines", {"use_ir": "ltree"}, {"use_ir": "ltree", "ltree_form": "tree"}),
    ("repexp_memory_decay", {"use_ir": "repexp"}, {"use_ir": "repexp", "repexp_memory": True}),
    ("repexp_seed", {"use_ir": "repexp", "repexp_dim": 0}, {"use_ir": "repexp", "repexp_dim": 4}),
    (
        "outcome_baseline outcome_questions outcome_answers",
        {"use_ir": "outcome", "outcome_mode": "batch"},
        {"use_ir": "outcome"},
    ),
    ("outcome_constant", {"use_ir": "outcome"}, {"use_ir": "outcome", "outcome_baseline": "constant"}),
    ("rarity_alpha", {"use_ir": "rarity", "rarity_partition": "likelihood"}, {"use_ir": "rarity"}),
    ("rarity_clip_low rarity_clip_high", {"use_ir": "rarity", "rarity_rule": "uarl"}, {"use_ir": "shuffle:rarity"}),
    ("rarity_tau", {"use_ir": "rarity"}, {"use_ir": "rarity", "rarity_partition": "likelihood"}),
    ("rarity_threshold", {"use_ir": "rarity"}, {"use_ir": "rarity", "rarity_partition": "bigram"}),
    ("rarity_seed", {"use_ir": "rarity"}, {"use_ir": "rarity", "rarity_partition": "random"}),
)
IN_EVERY_MODE = {
    *("k", "memory_questions", "memory_responses", "memory_window", "explore_warmup", "exploit_keys", "beta_s"),
    *("beta_e", "memory_read", "memory_gate", "memory_legacy", "encoder", "sent_steps"),
    *("sc_lambda", "sc_alone", "sc_annotator", "sc_truncated"),
    *("cfn_mode", "cfn_level", "cfn_gamma", "cfn_alpha", "cfn_filters", "cfn_pretrain"),
    *("rnd_seed", "shuffle_within", "shuffle_seed"),
    *("entropy_mode", "entropy_texts", "entropy_window", "ltree_form", "ltree_texts", "ltree_window", "ltree_beta"),
    *("ppl_kappa", "ppl_alpha", "ppl_decay", "ppl_until", "entropy_adv_alpha", "entropy_adv_kappa"),
    *("repexp_beta", "repexp_lambda", "repexp_dim", "repexp_features", "repexp_model", "repexp_pay", "repexp_memory"),
    *("outcome_mode", "outcome_scale"),
    *("passk_k", "maxrl_order", "nsr_lambda", "risk_beta", "focal_gamma"),
    *("rarity_partition", "rarity_rule", "smooth_right", "smooth_wrong", "smooth_mixed", "unlikely_beta"),
}
# Where half of a number, or one more, will not do.
OTHERS = {
    "rnd_mode": "reference",
    "rnd_center": False,
    "cfn_length": "response",
    "outcome_baseline": "constant",
    "rarity_threshold": 0.3,
}


def other_value(item):
    """A value of a flag, a dataclass field, that is not its default."""
    if item.name in OTHERS:
        return OTHERS[item.name]
    return item.default + 1 if type(item.default) is int else item.default / 2


def each_flag(place):
    """(flag, its run at ``place`` of a case: 1 without effect, 2 with one)."""
    return [(name, case[place]) for case in OF_MODE for name in case[0].split()]
