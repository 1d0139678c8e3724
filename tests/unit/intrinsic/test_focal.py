"""Difficulty-focal weighting: vectors, what it multiplies and what it leaves, refused settings."""

import math

import pytest
import torch

from common.errors import UserError
from intrinsic import build_bonuses
from intrinsic.base import Bonus, WeightSchedule
from intrinsic.flags.objective import FocalFlags
from intrinsic.focal import Focal
from intrinsic.options import IntrinsicOptions
from intrinsic.pipeline import BonusPipeline
from tests.unit.intrinsic.objective_cases import GROUP, paid

HALF, Z = math.sqrt(5 / 8), (1.207381, -0.724429)  # factor at gamma .5, and TRL's z, of `GROUP`


@pytest.fixture
def group(rollout_factory):
    return rollout_factory([str(row) for row in range(8)], GROUP)


def by_verdict(right, wrong):
    return torch.tensor([right] * 3 + [wrong] * 5)


def test_vectors(group):
    torch.testing.assert_close(paid(Focal(0.5), group), by_verdict(0.954519, -0.572711), atol=1e-6, rtol=0)
    torch.testing.assert_close(paid(Focal(0.0), group), by_verdict(*Z), atol=1e-6, rtol=0)
    squared = (5 / 8) ** 2
    torch.testing.assert_close(paid(Focal(2.0), group), by_verdict(Z[0] * squared, Z[1] * squared), atol=1e-6, rtol=0)


def test_the_weight_goes_from_plain_grpo_to_the_method_and_never_turns_an_advantage_round(group):
    between = 0.5 + 0.5 * HALF
    torch.testing.assert_close(
        paid(Focal(0.5), group, 0.5), by_verdict(Z[0] * between, Z[1] * between), atol=1e-6, rtol=0
    )
    assert (paid(Focal(0.5), group, 9.0) == 0).all()  # 1 - 9 (1 - factor) is negative


class Adds(Bonus):
    name, placement = "adds", "advantage"

    def score(self, rollout):
        return torch.ones(len(rollout))


class Replaces(Adds):
    name, replaces = "replaces", True

    def combine(self, advantages, scores, rollout):
        return 2.0 * scores


def test_it_multiplies_what_replaces_and_leaves_what_is_added_whatever_the_order(group):
    for bonuses in ([Adds(), Focal(0.5), Replaces()], [Replaces(), Adds(), Focal(0.5)]):
        pipeline = BonusPipeline(bonuses, [WeightSchedule()] * 3)
        assert [bonus.name for bonus in pipeline.bonuses] == ["replaces", "focal", "adds"]
        joined = pipeline.join(torch.zeros(8), pipeline.score(group), group)
        torch.testing.assert_close(joined, torch.full((8,), 2 * HALF + 1))


def test_tokens_are_multiplied_alike(group):
    pipeline = BonusPipeline([Focal(0.5)], [WeightSchedule()])
    joined = pipeline.join(torch.ones(8, 6), pipeline.score(group), group)
    torch.testing.assert_close(joined, torch.full((8, 6), HALF))


def test_the_factor_is_logged_over_groups_with_both_verdicts(rollout_factory):
    texts = [str(row) for row in range(8)]
    mixed = rollout_factory(texts, [1, 0, 0, 0, 1, 1, 1, 1], num_generations=4)
    assert Focal(1.0).update(mixed) == {"factor": 0.75}
    assert Focal(1.0).update(rollout_factory(texts, [1] * 8, num_generations=4)) == {}


def test_no_control_can_stand_for_it():
    for use_ir in ("shuffle:focal", "focal,noise"):
        with pytest.raises(UserError, match="one factor for a whole group"):
            build_bonuses(IntrinsicOptions(use_ir=use_ir))


@pytest.mark.parametrize("gamma", [-0.5, math.nan, math.inf])
def test_a_gamma_out_of_range_is_refused(gamma):
    with pytest.raises(UserError, match=f"--focal_gamma={gamma} must be a finite number, at least 0"):
        Focal(gamma)


def test_flag_arrives_and_is_part_of_the_identity():
    assert Focal.from_options(FocalFlags(focal_gamma=1.0)).identity() == {"name": "focal", "focal_gamma": 1.0}
    assert Focal.from_options(FocalFlags()).identity() == Focal().identity()
