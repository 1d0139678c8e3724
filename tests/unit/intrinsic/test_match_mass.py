"""`--match_mass`: the sum of absolute advantages is plain GRPO's, whatever is paid and wherever."""

import copy

import pytest
import torch

from common.errors import UserError
from intrinsic import build_bonuses
from intrinsic.base import Bonus, WeightSchedule
from intrinsic.match_mass import mass, match_mass, trained_tokens
from intrinsic.maxrl import MaxRL
from intrinsic.options import IntrinsicOptions
from intrinsic.pipeline import reward_advantages

TOKENS = torch.tensor([[True, True, False], [True, True, True]])


def test_one_factor_for_the_batch():
    """Plain GRPO's mass is 2, MaxRL's 3 + 1 + 1 + 1: a third of it."""
    plain, joined = torch.tensor([1.0, -1.0, 0.0, 0.0]), torch.tensor([3.0, -1.0, -1.0, -1.0])
    matched, logged = match_mass(joined, plain, torch.ones(4, 2, dtype=torch.bool))
    torch.testing.assert_close(matched, torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))
    assert logged == {"match_mass/factor": pytest.approx(1 / 3), "match_mass/left_as_is": 0.0}


def test_values_per_token_are_summed_over_tokens_on_both_sides():
    """Plain: 1 x 2 tokens + 1 x 3 tokens = 5. Joined: 2 + 2 + 2 + 2 + 2 = 10; what stands on padding does not count."""
    joined = torch.tensor([[2.0, -2.0, 99.0], [2.0, 2.0, -2.0]])
    matched, logged = match_mass(joined, torch.tensor([1.0, -1.0]), TOKENS)
    torch.testing.assert_close(matched[TOKENS], torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert logged["match_mass/factor"] == 0.5


def test_completions_left_out_of_the_loss_do_not_count(rollout_factory):
    rollout = rollout_factory(["ab", "cde"], [1, 0], truncated=torch.tensor([True, False]))
    joined, plain = torch.tensor([5.0, -4.0]), torch.tensor([1.0, -1.0])
    assert match_mass(joined, plain, trained_tokens(rollout, False))[1]["match_mass/factor"] == pytest.approx(2 / 9)
    assert match_mass(joined, plain, trained_tokens(rollout, True))[1]["match_mass/factor"] == 0.25


@pytest.mark.parametrize(
    ("plain", "joined"),
    [([0.0, 0.0], [0.5, -0.5]), ([1.0, -1.0], [0.0, 0.0]), ([1.0, -1.0], [1e-7, 0.0]), ([0.0, 0.0], [0.0, 0.0])],
)
def test_where_no_factor_can_match_all_stays_as_it_is(plain, joined):
    joined = torch.tensor(joined)
    matched, logged = match_mass(joined, torch.tensor(plain), TOKENS)
    assert matched is joined and logged == {"match_mass/factor": 1.0, "match_mass/left_as_is": 1.0}


def test_it_is_refused_where_no_reward_counts():
    with pytest.raises(UserError, match="--match_mass .* --sc_alone"):
        IntrinsicOptions(use_ir="sc", sc_alone=True, match_mass=True)


# ---- in the trainer


class Fixed(Bonus):
    """Pays 0 to 7 to the completions of a batch, at a place of choice."""

    name = "fixed"

    def __init__(self, placement):
        self.placement, self.rollouts = placement, []

    def score(self, rollout):
        self.rollouts.append(rollout)
        values = torch.arange(len(rollout), dtype=torch.float32)
        return values[:, None] * rollout.completion_mask if self.placement == "token" else values


def one_batch(trainer):
    trainer.model.train()
    return trainer._generate_and_score_completions(
        [row for row in trainer.train_dataset.select(range(2)) for _ in "0123"]
    )


@pytest.mark.parametrize("placement", ["reward", "advantage", "token"])
def test_the_sum_of_a_step_is_plain_grpos_wherever_the_bonus_joins(placement, trainer_factory):
    bonuses = [Fixed(placement)] if placement == "reward" else [Fixed(placement), MaxRL()]
    trainer = trainer_factory(bonuses, [WeightSchedule(0.5)] * len(bonuses), match_mass=True)
    advantages, rollout = one_batch(trainer)["advantages"], bonuses[0].rollouts[0]
    plain = reward_advantages(rollout.correct[:, None], torch.ones(1), 4, "group")
    assert plain.abs().sum() > 1, "the batch has to hold a group with both verdicts"
    wanted = plain[:, None].expand_as(rollout.completion_mask) if placement == "token" else plain
    assert mass(advantages, rollout.completion_mask) == pytest.approx(mass(wanted, rollout.completion_mask), rel=1e-5)
    (factor,) = trainer._metrics["train"]["match_mass/factor"]
    assert factor != 1.0


def test_without_weight_it_is_plain_grpo_bit_for_bit(trainer_factory, random_policy):
    plain, matched = copy.deepcopy(random_policy), copy.deepcopy(random_policy)
    trainer_factory(policy=plain).train()
    options = IntrinsicOptions(use_ir="ppl,focal,cfn", ir_level="reward", ir_weight="0")
    trainer_factory(build_bonuses(options), options.schedules(), policy=matched, match_mass=True).train()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), matched.parameters(), strict=True))
