"""The runs whose equivalences are tested: every registered bonus, other ways some of them work, compositions."""

from intrinsic import REGISTRY

# Small networks, warm-ups that end with the first of the few batches of a test, a clip that leaves entropies alone, and
# a partition by which two right answers of a group differ.
FAST = {
    "ir_clip": 50.0,
    "explore_warmup": 1,
    "cfn_warmup": 1,
    "cfn_width": 16,
    "cfn_min_run": 1,
    "rnd_width": 16,
    "ppl_until": 0.9,
    "rarity_partition": "likelihood",
}
MODES = {
    "sc offline": {"use_ir": "sc", "sc_annotator": "offline"},
    "cfn token": {"use_ir": "cfn", "cfn_level": "token"},
    "cfn linear": {"use_ir": "cfn", "cfn_mode": "linear"},
    "rnd reference": {"use_ir": "rnd", "rnd_mode": "reference"},
    "repexp memory": {"use_ir": "repexp", "repexp_memory": True, "repexp_pay": "all"},
    "repexp initial": {"use_ir": "repexp", "repexp_model": "initial"},
    "knn+ in the reward": {"use_ir": "knn+", "ir_level": "reward"},
    "ppl in the reward": {"use_ir": "ppl", "ir_level": "reward"},
    "knn+,noise": {"use_ir": "knn+,noise", "ir_weight": "0,1"},
    "outcome batch": {"use_ir": "outcome", "outcome_mode": "batch"},
    "shuffle:knn+": {"use_ir": "shuffle:knn+"},
    "knn+,cfn token,rnd": {"use_ir": "knn+,cfn,rnd", "ir_weight": "1,0.5,0.5", "cfn_level": "token"},
    "maxrl,entropy-adv, mass matched": {"use_ir": "maxrl,entropy-adv", "match_mass": True},
}

# Bonuses without state that read what another case reads and go the way of it through trainer and checkpoint -> that.
STANDS_FOR = {
    **dict.fromkeys(("maxrl", "nsr", "risk"), "passk"),
    "unlikely": "smooth",
    "majority": "outcome batch",
    "certain": "entropy-adv",
}
ALONE = {name: {"use_ir": name} for name in REGISTRY if name not in STANDS_FOR}
CASES = {name: FAST | flags for name, flags in (ALONE | MODES).items()}
