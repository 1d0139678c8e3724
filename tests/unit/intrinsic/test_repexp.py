"""RepExp: spec vectors, leverage, projection, who is paid, edge cases, flags."""

import math
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from intrinsic.base import WeightSchedule
from intrinsic.flags.policy import RepExpFlags
from intrinsic.pipeline import BonusPipeline, reward_advantages
from intrinsic.repexp import RepExp, leverage, sparse_projection
from policy.features import mean_state
from tests.unit.intrinsic.repexp_cases import PLAIN, X, Y, close, make, random_rows

# ---- the quantity


def test_c1_leverage_in_the_group():
    close(RepExp(**PLAIN).score(make([X, X, Y])), [1 / 3, 1 / 3, 0.5])


def test_c1_leverages_sum_to_less_than_the_dimension():
    states = random_rows(8, 3).float().tolist()
    assert RepExp(**PLAIN | {"ridge": 1e-3}).score(make(states)).sum() < 3


def test_leverage_is_that_of_the_explicit_matrix():
    features, past = random_rows(2 * 5, 7).view(2, 5, 7), random_rows(20, 7, seed=1)
    matrix = 0.3 * torch.eye(7, dtype=torch.float64) + past.mT @ past
    kernel = features @ matrix.inverse() @ features.mT
    expected = [torch.diag(group @ (matrix + group.mT @ group).inverse() @ group.mT) for group in features]
    torch.testing.assert_close(leverage(kernel), torch.stack(expected))


def test_state_is_the_mean_over_the_tokens_of_a_response():
    rollout = make([X, Y, X])
    hidden = torch.tensor([[X, X, X], [X, Y, Y], [X, Y, [9.0, 9.0]]])
    rollout.completion_mask = torch.tensor([[True] * 3, [True] * 3, [True, True, False]])
    rollout.features["mean_hidden"] = mean_state(hidden, rollout.completion_mask)
    features, _ = RepExp(features="unit").represent(rollout)
    root = 0.5**0.5
    close(features[0], [X, [0.2**0.5, 0.8**0.5], [root, root]])


def test_centered_features_are_the_distance_from_the_mean_of_the_group():
    rollout = make([[3.0, 0.0], [5.0, 0.0], None, [1.0, 3.0]])
    features, present = RepExp(features="centered").represent(rollout)
    close(features[0], [[0.0, -1.0], [2.0, -1.0], [0.0, 0.0], [-2.0, 2.0]])
    assert present.tolist() == [[True, True, False, True]]


def test_centered_and_a_small_ridge_pay_every_distinct_response_the_same():
    """The authors' setting for 8 responses in 32 dimensions finds near-duplicates and nothing finer (see the card)."""
    states = (100 * random_rows(8, 32)).tolist()
    states[7] = states[6]
    score = RepExp(features="centered", **PLAIN | {"ridge": 0.01}).score(make(states))
    close(score[:6], [7 / 8] * 6, atol=1e-4)
    close(score[6:], [3 / 8] * 2, atol=1e-4)


def test_beta_weighs_the_bonus():
    close(RepExp(**PLAIN | {"beta": 0.1}).score(make([X, X, Y])), [1 / 30, 1 / 30, 0.05])


def test_groups_do_not_see_each_other():
    score = RepExp(**PLAIN).score(make([X, X, Y, X, X, Y], num_generations=3))
    close(score, [1 / 3, 1 / 3, 0.5] * 2)


def test_level_advantage_adds_the_bonus_less_its_mean_in_the_group():
    bonus, rollout = RepExp(**PLAIN).at_level("advantage"), make([X, X, Y])
    pipeline = BonusPipeline([bonus], [WeightSchedule()])
    joined = pipeline.join(torch.zeros(3), pipeline.score(rollout), rollout)
    close(joined, [-1 / 18, -1 / 18, 1 / 9])
    assert pipeline.reward_columns == []


# ---- the projection


def test_projection_keeps_lengths_and_distances_on_average():
    rows = random_rows(20, 400).float()
    ratios = []
    for seed in range(30):
        projected = rows @ sparse_projection(400, 64, torch.Generator().manual_seed(seed))
        ratios.append(torch.cdist(projected, projected).square().sum() / torch.cdist(rows, rows).square().sum())
    assert torch.stack(ratios).mean().item() == pytest.approx(1.0, abs=0.03)


def test_projection_is_sparse_with_two_opposite_values():
    matrix = sparse_projection(400, 64, torch.Generator().manual_seed(0))
    values, counts = matrix.unique(return_counts=True)
    close(values, [-((20 / 64) ** 0.5), 0.0, (20 / 64) ** 0.5])
    assert counts[1] / counts.sum() == pytest.approx(0.95, abs=0.01)


def test_projection_is_new_each_step_and_follows_the_seed():
    states = random_rows(6, 40).tolist()

    def score(seed, step, **settings):
        return RepExp(dim=8, seed=seed, **PLAIN, **settings).score(make(states, step=step))

    assert torch.equal(score(0, 3), score(0, 3))
    assert not torch.equal(score(0, 3), score(0, 4))
    assert not torch.equal(score(0, 3), score(1, 3))
    assert torch.equal(score(0, 3, use_memory=True), score(0, 4, use_memory=True))


def test_global_random_state_is_neither_used_nor_moved():
    states = random_rows(6, 40).tolist()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = RepExp(dim=8, **PLAIN).score(make(states))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, RepExp(dim=8, **PLAIN).score(make(states)))


@pytest.mark.parametrize("dim", [0, 6, 7])
def test_narrow_features_and_dim_0_are_not_projected(dim):
    states = random_rows(4, 6).float().tolist()
    features, _ = RepExp(dim=dim).represent(make(states))
    torch.testing.assert_close(features[0], torch.nn.functional.normalize(torch.tensor(states).double()))


# ---- whom it pays, and edge cases


def test_pays_only_groups_with_a_right_answer_unless_all():
    rollout = make([X, X, Y, X, X, Y], correct=[0, 0, 0, 0, 1, 0], num_generations=3)
    settings = PLAIN | {"paid": "solved"}
    close(RepExp(**settings).score(rollout), [0.0, 0.0, 0.0, 1 / 3, 1 / 3, 0.5])
    close(RepExp(**PLAIN).score(rollout), [1 / 3, 1 / 3, 0.5] * 2)
    assert RepExp(**settings).eligible(rollout).tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize("paid, size", [("solved", 0.0), ("all", 1.0)])
def test_all_wrong_group_gets_an_advantage_of_full_size_only_if_all_are_paid(paid, size):
    bonus, rollout = RepExp(paid=paid), make([X, X, Y], correct=[0.0] * 3)
    pipeline = BonusPipeline([bonus], [WeightSchedule()])
    columns = torch.stack([rollout.rewards, *pipeline.reward_values(pipeline.score(rollout), 3)], dim=1)
    advantages = reward_advantages(columns, torch.ones(2), 3, "group")
    assert advantages.abs().amax().item() == pytest.approx(size, abs=0.2)


@pytest.mark.parametrize("features", ["unit", "centered"])
def test_identical_responses_are_paid_the_same(features):
    score = RepExp(features=features, **PLAIN).score(make([[0.3, 0.7]] * 4))
    assert (score.max() - score.min()).item() < 1e-7


def joined(rollout, level):
    """What a pipeline adds to advantages of zero, or pays as a reward column."""
    pipeline = BonusPipeline([RepExp(**PLAIN).at_level(level)], [WeightSchedule()])
    scored = pipeline.score(rollout)
    columns = pipeline.reward_values(scored, rollout.num_generations)
    return columns[0] if columns else pipeline.join(torch.zeros(len(rollout)), scored, rollout)


@pytest.mark.parametrize("level", ["reward", "advantage"])
def test_completion_without_tokens_gets_nothing_and_does_not_enter_its_group(level):
    score, full = joined(make([X, None, X, Y]), level), joined(make([X, X, Y]), level)
    assert score[1] == 0.0
    torch.testing.assert_close(score[[0, 2, 3]], full)


@pytest.mark.parametrize("features", ["unit", "centered"])
def test_group_of_one_and_group_of_padding(features):
    alone = RepExp(features=features, **PLAIN).score(make([X]))
    close(alone, [0.5 if features == "unit" else 0.0])
    padding = make([X, X])
    padding.completion_mask[:] = False
    bonus = RepExp(features=features, use_memory=True, **PLAIN)
    assert bonus.score(padding).tolist() == [0.0, 0.0]
    assert "past_novelty" not in bonus.update(padding)


@pytest.mark.parametrize("paid", ["solved", "all"])
def test_state_that_is_not_finite_reaches_the_guard_and_spoils_no_other(paid):
    score = RepExp(**PLAIN | {"paid": paid}).score(make([X, [math.nan, 1.0], X, Y], correct=[0.0] * 4))
    assert score.isnan().tolist() == [False, True, False, False]
    if paid == "all":
        torch.testing.assert_close(score[[0, 2, 3]], RepExp(**PLAIN).score(make([X, X, Y])))


def test_score_changes_nothing_and_is_float32():
    bonus, rollout = RepExp(use_memory=True, **PLAIN), make([X, X, Y])
    rollout.features["mean_hidden"] = rollout.features["mean_hidden"].bfloat16().requires_grad_()
    score = bonus.score(rollout)
    assert score.dtype == torch.float32 and not score.requires_grad and bonus.memory is None


# ---- flags, log


def test_initial_model_reads_the_states_of_the_frozen_policy():
    bonus = RepExp(model="initial", **PLAIN)
    assert bonus.needs == {"frozen_mean_hidden"} and RepExp().needs == {"mean_hidden"}
    close(bonus.score(make([X, X, Y], feature="frozen_mean_hidden")), [1 / 3, 1 / 3, 0.5])


def test_built_from_its_flags_and_told_apart_on_resume():
    bonus = RepExp.from_options(RepExpFlags())
    assert bonus.placement == "reward" and bonus.identity() == RepExp().identity()
    options = SimpleNamespace(
        repexp_beta=0.1,
        repexp_lambda=0.5,
        repexp_dim=32,
        repexp_features="centered",
        repexp_model="initial",
        repexp_pay="all",
        repexp_memory=True,
        repexp_memory_decay=0.9,
        repexp_seed=3,
    )
    bonus = RepExp.from_options(options)
    assert bonus.identity() == {"name": "repexp", **vars(options)}


@pytest.mark.parametrize(
    "flag, settings",
    [
        ("beta", {"beta": -1.0}),
        ("lambda", {"ridge": 0.0}),
        ("dim", {"dim": -1}),
        ("features", {"features": "raw"}),
        ("model", {"model": "frozen"}),
        ("pay", {"paid": "none"}),
        ("memory_decay", {"memory_decay": 1.1}),
        ("seed", {"seed": -1}),
    ],
)
def test_bad_settings_are_refused_with_flag_and_value(flag, settings):
    (value,) = settings.values()
    with pytest.raises(UserError, match=f"--repexp_{flag}={value!r}"):
        RepExp(**settings)
