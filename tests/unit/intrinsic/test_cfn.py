"""MERCI as a bonus: the contract in each mode and level, gamma (vector M8), warm-up, and degenerate groups.

Vectors M1-M3 and M9-M13: test_cfn_network.py; M4, M6, M7: test_cfn_advantage.py; M5: there and test_cfn_filters.py.
"""

import copy
import math
from dataclasses import asdict

import pytest
import torch

from common.errors import UserError
from common.state import load_state, save_state
from intrinsic.cfn import Merci, MerciSettings
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.fusion import trajectory_uncertainty
from tests.compare import assert_same_bits
from tests.toys import CORRECT, QUESTIONS, TEXTS

VARIANTS = [(mode, level) for mode in ("network", "linear") for level in ("trajectory", "token")]


@pytest.fixture(params=VARIANTS, ids="-".join)
def variant(request):
    """Settings of each mode and level that pay after the first batch."""
    mode, level = request.param
    return MerciSettings(mode=mode, level=level, warmup=1, width=16, batch_size=8, replay=64, min_run=1)


@pytest.fixture
def make(rollout_factory):
    def build(texts=TEXTS, correct=CORRECT, questions=QUESTIONS, num_generations=4, **fields):
        return rollout_factory(texts, correct[: len(texts)], questions[: len(texts)], num_generations, **fields)

    return build


@pytest.fixture
def batches(make):
    return make([text + " past" for text in TEXTS]), make()


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=atol, rtol=0)


def test_m8_gamma_falls_along_half_a_cosine(make):
    bonus = Merci(MerciSettings(gamma=0.5))
    gammas = [bonus.gamma(make(step=step, max_steps=40)) / 0.5 for step in (0, 10, 20, 30, 40, 50)]
    assert gammas == pytest.approx([1, 0.853553, 0.5, 0.146447, 0, 0], abs=1e-6)


def test_combine_uses_gamma_and_alpha_for_responses_and_tokens(make):
    bonus = Merci(MerciSettings(gamma=0.5, alpha=0.2))
    begin, middle = make(step=0, max_steps=40), make(step=20, max_steps=40)
    close(bonus.combine(torch.tensor([1.0, -1.0]), torch.tensor([0.2, 0.2]), begin), [1.1, -0.9])
    close(bonus.combine(torch.tensor([[1.0, -1.0]]), torch.tensor([[0.2, 0.2]]), middle), [[1.05, -0.95]])


def test_placement_follows_the_level():
    placements = {level: Merci(MerciSettings(level=level)).placement for level in ("trajectory", "token")}
    assert placements == {"trajectory": "advantage", "token": "token"}


def test_flags_arrive_and_are_part_of_the_identity():
    assert Merci.from_options(IntrinsicOptions()).settings == MerciSettings()
    settings = MerciSettings(mode="linear", alpha=0.3, filters="none", pretrain=7)
    bonus = Merci.from_options(IntrinsicOptions(cfn_mode="linear", cfn_alpha=0.3, cfn_filters="none", cfn_pretrain=7))
    assert bonus.identity() == {"name": "cfn"} | asdict(settings)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("mode", "tabular"), ("level", "word"), ("length", "all"), ("alpha", 1.0), ("alpha", math.nan), ("gamma", -0.1)]
    + [("gamma", math.inf), ("top_percent", 0.0), ("filters", "percentile,rare"), ("filters", ""), ("lr", 0.0)]
    + [("ridge", 0.0), ("dim", 0), ("passes", 0), ("min_run", 0), ("replay", -1), ("warmup", -1), ("seed", -1)],
)
def test_settings_out_of_range_are_refused_by_flag_and_value(flag, value):
    with pytest.raises(UserError, match=f"--cfn_{flag}='?{value}"):
        MerciSettings(**{flag: value})


def test_run_without_frozen_hidden_states_is_refused(make):
    rollout = make()
    del rollout.features["frozen_hidden"]
    for act in (Merci().score, Merci().update):
        with pytest.raises(UserError, match="take cfn out of --use_ir"):
            act(rollout)


def test_score_is_float32_finite_and_of_the_right_shape(variant, batches):
    past, present = batches
    bonus = Merci(variant)
    for rollout in (past, present):
        score = bonus.score(rollout)
        shape = tuple(present.completion_mask.shape) if bonus.placement == "token" else (8,)
        assert score.shape == shape and score.dtype == torch.float32 and torch.isfinite(score).all()
        assert (score >= 0).all()
        bonus.update(rollout)
    assert bonus.score(present).max() > 0


def test_score_changes_nothing(variant, batches):
    past, present = batches
    bonus = Merci(variant)
    bonus.update(past)
    before = copy.deepcopy(bonus.state_dict())
    first = bonus.score(present)
    assert_same_bits(before, bonus.state_dict())
    assert torch.equal(first, bonus.score(present))


def test_permuting_groups_permutes_scores(variant, batches):
    past, present = batches
    bonus = Merci(variant)
    bonus.update(past)
    order = [4, 5, 6, 7, 0, 1, 2, 3]
    permuted = copy.copy(present)
    permuted.completions = [present.completions[row] for row in order]
    permuted.completion_mask, permuted.completion_ids = present.completion_mask[order], present.completion_ids[order]
    permuted.features = {"frozen_hidden": present.features["frozen_hidden"][order]}
    torch.testing.assert_close(bonus.score(permuted), bonus.score(present)[order], atol=1e-6, rtol=1e-5)


def test_saved_and_loaded_state_scores_and_learns_the_same(variant, batches, tmp_path):
    past, present = batches
    bonus, fresh = Merci(variant), Merci(variant)
    bonus.update(past)
    save_state(bonus.state_dict(), tmp_path, "state")
    fresh.load_state_dict(load_state(tmp_path, "state"))
    assert torch.equal(fresh.score(present), bonus.score(present))
    for _ in range(2):
        assert bonus.update(present) == fresh.update(present)
    assert_same_bits(bonus.state_dict(), fresh.state_dict())


def test_state_of_a_bonus_that_has_seen_nothing_loads(variant, batches):
    bonus, fresh = Merci(variant), Merci(variant)
    fresh.update(batches[0])
    fresh.load_state_dict(bonus.state_dict())
    assert_same_bits(fresh.state_dict(), bonus.state_dict())
    bonus.update(batches[0]), fresh.update(batches[0])
    assert_same_bits(fresh.state_dict(), bonus.state_dict())


def test_saved_state_does_not_move_with_further_learning(variant, batches):
    bonus = Merci(variant)
    bonus.update(batches[0])
    state = bonus.state_dict()
    kept = copy.deepcopy(state)
    bonus.update(batches[1])
    assert_same_bits(state, kept)


def test_same_seed_same_counts_and_no_global_random_state(batches):
    scores = {}
    for seed in (0, 0, 1):
        bonus = Merci(MerciSettings(warmup=1, width=16, seed=seed))
        before = torch.random.get_rng_state()
        bonus.update(batches[0])
        variance = bonus.token_variance(batches[1])
        assert torch.equal(before, torch.random.get_rng_state())
        assert seed not in scores or torch.equal(scores[seed], variance)
        scores[seed] = variance
    assert not torch.equal(scores[0], scores[1])


def test_empty_and_single_responses(variant, batches, make):
    bonus = Merci(variant)
    for text in ("", "12"):
        alone = make([text], num_generations=1)
        assert torch.isfinite(bonus.score(alone)).all()
        bonus.update(alone)
    assert bonus.batches == 1
    bonus.update(batches[0])
    for text in ("", "12"):
        assert torch.isfinite(bonus.score(make([text], num_generations=1))).all()
    assert bonus.token_variance(batches[1])[TEXTS.index("")].eq(0).all()


def test_group_of_one_and_identical_responses_get_no_trajectory_bonus(batches, make):
    bonus = Merci(MerciSettings(warmup=1, width=16, min_run=1))
    bonus.update(batches[0])
    assert bonus.score(make(num_generations=1)).eq(0).all()
    same = make(["(1+2)*3"] * 8)
    same.features["frozen_hidden"][:] = same.features["frozen_hidden"][0]
    assert bonus.score(same).eq(0).all()


def test_all_right_and_all_wrong_groups_keep_advantages_of_zero(variant, batches):
    past, present = batches
    bonus = Merci(variant)
    bonus.update(past)
    scores = bonus.score(present)
    zeros = torch.zeros_like(scores)
    assert scores.max() > 0 and torch.equal(bonus.combine(zeros, scores, present), zeros)


def test_states_seen_1_4_and_16_times_and_never_are_paid_in_that_order(make):
    settings = MerciSettings(warmup=1, width=32, batch_size=64, passes=150, replay=0, weight_decay=0.0)
    states = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    visits = torch.repeat_interleave(torch.arange(3), torch.tensor([1, 4, 16]))
    past, present = make(["abcdef"] * 4), make(["abcdef"] * 4)
    past.completion_mask = torch.arange(24).view(4, 6) < len(visits)
    past.features["frozen_hidden"] = torch.zeros(4, 6, 12).masked_scatter(
        past.completion_mask[..., None], states[visits]
    )
    present.features["frozen_hidden"] = states[:, None].expand(4, 6, 12)
    for mode in ("network", "linear"):
        bonus = Merci(MerciSettings(**asdict(settings) | {"mode": mode}))
        bonus.update(past)
        variance = bonus.token_variance(present)[:, 0]
        assert variance[3] > 0.8 * variance[0] and (variance[:3].diff() < 0).all()
        score = bonus.score(present)
        assert score[2] == 0 and (score[[0, 3]] > 0).all()


def test_nothing_is_paid_before_the_warm_up_or_the_pretraining_is_over(batches):
    past, present = batches
    for settings, silent in ((MerciSettings(warmup=2), 2), (MerciSettings(warmup=2, pretrain=3), 3)):
        bonus = Merci(MerciSettings(**asdict(settings) | {"width": 16, "min_run": 1}))
        for number in range(silent):
            assert bonus.score(present).eq(0).all()
            assert bonus.pretrain_batches == max(0, settings.pretrain - number)
            assert bonus.update(past)["pays"] == 0.0
        assert bonus.score(present).max() > 0 and bonus.pretrain_batches == 0


def test_states_that_are_not_finite_show_as_nan_and_are_not_learnt(variant, batches):
    past, present = batches
    bonus, twin = Merci(variant), Merci(variant)
    bonus.update(past), twin.update(past)
    clean = bonus.score(present)
    present.features["frozen_hidden"][0, 1, 2] = math.nan
    score = bonus.score(present)
    broken = score.isnan()
    assert broken.sum() == 1 and broken.flatten()[1 if bonus.placement == "token" else 0]
    other = slice(4, 8)
    torch.testing.assert_close(score[other], clean[other])
    bonus.update(present)
    assert bonus.visits - twin.visits == present.completion_mask.sum() - 1
    assert bonus.token_variance(past).isfinite().all()


def test_filters_can_be_taken_out_one_by_one(batches):
    past, present = batches
    kept = {}
    for filters in ("none", "percentile", "percentile,coherence", "coherence"):
        bonus = Merci(MerciSettings(warmup=1, width=16, filters=filters))
        bonus.update(past)
        kept[filters] = bonus.kept_tokens(bonus.token_variance(present), present)
    assert torch.equal(kept["none"], present.completion_mask)
    assert kept["percentile,coherence"].sum() < kept["percentile"].sum() < kept["none"].sum()
    assert torch.equal(kept["coherence"].sum(dim=1) > 0, present.completion_mask.sum(dim=1) >= 3)


@pytest.mark.parametrize("mode", ["linear", "network"])
def test_logged_scalars_describe_the_batch_before_it_was_learnt(mode, batches):
    past, present = batches
    bonus = Merci(MerciSettings(mode=mode, width=16, batch_size=4, lr=0.1, warmup=1, filters="none"))
    bonus.update(past)
    variance, mask = bonus.token_variance(present), present.completion_mask
    logged = bonus.update(present)
    assert logged["variance"] == pytest.approx(variance[mask].mean().item())
    assert logged["uncertainty"] == pytest.approx(trajectory_uncertainty(variance, mask).mean().item())
    assert logged["kept_share"] == 1.0 and logged["noise_share"] == 0.0
    assert logged["visits"] == (past.completion_mask.sum() + mask.sum()).item()


def test_noise_is_taken_out_after_the_other_filters(batches):
    past, present = batches
    bonus = Merci(MerciSettings(warmup=1, width=16, filters="characters"))
    bonus.update(past)
    present.completions[1] = "2*♥"
    present.decode = lambda sequences: [
        "♥" if ids == present.completion_ids[1, 2:3].tolist() else "2" for ids in sequences
    ]
    kept = bonus.kept_tokens(bonus.token_variance(present), present)
    assert (present.completion_mask & ~kept).nonzero().tolist() == [[1, 2]]
    assert bonus.update(present)["noise_share"] == pytest.approx(1 / present.completion_mask.sum().item())


def test_unseen_states_of_the_linear_mode_have_a_variance_of_one_over_ridge(make):
    bonus = Merci(MerciSettings(mode="linear", ridge=4.0))
    past, present = make(["abcdef"] * 8), make(["abcdef"] * 8)
    generator = torch.Generator().manual_seed(0)
    past.features["frozen_hidden"] = torch.randn(8, 6, 400, generator=generator)
    present.features["frozen_hidden"] = torch.randn(8, 6, 400, generator=generator)
    bonus.update(past)
    assert 0.2 < bonus.token_variance(present).mean() < 0.3
