"""The noise control: as strong as a bonus in each group, where the bonus stands, and ignorant of any text."""

import pytest
import torch

from common.errors import UserError
from intrinsic import NOISE, REGISTRY, build_bonus, build_bonuses
from intrinsic.base import Bonus, WeightSchedule
from intrinsic.noise import Noise
from intrinsic.options import IntrinsicOptions
from intrinsic.pipeline import BonusPipeline

CONTROLLED = [
    name for name in sorted(REGISTRY) if name != NOISE and not build_bonus(name, IntrinsicOptions()).uncontrolled
]


class Gated(Bonus):
    """Pays wrong answers their row times a strength of the group; learns to pay double."""

    name, placement = "gated", "advantage"

    def __init__(self):
        self.seen = 0

    def eligible(self, rollout):
        return rollout.correct <= 0.5

    def score(self, rollout):
        rows = torch.arange(len(rollout), dtype=torch.float32)
        strength = (1 + rows // rollout.num_generations) * (1 + self.seen)
        return torch.where(self.eligible(rollout), rows * strength, 0.0)

    def update(self, rollout):
        self.seen += 1
        return {"seen": self.seen}

    def combine(self, advantages, scores, rollout):
        return advantages * scores

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def batch(rollout_factory, groups=4, correct=(1, 0, 0, 1, 0, 0, 0, 0)):
    return rollout_factory([str(n) for n in range(8 * groups)], list(correct) * groups, num_generations=8)


def built(use_ir, **flags):
    return build_bonuses(IntrinsicOptions(use_ir=use_ir, **flags))


def test_noise_has_the_deviation_of_the_bonus_among_the_eligible_of_each_group(rollout_factory):
    rollout, bonus = batch(rollout_factory), Gated()
    noise, wrong = Noise(bonus).score(rollout).view(4, 8), (rollout.correct <= 0.5).view(4, 8)
    values = bonus.score(rollout).view(4, 8)
    for drawn, paid, inside in zip(noise, values, wrong, strict=True):
        assert (drawn[~inside] == 0).all()
        torch.testing.assert_close(drawn[inside].std(), paid[inside].std())
        assert abs(drawn[inside].mean()) < 1e-5 * paid[inside].std()


@pytest.mark.parametrize("broken", [float("inf"), float("-inf"), float("nan")])
def test_a_bonus_that_is_not_finite_somewhere_gives_no_noise_there_and_no_other_strength(broken, rollout_factory):
    class Broken(Gated):
        def score(self, rollout):
            return super().score(rollout).index_fill(0, torch.tensor([1]), broken)

    rollout, bonus = batch(rollout_factory), Broken()
    noise, rows = Noise(bonus).score(rollout), torch.tensor([2, 4, 5, 6, 7])
    assert noise.isfinite().all() and noise[1] == 0
    torch.testing.assert_close(noise[rows].std(), bonus.score(rollout)[rows].std())
    assert torch.equal(noise[8:], Noise(Gated()).score(rollout)[8:])
    scored = BonusPipeline([bonus, Noise(bonus, learns=False)], [WeightSchedule()] * 2).score(rollout)
    assert [item.nonfinite for item in scored] == [1, 0]


def test_groups_without_spread_or_with_one_eligible_completion_get_none(rollout_factory):
    alone = batch(rollout_factory, 2, (1, 1, 1, 0, 1, 1, 1, 1))
    assert (Noise(Gated()).score(alone) == 0).all()


def test_over_many_batches_noise_and_bonus_are_unrelated_and_every_batch_is_new(rollout_factory):
    rollout, noise = batch(rollout_factory, 1, [0] * 8), Noise(Gated(), learns=False)
    draws = []
    for _ in range(400):
        draws.append(noise.score(rollout))
        assert torch.equal(draws[-1], noise.score(rollout))
        noise.update(rollout)
    means = torch.stack(draws).mean(dim=0)
    assert means.abs().max() < 4 * 2.45 / 400**0.5
    assert not torch.equal(draws[0], draws[1])


def test_texts_do_not_matter_and_groups_of_one_question_get_different_noise(rollout_factory):
    rollout = batch(rollout_factory, 2, [0] * 8)
    first, second = Noise(Gated())._normal(rollout).view(2, 8)
    assert not torch.equal(first, second)
    others = rollout_factory(["same"] * 16, [0] * 16, num_generations=8)
    assert torch.equal(Noise(Gated())._normal(others).view(2, 8)[0], first)
    assert not torch.equal(Noise(Gated(), seed=1)._normal(rollout).view(2, 8)[0], first)


def test_alone_it_is_as_strong_as_rnd_and_learns_and_saves_it(rollout_factory):
    rollout = batch(rollout_factory)
    (noise,), (rnd,) = built("noise", rnd_width=16), built("rnd", rnd_width=16)
    for _ in range(2):
        noise.update(rollout), rnd.update(rollout)
    inside = (rollout.correct <= 0.5).view(4, 8)
    for drawn, paid, wrong in zip(noise.score(rollout).view(4, 8), rnd.score(rollout).view(4, 8), inside, strict=True):
        torch.testing.assert_close(drawn[wrong].std(), paid[wrong].std())
    (other,) = built("noise", rnd_width=16)
    other.load_state_dict(noise.state_dict())
    assert torch.equal(other.score(rollout), noise.score(rollout))


@pytest.mark.parametrize(("level", "place"), [("advantage", "advantage"), ("reward", "reward")])
def test_beside_a_bonus_it_takes_its_place_and_weight_and_leaves_learning_to_it(level, place, rollout_factory):
    options = IntrinsicOptions(use_ir="knn+,noise", ir_level=level, explore_warmup=0)
    bonus, noise = build_bonuses(options)
    assert noise.bonus is bonus and noise.placement == place and noise.centred == bonus.centred
    assert options.weights[0] == options.weights[1]
    assert noise.update(batch(rollout_factory)) == {} and "bonus" not in noise.state_dict()


@pytest.mark.parametrize("use_ir", ["repexp,noise", "noise,repexp", "shuffle:repexp,noise", "rnd,noise"])
@pytest.mark.parametrize("ir_level", ["advantage", "reward", "advantage,reward", "reward,advantage"])
def test_its_default_weight_is_that_of_the_bonus_whatever_its_own_level(use_ir, ir_level):
    weights = IntrinsicOptions(use_ir=use_ir, ir_level=ir_level).weights
    assert weights[0] == weights[1]


def test_a_bonus_of_weight_zero_beside_it_leaves_noise_of_its_strength_alone(rollout_factory):
    rollout = batch(rollout_factory)
    options = IntrinsicOptions(use_ir="knn+,noise", ir_weight="0,1", explore_warmup=0)
    pipeline = BonusPipeline(build_bonuses(options), options.schedules())
    pipeline.update(rollout)
    knn, noise = pipeline.score(rollout)
    assert (knn.total == 0).all()
    own = sum(knn.raw.values()).view(4, 8).std(dim=1)
    torch.testing.assert_close(noise.total.view(4, 8).std(dim=1), own)


def test_it_joins_as_the_bonus_does(rollout_factory):
    rollout = batch(rollout_factory)
    pipeline = BonusPipeline([Noise(Gated())], [WeightSchedule(1.0)])
    scored = pipeline.score(rollout)
    joined = pipeline.join(torch.full((32,), 2.0), scored, rollout)
    torch.testing.assert_close(joined, 2 * scored[0].total)


@pytest.mark.parametrize("advantage", [-1.0, 0.0, 2.0])
@pytest.mark.parametrize("name", CONTROLLED)
def test_noise_changes_no_advantage_on_average(name, advantage, rollout_factory):
    """Each number moves an advantage as far as its negative does, the other way."""
    noise = Noise(build_bonus(name, IntrinsicOptions(use_ir=name)))
    rollout, advantages = batch(rollout_factory, 1), torch.full((8,), advantage)
    numbers = torch.tensor([0.01, 0.3, 0.9, 1.1, 1.8, 2.4, 3.0, 4.0])
    up = noise.combine(advantages, numbers, rollout) - advantages
    down = noise.combine(advantages, -numbers, rollout) - advantages
    torch.testing.assert_close(up, -down)


@pytest.mark.parametrize(
    ("use_ir", "flags", "message"),
    [
        ("noise", {"rnd_seed": -1}, "--rnd_seed=-1"),
        ("knn+,cfn,noise", {}, "here stand 2; name one"),
        ("passk,noise", {}, "noise cannot be as strong as passk"),
        ("focal,noise", {}, "noise cannot be as strong as focal: it gives one factor for a whole group"),
        ("entropy-adv,noise", {}, "noise cannot be as strong as entropy-adv"),
    ],
)
def test_what_it_cannot_match_is_refused(use_ir, flags, message):
    with pytest.raises(UserError, match=message):
        built(use_ir, **flags)
