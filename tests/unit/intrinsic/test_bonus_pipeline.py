"""Guard, clip, weight, quiet groups and attribution, on plain tensors."""

import math

import pytest
import torch

from common.errors import RunError, UserError
from intrinsic import REGISTRY, bonus_class, build_bonus, build_bonuses
from intrinsic.base import Bonus, FiniteGuard, WeightSchedule
from intrinsic.metrics import advantage_metrics, score_metrics, share_metrics
from intrinsic.options import IntrinsicOptions
from intrinsic.pipeline import BonusPipeline, reward_advantages
from intrinsic.shuffle import Shuffle
from tests.toys import make_rollout


class Fixed(Bonus):
    name = "fixed"
    placement = "reward"

    def __init__(self, values, placement="reward"):
        self.values, self.placement = torch.tensor(values), placement

    def score(self, rollout):
        return self.values


class TwoParts(Bonus):
    name = "two"
    placement = "reward"
    part_names = ("near", "far")

    def score_parts(self, rollout):
        return {"near": torch.ones(len(rollout)), "far": torch.arange(len(rollout), dtype=torch.float32)}


def test_schedule_ramps_then_decays():
    schedule = WeightSchedule(2.0, "cosine", warmup_steps=10)
    assert [schedule(step, 110) for step in (0, 5, 10)] == [0.0, 1.0, 2.0]
    assert schedule(60, 110) == pytest.approx(1.0) and schedule(110, 110) == pytest.approx(0.0)
    assert WeightSchedule(1.0, "linear")(25, 100) == pytest.approx(0.75)
    assert WeightSchedule(0.3)(10**6, 100) == 0.3


@pytest.mark.fault("F2")
def test_scores_are_clipped_then_weighted(rollout_factory):
    rollout = rollout_factory(["a", "b", "c", "d"], [1, 0, 0, 0])
    (scored,) = BonusPipeline([Fixed([9.0, -9.0, 1.0, 0.0])], [WeightSchedule(0.5)], clip=2.0).score(rollout)
    assert scored.total.tolist() == [1.0, -1.0, 0.5, 0.0]


@pytest.mark.fault("F1")
def test_guard_counts_replaces_and_forgives_after_a_clean_batch(rollout_factory):
    rollout = rollout_factory(["a", "b", "c", "d"], [1, 0, 0, 0])
    guard = FiniteGuard("probe")
    dirty, clean = torch.tensor([math.nan, 1.0, 2.0, math.inf]), torch.ones(4)
    for scores in (dirty, dirty, clean, dirty, dirty):
        finite, count = guard(scores, rollout)
        assert torch.isfinite(finite).all() and count == (~torch.isfinite(scores)).sum()
    with pytest.raises(RunError, match="'probe'.*batches in a row: 3.*'a'"):
        guard(dirty, rollout)


def test_parts_are_paid_as_separate_columns(rollout_factory):
    rollout = rollout_factory(["a", "b", "c", "d"], [1, 0, 0, 0])
    pipeline = BonusPipeline([TwoParts()], [WeightSchedule(0.5)])
    assert pipeline.reward_columns == [("two", "near"), ("two", "far")]
    near, far = pipeline.reward_values(pipeline.score(rollout), num_generations=4)
    assert near.tolist() == [0.5] * 4 and far.tolist() == [0.0, 0.5, 1.0, 1.5]
    metrics = score_metrics(pipeline.score(rollout), rollout)
    assert metrics["ir/two/far/raw_right"] == 0.0 and metrics["ir/two/far/raw_wrong"] == 2.0


@pytest.mark.fault("F4")
def test_min_std_silences_groups_whose_bonus_hardly_varies(rollout_factory):
    values = [0.001, 0.002, 0.001, 0.002, 0.0, 1.0, 0.0, 1.0]
    rollout = rollout_factory(list("abcdefgh"), [0] * 8, num_generations=4)
    pipeline = BonusPipeline([Fixed(values)], [WeightSchedule(1.0)], min_std=0.01)
    (column,) = pipeline.reward_values(pipeline.score(rollout), num_generations=4)
    torch.testing.assert_close(column, torch.tensor([0.0015] * 4 + [0.0, 1.0, 0.0, 1.0]))
    loud = BonusPipeline([Fixed(values)], [WeightSchedule(1.0)])
    (column,) = loud.reward_values(loud.score(rollout), num_generations=4)
    advantages = reward_advantages(column[:, None], torch.ones(1), 4, "group")
    assert advantages[:4].abs().max() > 0.5


def test_reward_advantages_match_the_vector_of_memory_r_plus():
    totals = torch.tensor([[0.433609], [1.949976], [1.0], [1.0]])
    expected = torch.tensor([-1.052955, 1.357881, -0.152463, -0.152463])
    torch.testing.assert_close(reward_advantages(totals, torch.ones(1), 4, "group"), expected, atol=1e-5, rtol=0)


@pytest.mark.fault("F4")
def test_share_is_zero_without_a_change_and_one_when_the_bonus_is_all_there_is(rollout_factory):
    rollout = rollout_factory(["a", "b", "c", "d"], [1, 0, 0, 0])
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    assert share_metrics("x", advantages, advantages, rollout)["ir/x/share_of_advantage"] == 0.0
    only_bonus = share_metrics("x", torch.zeros(4), advantages, rollout)
    assert only_bonus["ir/x/share_of_advantage"] == 1.0
    assert only_bonus["ir/x/advantage_right"] == 1.0


def test_state_of_bonuses_and_guards_survives(rollout_factory):
    rollout = rollout_factory(["a", "b", "c", "d"], [1, 0, 0, 0])
    pipeline = BonusPipeline([Fixed([math.nan, 1.0, 1.0, 1.0])], [WeightSchedule(1.0)])
    pipeline.score(rollout), pipeline.score(rollout)
    restored = BonusPipeline([Fixed([math.nan, 1.0, 1.0, 1.0])], [WeightSchedule(1.0)])
    restored.load_state_dict(pipeline.state_dict())
    with pytest.raises(RunError):
        restored.score(rollout)


def test_weight_follows_the_schedule_over_the_steps_of_the_run(rollout_factory):
    pipeline = BonusPipeline([Fixed([1.0, 0.0, 0.0, 0.0])], [WeightSchedule(2.0, "linear")])
    for step, weight in ((0, 2.0), (10, 1.0), (20, 0.0)):
        rollout = rollout_factory(["a", "b", "c", "d"], [1, 0, 0, 0], step=step, max_steps=20)
        assert pipeline.score(rollout)[0].weight == pytest.approx(weight)


def moves_the_groups_own(kind):
    return kind.replaces or kind.multiplies


class Replacing(Fixed):
    replaces = True

    def combine(self, advantages, scores, rollout):
        return scores


def test_the_weight_of_a_bonus_that_replaces_the_advantages_is_the_share_it_replaces(rollout_factory):
    rollout = rollout_factory(["a", "b", "c", "d"], [1, 0, 0, 0])
    advantages, theirs = torch.tensor([1.0, -1.0, 0.5, -0.5]), torch.tensor([3.0, 0.0, 0.1, -0.7])
    for weight, expected in ((0.0, advantages), (0.25, torch.tensor([1.5, -0.75, 0.4, -0.55])), (1.0, theirs)):
        pipeline = BonusPipeline([Replacing(theirs.tolist(), "advantage")], [WeightSchedule(weight)])
        joined = pipeline.join(advantages, pipeline.score(rollout), rollout)
        torch.testing.assert_close(joined, expected)
        assert weight == 0.25 or torch.equal(joined, expected)


@pytest.mark.parametrize("name", [name for name in sorted(REGISTRY) if moves_the_groups_own(bonus_class(name))])
@pytest.mark.parametrize("flags", [{"ir_schedule": "linear"}, {"ir_warmup_steps": 20}], ids=str)
def test_by_a_schedule_an_objective_goes_from_plain_grpo_to_itself_in_even_steps(name, flags, rollout_factory):
    options = IntrinsicOptions(use_ir=name, **flags)
    pipeline, joined = BonusPipeline(build_bonuses(options), options.schedules()), []
    for step in range(21):
        rollout = rollout_factory(["a"] * 8, [1, 0, 0, 0, 0, 0, 0, 0], step=step, max_steps=20)
        plain = reward_advantages(rollout.correct[:, None], torch.ones(1), 8, "group")
        joined.append(pipeline.join(plain, pipeline.score(rollout), rollout))
    (whole,) = [item.bonus.combine(plain, item.raw[name], rollout) for item in pipeline.score(rollout)]
    ends = [whole, plain] if "ir_schedule" in flags else [plain, whole]
    assert not torch.equal(*ends)
    for step, found in enumerate(joined):
        torch.testing.assert_close(found, ends[0] + step / 20 * (ends[1] - ends[0]))


def test_a_reward_that_is_missing_for_a_row_counts_as_zero():
    columns = torch.tensor([[1.0, math.nan], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    given = torch.nan_to_num(columns)
    settings = (torch.ones(2), 4, "group")
    torch.testing.assert_close(reward_advantages(columns, *settings), reward_advantages(given, *settings))
    assert torch.isfinite(reward_advantages(columns, *settings)).all()


def test_one_that_replaces_goes_first_unclipped_and_others_add_to_what_it_puts(rollout_factory):
    rollout = rollout_factory(["a", "b", "c", "d"], [1, 0, 0, 0])
    bonuses = [Fixed([1.0] * 4, "advantage"), Replacing([9.0] * 4, "advantage")]
    pipeline = BonusPipeline(bonuses, [WeightSchedule(0.5), WeightSchedule(1.0)])
    scored = pipeline.score(rollout)
    torch.testing.assert_close(pipeline.join(torch.zeros(4), scored, rollout), torch.full((4,), 9.5))


def false_claims_advantages(level, weight):
    """The advantages of a group of equal verdicts, and of one with a right answer, under a bonus that pays 0 and .1."""
    bonus = Fixed([0.1, 0.0, 0.0, 0.1, 0.1, 0.0, 0.0, 0.1]).at_level(level)
    pipeline = BonusPipeline([bonus], [WeightSchedule(weight)])
    rollout = make_rollout(list("abcdefgh"), [0] * 4 + [1, 0, 0, 0], num_generations=4)
    scored = pipeline.score(rollout)
    columns = torch.stack([rollout.correct, *pipeline.reward_values(scored, 4)], dim=1)
    before = reward_advantages(columns, torch.ones(columns.size(1)), 4, "group")
    return pipeline.join(before, scored, rollout).view(2, 4)


def test_after_normalisation_the_weight_means_the_same_in_every_group():
    for weight in (1.0, 0.5, 0.01):
        all_wrong, mixed = false_claims_advantages("advantage", weight)
        torch.testing.assert_close(all_wrong, weight * torch.tensor([0.05, -0.05, -0.05, 0.05]))
        plain = reward_advantages(torch.tensor([[1.0], [0.0], [0.0], [0.0]]), torch.ones(1), 4, "group")
        torch.testing.assert_close(mixed - plain, all_wrong)


def test_in_the_reward_a_group_of_equal_verdicts_is_scaled_to_unit_size_whatever_the_weight():
    for weight in (1.0, 0.5):
        assert false_claims_advantages("reward", weight)[0].abs().min() > 0.8


class Gated(Fixed):
    def eligible(self, rollout):
        return rollout.correct <= 0.5


def test_the_mean_is_that_of_the_eligible_and_others_get_nothing(rollout_factory):
    rollout = rollout_factory(list("abcd"), [1, 0, 0, 0])
    pipeline = BonusPipeline([Gated([9.0, 1.0, 2.0, 3.0]).at_level("advantage")], [WeightSchedule(1.0)], clip=10.0)
    joined = pipeline.join(torch.zeros(4), pipeline.score(rollout), rollout)
    torch.testing.assert_close(joined, torch.tensor([0.0, -1.0, 0.0, 1.0]))


def test_every_bonus_paid_in_the_reward_has_both_levels_and_the_others_keep_their_place():
    for name in REGISTRY:
        paper = build_bonus(name, IntrinsicOptions(use_ir=name), level="reward").placement
        placed = build_bonuses(IntrinsicOptions(use_ir=name))[0]
        assert placed.centred == (paper == "reward") and placed.placement == ("advantage" if placed.centred else paper)
        if paper == "reward":
            assert build_bonuses(IntrinsicOptions(use_ir=name, ir_level="reward"))[0].placement == "reward"
        else:
            with pytest.raises(UserError, match=f"--ir_level='reward': {name} joins after the group normalisation"):
                build_bonuses(IntrinsicOptions(use_ir=name, ir_level="reward"))


def test_one_level_for_several_bonuses_is_for_those_that_have_it_and_weights_follow_the_level():
    options = IntrinsicOptions(use_ir="knn+,cfn", ir_level="reward")
    assert [bonus.placement for bonus in build_bonuses(options)] == ["reward", "advantage"]
    assert options.weights == [1.0, 1.0]
    default = IntrinsicOptions(use_ir="knn+,shuffle:knn+,cfn")
    assert default.weights == [bonus_class("knn+").advantage_weight] * 2 + [1.0]
    for given, message in (("group", "'group' is unknown"), ("reward,advantage", "2 levels for 1 bonuses")):
        with pytest.raises(UserError, match=message):
            IntrinsicOptions(use_ir="knn+", ir_level=given)
    with pytest.raises(UserError, match="cfn joins after"):
        build_bonuses(IntrinsicOptions(use_ir="knn+,cfn", ir_level="reward,reward"))


def test_shares_by_kind_of_group_add_up_to_the_share(rollout_factory):
    rollout = rollout_factory(list("abcdefgh"), [0, 0, 1, 0, 1, 1, 0, 0], num_generations=2)
    before = torch.tensor([0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0])
    change = torch.tensor([0.5, -0.5, 0.25, -0.25, 0.1, -0.1, 0.0, 0.0])
    metrics = share_metrics("x", before, before + change, rollout)
    whole = (before.abs() + change.abs()).sum()
    for kind, amount in (("_all_wrong", 1.0), ("_mixed", 0.5), ("_all_right", 0.2), ("", 1.7)):
        assert metrics[f"ir/x/share_of_advantage{kind}"] == pytest.approx(amount / float(whole))


def test_advantages_and_changes_are_told_apart_by_verdict(rollout_factory):
    verdicts = ["correct", "wrong_value", "no_answer", "syntax"]
    rollout = rollout_factory(list("abcd"), [1, 0, 0, 0], verdicts=verdicts)
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    expected = {"right": 1.0, "wrong_answer": -0.75, "no_answer": 0.5}
    assert advantage_metrics(advantages, rollout) == {f"advantage/{kind}": value for kind, value in expected.items()}
    changes = share_metrics("x", torch.zeros(4), advantages, rollout)
    assert {kind: changes[f"ir/x/advantage_{kind}"] for kind in expected} == expected


def test_the_rank_of_right_above_wrong_is_logged_for_bonuses_with_one_value_per_completion(rollout_factory):
    rollout = rollout_factory(list("abcd"), [1, 0, 0, 0])
    pipeline = BonusPipeline([Fixed([2.0, 1.0, 2.0, 3.0])], [WeightSchedule(1.0)])
    assert score_metrics(pipeline.score(rollout), rollout)["ir/fixed/right_above_wrong"] == pytest.approx(0.5)


class Gappy(TwoParts):
    """Says nothing of the nearness of the second completion."""

    def present_parts(self, rollout):
        return {"near": torch.arange(len(rollout)) % 4 != 1}

    def score_parts(self, rollout):
        near = torch.tensor([3.0, 0.0, 6.0, 0.0]).repeat(len(rollout) // 4)
        return {"near": near, "far": torch.arange(len(rollout), dtype=torch.float32)}


def change_of(bonus, rollout, weight=1.0):
    pipeline = BonusPipeline([bonus.at_level("advantage")], [WeightSchedule(weight)], clip=10.0)
    return pipeline.join(torch.zeros(len(rollout)), pipeline.score(rollout), rollout)


def test_a_completion_without_a_score_gets_nothing_and_is_not_the_lowest_of_its_group(rollout_factory):
    rollout = rollout_factory(list("abcdefgh"), [0] * 8, num_generations=4)
    joined = change_of(Fixed([math.nan, 1.0, 2.0, 6.0, 1.0, 3.0, 5.0, -math.inf]), rollout)
    assert joined.tolist() == [0.0, -2.0, -1.0, 3.0, -2.0, 0.0, 2.0, 0.0]


def test_each_part_is_centred_over_the_completions_that_have_it(rollout_factory):
    rollout = rollout_factory(list("abcdefgh"), [0] * 8, num_generations=4)
    expected = torch.tensor([0.0 - 1.5, 0.0 - 0.5, 3.0 + 0.5, -3.0 + 1.5])
    torch.testing.assert_close(change_of(Gappy(), rollout, 2.0), 2.0 * expected.repeat(2))
    shuffled = Shuffle(Gappy().at_level("advantage"))
    order = shuffled._order(rollout)
    assert not torch.equal(order, torch.arange(8))
    torch.testing.assert_close(change_of(shuffled, rollout), expected.repeat(2)[order])


def test_completions_without_a_score_are_not_ranked(rollout_factory):
    rollout = rollout_factory(list("abcd"), [1, 0, 0, 0])
    for bonus, rank in ((Fixed([2.0, math.nan, 1.0, 3.0]), 0.5), (Gappy(), 0.25), (TwoParts(), 0.0)):
        pipeline = BonusPipeline([bonus], [WeightSchedule(1.0)])
        assert score_metrics(pipeline.score(rollout), rollout)[f"ir/{bonus.name}/right_above_wrong"] == rank


@pytest.mark.parametrize("name", ["knn", "knn+", "knn-sent", "entropy", "ltree", "ppl", "repexp", "unlikely"])
def test_where_all_have_a_score_the_mean_is_that_of_the_total_bit_for_bit(name, rollout_factory):
    options = IntrinsicOptions(use_ir=name, explore_warmup=0)
    pipeline = BonusPipeline(build_bonuses(options), options.schedules())
    (bonus,) = pipeline.bonuses
    texts = [f"text {number} of {number % 3}" for number in range(16)]
    rollout = rollout_factory(texts, [1, 0, 0, 1] * 4, num_generations=8, answers=list("12341234abcdabcd"))
    bonus.update(rollout)
    (item,) = pipeline.score(rollout)
    assert bonus.centred
    inside = bonus.eligible(rollout).view(-1, 8)
    known = torch.where(inside, item.total.view(-1, 8), 0.0)
    mean = known.sum(dim=1, keepdim=True) / inside.sum(dim=1, keepdim=True).clamp(min=1)
    assert torch.equal(pipeline._centred(item, rollout), torch.where(inside, known - mean, 0.0).flatten())


@pytest.mark.parametrize("control", ["{}", "shuffle:{}"])
@pytest.mark.parametrize("name", ["sc", "certain", "majority"])
def test_what_is_standardised_as_the_rewards_are_is_no_more_clipped_than_they(name, control, rollout_factory):
    rollout = rollout_factory(["1+2"] * 64, [0] * 64, num_generations=64, answers=["3"] * 63 + ["4"])
    differs = torch.ones(64, 1).index_fill(0, torch.tensor([63]), 2.0) * rollout.completion_mask
    rollout.features |= {"self_certainty": differs, "entropy": differs}
    options = IntrinsicOptions(use_ir=control.format(name))
    pipeline = BonusPipeline(build_bonuses(options), options.schedules(), options.ir_clip)
    joined = pipeline.join(torch.zeros(64), pipeline.score(rollout), rollout)
    assert joined.abs().max().item() == pytest.approx(63 / 64**0.5, abs=0.01)
    assert joined.sum().abs() < 1e-4
