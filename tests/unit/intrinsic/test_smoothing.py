"""Differential smoothing: its vectors, which groups it pays, and what is refused."""

import pytest
import torch

from common.errors import UserError
from intrinsic.base import WeightSchedule
from intrinsic.flags.rarity import SmoothFlags
from intrinsic.pipeline import BonusPipeline, reward_advantages
from intrinsic.smoothing import DifferentialSmoothing

RIGHT = [1, 1, 1, 0, 0, 0, 0, 0]
LOGPS = torch.tensor([-0.9, -0.2, -0.5, -0.3, -0.6, -1.2, -0.4, -0.8])


@pytest.fixture
def make(rollout_factory):
    def build(correct=RIGHT, **fields):
        rollout = rollout_factory([f"text {row}" for row in range(len(correct))], correct, **fields)
        rollout.features["logps"] = LOGPS.repeat(len(correct) // 8)[:, None] * rollout.completion_mask
        return rollout

    return build


def test_vectors(make):
    rollout = make()
    pipeline = BonusPipeline([DifferentialSmoothing()], [WeightSchedule()])
    scored = pipeline.score(rollout)
    expected = torch.tensor([0.045, 0.01, 0.025, -0.015, -0.03, -0.06, -0.02, -0.04])
    torch.testing.assert_close(scored[0].total, expected, atol=2e-6, rtol=0)
    plain = reward_advantages(rollout.correct[:, None], torch.ones(1), 8, "group")
    expected = [1.252381, 1.217381, 1.232381, -0.739429, -0.754429, -0.784429, -0.744429, -0.764429]
    torch.testing.assert_close(pipeline.join(plain, scored, rollout), torch.tensor(expected), atol=2e-6, rtol=0)


def test_each_side_has_its_own_coefficient(make):
    scores = DifferentialSmoothing(right=0.0, wrong=1.0).score(make())
    torch.testing.assert_close(scores, torch.cat([torch.zeros(3), LOGPS[3:]]))


def test_mixed_leaves_groups_of_equal_verdicts_alone(make):
    rollout = make([1] * 8 + [0] * 8 + RIGHT, num_generations=8)
    every, mixed = (DifferentialSmoothing(mixed=mixed) for mixed in (False, True))
    assert every.score(rollout).all()
    assert not mixed.score(rollout)[:16].any() and torch.equal(mixed.score(rollout)[16:], every.score(rollout)[16:])


def test_a_completion_without_tokens_gets_nothing_and_a_broken_one_goes_to_the_guard(make):
    rollout = make()
    rollout.completion_mask[0] = False
    rollout.features["logps"][1] = torch.nan
    scores = DifferentialSmoothing().score(rollout)
    assert scores[0] == 0 and scores.isnan().tolist() == [False, True] + [False] * 6
    assert set(DifferentialSmoothing().update(rollout)) == {"logp_right", "logp_wrong"}
    assert DifferentialSmoothing().update(rollout)["logp_right"] == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("settings", "flag"), [({"right": -0.1}, "smooth_right=-0.1"), ({"wrong": float("inf")}, "smooth_wrong=inf")]
)
def test_bad_coefficients_are_refused(settings, flag):
    with pytest.raises(UserError, match=f"--{flag} must be a finite number, at least 0"):
        DifferentialSmoothing(**settings)


def test_flags_arrive():
    identity = DifferentialSmoothing.from_options(SmoothFlags(0.1, 0.2, True)).identity()
    assert identity == {"name": "smooth", "smooth_right": 0.1, "smooth_wrong": 0.2, "smooth_mixed": True}
    assert DifferentialSmoothing.from_options(SmoothFlags()).identity() == DifferentialSmoothing().identity()
