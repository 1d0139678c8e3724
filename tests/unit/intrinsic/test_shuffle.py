"""The permutation control: everything of the wrapped bonus but the tie between value and text of equal verdict."""

import math

import pytest
import torch

from common.errors import UserError
from common.state import load_state, save_state
from intrinsic import REGISTRY, bonus_class, build_bonus, build_bonuses, parse_names
from intrinsic.base import Bonus
from intrinsic.options import IntrinsicOptions
from intrinsic.pipeline import BonusPipeline
from intrinsic.shuffle import Shuffle


class Numbered(Bonus):
    """Two parts that know their row; the learnt count shifts them."""

    name, placement, part_names = "numbered", "advantage", ("tens", "ones")

    def __init__(self):
        self.seen = 0

    def score_parts(self, rollout):
        rows = torch.arange(len(rollout), dtype=torch.float32) + self.seen
        return {"tens": rows * 10, "ones": rows}

    def eligible(self, rollout):
        return rollout.correct <= 0.5

    def update(self, rollout):
        self.seen += 1
        return {"seen": self.seen}

    def combine(self, advantages, scores, rollout):
        return advantages * scores

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def shuffled(name, **flags):
    return build_bonus(f"shuffle:{name}", IntrinsicOptions(use_ir=f"shuffle:{name}", **flags))


def test_values_stay_among_the_eligible_and_parts_stay_together(rollout_factory):
    correct = [1, 0] * 16
    rollout, bonus = rollout_factory(["1"] * 32, correct), Shuffle(Numbered())
    parts = bonus.score_parts(rollout)
    torch.testing.assert_close(parts["tens"], 10 * parts["ones"])
    rows = torch.arange(32.0)
    assert torch.equal(parts["ones"][::2], rows[::2])
    assert not torch.equal(parts["ones"], rows) and torch.equal(parts["ones"].sort().values, rows)


@pytest.mark.parametrize("verdicts", [None, ["correct", "wrong_value", "no_answer", "wrong_value"] * 8])
def test_values_stay_in_their_group_and_with_their_verdict(verdicts, rollout_factory):
    rollout = rollout_factory(["1"] * 32, [1, 0, 0, 0] * 8, num_generations=8, verdicts=verdicts or [])
    dealt = Shuffle(Numbered()).score_parts(rollout)["ones"].long()
    groups = torch.arange(32) // 8
    assert torch.equal(groups[dealt], groups) and torch.equal(rollout.kinds[dealt], rollout.kinds)
    assert not torch.equal(dealt, torch.arange(32))


@pytest.mark.parametrize("correct", [[math.nan] * 32, [0.0] * 8 + [math.nan] * 24], ids=["none", "of one group"])
def test_without_verdicts_values_stay_in_their_group_and_those_not_eligible_in_their_place(correct, rollout_factory):
    class ButTheFourth(Numbered):
        def eligible(self, rollout):
            return torch.arange(len(rollout)) % 4 != 3

    rollout = rollout_factory(["1"] * 32, correct, num_generations=8, verdicts=["no_answer"] * 32)
    dealt = Shuffle(ButTheFourth()).score_parts(rollout)["ones"].long()
    rows = torch.arange(32)
    assert torch.equal(dealt[3::4], rows[3::4]) and torch.equal(dealt // 8, rows // 8)
    assert all((dealt // 8)[dealt != rows].eq(group).any() for group in range(4))


def test_within_the_batch_values_change_groups_and_verdicts(rollout_factory):
    rollout = rollout_factory(["1"] * 32, [0] * 32, num_generations=8, verdicts=["wrong", "no_answer"] * 16)
    dealt = Shuffle(Numbered(), within="batch").score_parts(rollout)["ones"].long()
    assert (dealt // 8 != torch.arange(32) // 8).any() and (rollout.kinds[dealt] != rollout.kinds).any()
    with pytest.raises(UserError, match="--shuffle_within='group' is unknown; use one of verdict, batch"):
        shuffled("knn", shuffle_within="group")
    assert shuffled("knn", shuffle_within="batch").within == "batch"


def test_every_batch_and_seed_has_a_lot_of_its_own_and_score_changes_nothing(rollout_factory):
    rollout, bonus = rollout_factory(["1"] * 32, [0] * 32), Shuffle(Numbered())
    first = bonus.score(rollout)
    assert torch.equal(first, bonus.score(rollout))
    assert not torch.equal(first, Shuffle(Numbered(), seed=1).score(rollout))
    bonus.update(rollout)
    assert not torch.equal(bonus.score(rollout) - 11, first)


def test_over_many_lots_value_and_row_are_unrelated(rollout_factory):
    rollout, bonus, lots = rollout_factory(["1"] * 16, [0] * 16), Shuffle(Numbered()), []
    for number in range(200):
        lots.append(bonus.score_parts(rollout)["ones"] - number)
        bonus.update(rollout)
    means = torch.stack(lots).mean(dim=0)
    assert (means - 7.5).abs().max() < 4 * 4.6 / 200**0.5


def test_the_wrapped_bonus_learns_joins_and_is_saved_as_if_alone(rollout_factory, tmp_path):
    rollout, bonus = rollout_factory(["1"] * 8, [0] * 8), Shuffle(Numbered())
    assert bonus.update(rollout) == {"seen": 1}
    assert torch.equal(bonus.combine(torch.full((8,), 2.0), torch.ones(8), rollout), torch.full((8,), 2.0))
    save_state(bonus.state_dict(), tmp_path, "state")
    other = Shuffle(Numbered())
    other.load_state_dict(load_state(tmp_path, "state"))
    assert torch.equal(other.score(rollout), bonus.score(rollout))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_bonus_with_one_value_per_completion_has_this_control(name, rollout_factory):
    options, plain = IntrinsicOptions(use_ir=f"shuffle:{name}"), build_bonus(name, IntrinsicOptions(use_ir=name))
    if plain.placement == "token" or plain.replaces or plain.multiplies:
        with pytest.raises(UserError, match=f"shuffle:{name} cannot be shuffled"):
            build_bonuses(options)
        return
    texts = ["1+2=3", "2*3=6", "4", "5-4=1", "7-3=4", "8", "9/3=3", "8+8=16"]
    rollout = rollout_factory(texts, [1, 0] * 4, num_generations=4)
    pipeline = BonusPipeline(build_bonuses(options), options.schedules())
    plain.update(rollout), pipeline.update(rollout)
    (scored,) = pipeline.score(rollout)
    its = (plain.score(rollout).clamp(-5, 5) * scored.weight).sort().values
    mine = scored.total.sort().values
    torch.testing.assert_close(mine, its)
    assert pipeline.needs == plain.needs and scored.bonus.name == f"shuffle:{name}"
    assert (scored.bonus.placement, scored.bonus.centred) == (plain.placement, plain.centred)
    assert scored.bonus.capacity_bytes(8) == plain.capacity_bytes(8)


@pytest.mark.parametrize("name", [name for name in sorted(REGISTRY) if bonus_class(name).placement == "reward"])
def test_what_is_paid_in_the_reward_has_its_columns_under_the_name_of_the_control(name):
    options = IntrinsicOptions(use_ir=f"shuffle:{name}", ir_level="reward")
    pipeline = BonusPipeline(build_bonuses(options), options.schedules())
    parts = bonus_class(name).part_names or (f"shuffle:{name}",)
    assert pipeline.reward_columns == [(f"shuffle:{name}", part) for part in parts]


def test_token_level_and_unknown_bonuses_are_refused():
    with pytest.raises(UserError, match="cfn cannot be shuffled: cfn gives one value per token"):
        shuffled("cfn", cfn_level="token")
    for name in ("nothing", "no", "shuffle:knn", ""):
        with pytest.raises(UserError, match="unknown bonus"):
            parse_names(f"shuffle:{name}")
    with pytest.raises(UserError, match="--shuffle_seed=-1"):
        IntrinsicOptions(use_ir="shuffle:knn", shuffle_seed=-1)


def test_aliases_and_composition():
    assert parse_names("shuffle:memoryr+,knn+") == ["shuffle:knn+", "knn+"]
    (bonus,) = build_bonuses(IntrinsicOptions(use_ir="shuffle:memoryr"))
    assert type(bonus.bonus) is bonus_class("knn")
    with pytest.raises(UserError, match="twice"):
        parse_names("shuffle:knn+,shuffle:memoryr+")
