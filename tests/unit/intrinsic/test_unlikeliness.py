"""Unlikeliness reward: its vectors at the level of the reward, ties and equal texts, and what is refused."""

import pytest
import torch

from common.errors import UserError
from intrinsic import build_bonuses
from intrinsic.base import WeightSchedule
from intrinsic.flags.rarity import UnlikelyFlags
from intrinsic.options import IntrinsicOptions
from intrinsic.pipeline import BonusPipeline, reward_advantages
from intrinsic.unlikeliness import Unlikeliness, mean_ranks
from training.watchdogs.checks import ACCURACY, Thresholds, bonus_against_accuracy
from training.watchdogs.history import History

RIGHT = [1, 1, 1, 0, 0, 0, 0, 0]
LOGPS = [-0.9, -0.2, -0.5, -0.3, -0.6, -1.2, -0.4, -0.8]


@pytest.fixture
def make(rollout_factory):
    def build(correct=RIGHT, logps=LOGPS, texts=None):
        rollout = rollout_factory(texts or [f"text {row}" for row in range(len(correct))], correct)
        rollout.features["logps"] = torch.tensor(logps)[:, None] * rollout.completion_mask
        return rollout

    return build


def near(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("correct", "rewards", "advantages"),
    [
        (RIGHT, [0.96875, 0.78125, 0.875] + [0.0] * 5, [1.405744, 0.994306, 1.200025] + [-0.720015] * 5),
        (
            [1] * 8,
            [0.96875, 0.78125, 0.875, 0.8125, 0.90625, 1.0, 0.84375, 0.9375],
            [1.019289, -1.427005, -0.203858, -1.019289, 0.203858, 1.427005, -0.611573, 0.611573],
        ),
    ],
    ids=["mixed", "all right"],
)
def test_vectors(make, correct, rewards, advantages):
    rollout = make(correct)
    pipeline = BonusPipeline([Unlikeliness()], [WeightSchedule()])
    (column,) = pipeline.reward_values(pipeline.score(rollout), 8)
    near(rollout.correct + column, rewards)
    near(reward_advantages(torch.stack([rollout.correct, column], 1), torch.ones(2), 8, "group"), advantages)


def test_ranks_of_the_vectors_and_mean_ranks_of_ties():
    every = torch.ones(1, 8, dtype=torch.bool)
    assert mean_ranks(torch.tensor([LOGPS]), every).tolist() == [[1, 7, 4, 6, 3, 0, 5, 2]]
    values = torch.tensor([[-3.0, -1.0, -1.0, -2.0, -1.0]])
    assert mean_ranks(values, every[:, :5]).tolist() == [[0, 3, 3, 1, 3]]
    assert mean_ranks(values, torch.tensor([[True, True, False, True, False]]))[0, [0, 1, 3]].tolist() == [0, 2, 1]


def test_the_same_text_gets_the_same_though_rounding_parts_its_likelihoods(make):
    logps = [-0.5, -0.50001, -0.9, -0.3]
    scores = Unlikeliness(1.0).score(make([1] * 4, logps, ["same", "same", "rare", "common"]))
    near(scores, [-1.5 / 4, -1.5 / 4, 0.0, -3 / 4])
    near(Unlikeliness(1.0).score(make([1] * 4, logps)), [-2 / 4, -1 / 4, 0.0, -3 / 4])


def test_at_the_level_of_the_advantage_right_answers_are_compared_with_each_other(make):
    (bonus,) = build_bonuses(IntrinsicOptions(use_ir="unlikely"))
    pipeline, rollout = BonusPipeline([bonus], [WeightSchedule()]), make()
    near(pipeline.join(torch.zeros(8), pipeline.score(rollout), rollout), [0.09375, -0.09375, 0.0] + [0.0] * 5)
    alone = make([1] + [0] * 7)
    assert not pipeline.join(torch.zeros(8), pipeline.score(alone), alone).any()


def test_completions_without_tokens_have_no_rank_and_broken_ones_go_to_the_guard(make):
    rollout = make()
    rollout.completion_mask[3] = False  # a wrong answer, the second likeliest
    near(Unlikeliness().score(rollout)[:3], [-0.03125, -0.1875, -0.125])
    rollout.features["logps"][0] = torch.nan
    assert Unlikeliness().score(rollout).isnan().tolist() == [True] + [False] * 7


def test_unlikeliness_of_right_answers_is_logged(make):
    assert Unlikeliness().update(make())["unlikely_right"] == pytest.approx(1 - 4 / 7)
    assert Unlikeliness().update(make([0] * 8)) == {}


@pytest.mark.parametrize(("name", "measured"), [("unlikely", "unlikely_right"), ("rarity", "clusters")])
@pytest.mark.parametrize("climbs", [False, True])
def test_losing_less_because_less_is_right_is_no_optimisation_of_the_bonus(name, measured, climbs):
    """The watchdog looks at what a policy could climb, not at a loss that shrinks with the number of right answers."""
    history, noise = History(), [0.01, -0.01]
    for step in range(1, 61):
        right = 0.8 - 0.01 * step + noise[step % 2]
        kept = 1.0 + (0.02 * step if climbs else 0.0) + noise[step % 2]
        raw = {f"ir/{name}/raw": -right, f"ir/{name}/{measured}": kept, f"ir/{name}/weight": 1.0}
        history.add({"step": step, ACCURACY: right} | raw)
    assert (bonus_against_accuracy(history, Thresholds(), name) is not None) is climbs


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_bad_beta_is_refused(beta):
    with pytest.raises(UserError, match=f"--unlikely_beta={beta} must be between 0 and 1"):
        Unlikeliness(beta)


def test_flag_arrives():
    assert Unlikeliness.from_options(UnlikelyFlags(0.5)).identity() == {"name": "unlikely", "unlikely_beta": 0.5}
    assert Unlikeliness.from_options(UnlikelyFlags()).identity() == Unlikeliness().identity()
