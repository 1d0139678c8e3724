"""i-MENTOR's bonus: the spec's vectors, who is paid and how much, learning, edge cases, state, flags."""

import math

import pytest
import torch

from common.errors import UserError
from common.state import load_state, save_state
from intrinsic import build_bonus
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.error_conditioned import Conditioning
from intrinsic.pipeline import reward_advantages
from intrinsic.rnd import RandomNetworkDistillation
from policy.features import mean_state
from tests.unit.intrinsic.rnd_cases import TEXTS, fixed, reference


class GivenNovelty(RandomNetworkDistillation):
    """The bonus on novelties that the test sets."""

    def __init__(self, novelty, **settings):
        super().__init__(Conditioning(mode="reference", **settings))
        self.given = torch.tensor(novelty)

    def novelty(self, rollout):
        return self.given

    def learn(self, rollout):
        return {}


# ---- scale, gate, decay


def test_decay_by_batches(rollout_factory):
    bonus = GivenNovelty([0.0, 1.0])
    expected = {0: 1.0, 1: 0.975610, 10: 0.8, 40: 0.5, 255: 0.135593}
    for batch in range(256):
        if batch in expected:
            assert bonus.decay == pytest.approx(expected[batch], abs=1e-6)
        bonus.update(rollout_factory(["1", "2"], [0, 0]))


def joined(bonus, scores, rollout):
    columns = torch.tensor(scores)[:, None]
    advantages = reward_advantages(columns, torch.ones(1), len(scores), "group")
    return bonus.combine(advantages, bonus.score(rollout), rollout)


def test_bonus_is_added_to_finished_advantages_of_wrong_answers(rollout_factory):
    bonus = GivenNovelty([0.5, 0.25, 0.0, 0.1, 0.4])
    bonus.batches = 10
    rollout = rollout_factory(["1"] * 5, [1, 0, 0, 0, 0])
    advantages = joined(bonus, [1.0, 0.1, 0.0, 0.1, 0.0], rollout)
    expected = torch.tensor([1.776178, -0.127191, -0.560898, -0.247191, -0.240898])
    torch.testing.assert_close(advantages, expected, atol=1e-5, rtol=0)
    assert advantages.sum() == pytest.approx(0.6, abs=1e-4)


def test_all_wrong_groups_are_pushed_up_unless_centred_and_all_right_ones_get_nothing(rollout_factory):
    novelty = [0.5, 0.25, 0.0, 0.1, 0.4]
    wrong, right = rollout_factory(["1"] * 5, [0] * 5), rollout_factory(["1"] * 5, [1] * 5)
    torch.testing.assert_close(joined(GivenNovelty(novelty), [0.0] * 5, wrong), torch.tensor(novelty))
    assert joined(GivenNovelty(novelty), [1.0] * 5, right).tolist() == [0.0] * 5
    centred = GivenNovelty(novelty, center=True)
    assert centred.score(wrong).sum().abs() < 1e-6
    mixed = rollout_factory(["1"] * 5, [1, 0, 0, 0, 0])
    assert centred.score(mixed)[0] == 0 and centred.score(mixed).sum().abs() < 1e-6


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_novelty_that_is_not_finite_has_no_part_in_the_centre_of_the_others(broken, rollout_factory):
    rollout = rollout_factory(["1"] * 5, [1, 0, 0, 0, 0])
    score = GivenNovelty([0.5, broken, 0.0, 0.1, 0.5], center=True).score(rollout)
    torch.testing.assert_close(score[[0, 2, 3, 4]], torch.tensor([0.0, -0.2, -0.1, 0.3]))
    assert not score[1].isfinite()


@pytest.mark.parametrize("name", ["rnd", "noise"])
@pytest.mark.parametrize(
    ("mode", "flag", "centred"),
    [("fixed", None, True), ("reference", None, False), ("fixed", False, False), ("reference", True, True)],
)
def test_centred_in_fixed_mode_unless_the_flag_says_otherwise(name, mode, flag, centred):
    bonus = build_bonus(name, IntrinsicOptions(use_ir=name, rnd_mode=mode, rnd_center=flag))
    bonus = bonus.bonus if name == "noise" else bonus  # that noise is as strong as
    assert bonus.conditioning.center is centred and bonus.identity()["center"] is centred


@pytest.mark.parametrize("correct", [[0] * 8, [1, 0] * 4])
def test_by_default_the_wrong_answers_of_a_group_are_not_pushed_up_as_a_whole(correct, rollout_factory):
    bonus = fixed()
    bonus.update(rollout_factory(TEXTS * 2, [0] * 8))
    texts = ["1+2=3", "2*3=6", "5-4=1", "7-3=4", "8*8=64", "9-1=8", "6/3=2", "1+1=2"]
    rollout = rollout_factory(texts, correct, num_generations=4)
    score = bonus.score(rollout)
    assert score.any() and not score[rollout.correct > 0.5].any()
    torch.testing.assert_close(score.view(-1, 4).sum(dim=1), torch.zeros(2), atol=1e-6, rtol=0)


def test_placement_after_normalisation_keeps_the_bonus_as_small_as_it_is(rollout_factory):
    bonus = torch.tensor([0.01, 0.02, 0.03, 0.02])
    for weight, size in ((0.1, 1.0911), (1.0, 1.2099), (10.0, 1.2232)):
        as_reward = reward_advantages(weight * bonus[:, None], torch.ones(1), 4, "group")
        torch.testing.assert_close(as_reward, torch.tensor([-size, 0.0, size, 0.0]), atol=5e-5, rtol=0)
    novel = GivenNovelty([0.01, 0.02, 0.03, 0.02])
    added = novel.combine(torch.zeros(4), bonus, rollout_factory(["1"] * 4, [0] * 4))
    assert torch.equal(added, bonus) and novel.placement == "advantage"


# ---- the bonus over time


@pytest.mark.parametrize("make", [reference, fixed])
def test_bonus_is_of_the_error_before_the_batch_is_learnt(make, rollout_factory):
    bonus, rollout = make(), rollout_factory(TEXTS, [0] * 4)
    bonus.update(rollout_factory(TEXTS[::-1], [0] * 4))
    before = bonus.novelty(rollout)
    logged = bonus.update(rollout)["novelty"]
    assert logged == pytest.approx(before.mean().item())
    assert not torch.equal(bonus.novelty(rollout), before)


def patterns(rollout_factory, new_share=0.0):
    """A rollout of 16 wrong answers; hidden states cluster around one familiar direction, those of row 0 may not."""
    rollout = rollout_factory(["123456"] * 16, [0] * 16)
    generator = torch.Generator().manual_seed(5)
    familiar = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]) + 0.3 * torch.randn(16, 6, 6, generator=generator)
    if new_share:
        familiar[0] = torch.tensor([-1.0, 0.0, 1.0, 2.0, -2.0, 1.0])
    rollout.features["frozen_mean_hidden"] = mean_state(familiar, rollout.completion_mask)
    return rollout


def test_a_pattern_seen_often_loses_its_bonus_and_a_new_one_has_it(rollout_factory):
    bonus, familiar = fixed(), patterns(rollout_factory)
    assert bonus.score(familiar).tolist() == [0.0] * 16
    bonus.update(familiar)
    early = bonus.novelty(familiar).mean()
    for _ in range(150):
        bonus.update(familiar)
    assert bonus.novelty(familiar).mean() < 0.2 * early
    surprised = patterns(rollout_factory, new_share=1.0)
    score = bonus.score(surprised) / bonus.decay
    assert score[0] - score[1:].min() == pytest.approx(0.5) and score[1:].max() - score[1:].min() < 0.1


def test_novelty_in_fixed_mode_does_not_depend_on_length_or_padding():
    hidden = torch.ones(1, 4, 3)
    short = mean_state(hidden, torch.tensor([[True, True, False, False]]))
    torch.testing.assert_close(short, mean_state(hidden, torch.ones(1, 4, dtype=torch.bool)))
    assert mean_state(hidden, torch.zeros(1, 4, dtype=torch.bool)).tolist() == [[0.0] * 3]


@pytest.mark.parametrize("make", [reference, fixed])
def test_right_and_wrong_answers_teach_the_predictor(make, rollout_factory):
    bonus, rollout = make(), rollout_factory(TEXTS, [1] * 4)
    bonus.update(rollout)
    before = bonus.novelty(rollout).mean()
    for _ in range(30):
        bonus.update(rollout)
    assert bonus.novelty(rollout).mean() < before


@pytest.mark.parametrize("make", [reference, fixed])
def test_edge_cases(make, rollout_factory):
    bonus = make()
    bonus.update(rollout_factory(TEXTS, [0, 1, 0, 0]))
    assert bonus.score(rollout_factory(["12"], [0])).tolist() == [0.0]
    assert torch.isfinite(bonus.score(rollout_factory(["", "12", "", "3"], [0] * 4))).all()
    same = rollout_factory(["12"] * 4, [0] * 4)
    same.completion_ids = same.completion_ids[:1].expand(4, -1)
    same.prompt_ids = same.prompt_ids[:1].expand(4, -1)
    same.features["frozen_mean_hidden"] = same.features["frozen_mean_hidden"][:1].expand(4, -1)
    assert bonus.score(same).tolist() == [0.0] * 4
    empty = rollout_factory([""] * 4, [0] * 4)
    bonus.update(empty)
    assert torch.isfinite(bonus.score(empty)).all()


def test_a_broken_hidden_state_spoils_neither_the_network_nor_other_rows(rollout_factory):
    bonus, rollout = fixed(), rollout_factory(TEXTS, [0] * 4)
    bonus.update(rollout_factory(TEXTS, [0] * 4))
    rollout.features["frozen_mean_hidden"][2, 0] = math.inf
    assert bonus.score(rollout).isfinite().tolist() == [True, True, False, True]
    bonus.update(rollout)
    assert all(parameter.isfinite().all() for parameter in bonus.networks.predictor.parameters())
    assert bonus.history.isfinite().all()


@pytest.mark.parametrize("make", [reference, fixed])
def test_training_goes_on_from_a_saved_state_as_if_never_stopped(make, rollout_factory, tmp_path):
    bonus, first, second = make(), rollout_factory(TEXTS, [0] * 4), rollout_factory(TEXTS[::-1], [0] * 4)
    bonus.update(first), bonus.update(second)
    save_state(bonus.state_dict(), tmp_path, "state")
    other = make()
    other.load_state_dict(load_state(tmp_path, "state"))
    for rollout in (first, second):
        assert torch.equal(bonus.score(rollout), other.score(rollout))
        assert bonus.update(rollout) == other.update(rollout)


@pytest.mark.parametrize("make", [reference, fixed])
def test_the_global_random_state_is_left_alone(make, rollout_factory):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    bonus, rollout = make(), rollout_factory(TEXTS, [0] * 4)
    bonus.score(rollout), bonus.update(rollout)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "flags",
    [
        {"rnd_mode": "other"},
        {"rnd_alpha": -1.0},
        {"rnd_gamma": 0.0},
        {"rnd_window": -1},
        {"rnd_lr": math.nan},
        {"rnd_weight_decay": -1.0},
        {"rnd_width": 0},
        {"rnd_prompt_length": 0},
        {"rnd_response_length": 0},
        {"rnd_seed": -1},
    ],
)
def test_flags_out_of_range_are_refused(flags):
    ((name, value),) = flags.items()
    with pytest.raises(UserError, match=f"--{name}={value!r}"):
        build_bonus("rnd", IntrinsicOptions(use_ir="rnd", **flags))


def test_flags_reach_the_bonus():
    options = IntrinsicOptions(use_ir="rnd", rnd_mode="reference", rnd_alpha=3.0, rnd_center=True, rnd_lr=0.5)
    bonus = build_bonus("rnd", options)
    assert bonus.conditioning == Conditioning("reference", 3.0, 40.0, True, 1024) and bonus.lr == 0.5
    assert bonus.identity()["center"] is True
    assert bonus.needs == frozenset() and build_bonus("rnd", IntrinsicOptions()).needs == {"frozen_mean_hidden"}


def test_without_features_the_way_out_is_named(rollout_factory):
    rollout = rollout_factory(TEXTS, [0] * 4)
    rollout.features = {}
    with pytest.raises(UserError, match="--rnd_mode=reference"):
        fixed().score(rollout)
    rollout.prompt_ids = None
    with pytest.raises(UserError, match="token ids"):
        reference().score(rollout)
