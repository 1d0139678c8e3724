"""Entropy-based advantage shaping: spec vectors, the cap, padding, edge cases, the log."""

import math
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from intrinsic.base import WeightSchedule
from intrinsic.entropy_advantage import EntropyAdvantage
from intrinsic.flags.policy import EntropyAdvantageFlags
from intrinsic.pipeline import BonusPipeline


@pytest.fixture
def make(rollout_factory):
    """A rollout whose completions have these token entropies, rows of any length."""

    def build(entropies, correct=None):
        rollout = rollout_factory(["x"] * len(entropies), correct or [0.0] * len(entropies))
        width = max(1, *map(len, entropies))
        rollout.completion_mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in entropies])
        rollout.features = {"entropy": torch.tensor([row + [0.0] * (width - len(row)) for row in entropies])}
        return rollout

    return build


def join(bonus, advantages, rollout, weight=1.0, clip=5.0):
    """The advantages (B, T) that the pipeline makes of ``advantages``."""
    pipeline = BonusPipeline([bonus], [WeightSchedule(weight)], clip)
    return pipeline.join(torch.tensor(advantages), pipeline.score(rollout), rollout)


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-6, rtol=0)


# ---- the quantity


@pytest.mark.parametrize(
    "advantage, entropy, shaped", [(1.0, 1.0, 1.4), (1.0, 2.0, 1.5), (-1.0, 1.0, -0.6), (-1.0, 3.0, -0.5)]
)
def test_c5_shaped_advantage(make, advantage, entropy, shaped):
    close(join(EntropyAdvantage(alpha=0.4, kappa=2.0), [advantage], make([[entropy]])), [[shaped]])


def test_tokens_of_one_completion_differ_by_their_entropy(make):
    joined = join(EntropyAdvantage(), [1.0, -1.0], make([[0.0, 0.5, 3.0], [0.0, 0.5, 3.0]]))
    close(joined, [[1.0, 1.2, 1.5], [-1.0, -0.8, -0.5]])


def test_no_verdict_difference_no_bonus(make):
    """All-right and all-wrong groups have advantages of 0, and keep them."""
    assert not join(EntropyAdvantage(), [0.0, 0.0], make([[1.0, 2.0], [3.0, 0.5]])).any()


@pytest.mark.parametrize("weight", [0.5, 1.0, 100.0, -100.0])
def test_no_weight_turns_an_advantage_round(make, weight):
    advantages = [1.0, -1.0, 0.01, -0.01]
    joined = join(EntropyAdvantage(kappa=1.5), advantages, make([[4.0]] * 4), weight)
    assert joined[:, 0].sign().tolist() == [1.0, -1.0, 1.0, -1.0]


def test_the_weight_scales_alpha_and_not_the_cap(make):
    joined = join(EntropyAdvantage(), [1.0, 1.0], make([[1.0], [3.0]]), weight=0.5)
    close(joined, [[1.2], [1.5]])


def test_the_cap_is_that_of_the_advantage_as_joined_so_far(make):
    from intrinsic.self_certainty import SelfCertainty

    rollout = make([[4.0], [4.0]])
    rollout.features["self_certainty"] = torch.tensor([[1.0], [2.0]])
    first, second = SelfCertainty(), EntropyAdvantage()
    pipeline = BonusPipeline([first, second], [WeightSchedule(), WeightSchedule()])
    joined = pipeline.join(torch.zeros(2), pipeline.score(rollout), rollout)
    certainty = first.score(rollout)
    assert certainty.abs().min() > 0
    torch.testing.assert_close(joined[:, 0], certainty + certainty.abs() / 2)


# ---- edge cases


def test_padding_has_no_entropy_and_keeps_its_advantage(make):
    rollout = make([[1.0, 1.0], [1.0], []])
    rollout.features["entropy"][~rollout.completion_mask] = 7.0
    assert EntropyAdvantage().score(rollout).tolist() == [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    close(join(EntropyAdvantage(), [1.0, 1.0, 1.0], rollout), [[1.4, 1.4], [1.4, 1.0], [1.0, 1.0]])


def test_one_completion_alone_and_identical_ones(make):
    close(join(EntropyAdvantage(), [-1.0], make([[1.0]])), [[-0.6]])
    close(join(EntropyAdvantage(), [0.0, 0.0], make([[1.0], [1.0]])), [[0.0], [0.0]])


def test_no_gradient_flows_and_half_precision_is_widened(make):
    rollout = make([[1.0, 2.0]])
    rollout.features["entropy"] = rollout.features["entropy"].bfloat16().requires_grad_()
    score = EntropyAdvantage().score(rollout)
    assert score.dtype == torch.float32 and score.shape == (1, 2) and not score.requires_grad


def test_value_that_is_not_finite_reaches_the_guard(make):
    rollout = make([[1.0, math.nan, 1.0]])
    (scored,) = BonusPipeline([EntropyAdvantage()], [WeightSchedule()]).score(rollout)
    assert scored.nonfinite == 1 and scored.total.tolist() == [[1.0, 0.0, 1.0]]


# ---- flags, log


def test_built_from_its_flags_and_told_apart_on_resume():
    identity = EntropyAdvantage.from_options(EntropyAdvantageFlags()).identity()
    assert identity == {"name": "entropy-adv", "entropy_adv_alpha": 0.4, "entropy_adv_kappa": 2.0}
    options = SimpleNamespace(entropy_adv_alpha=0.1, entropy_adv_kappa=3.0)
    identity = EntropyAdvantage.from_options(options).identity()
    assert identity == {"name": "entropy-adv", "entropy_adv_alpha": 0.1, "entropy_adv_kappa": 3.0}


@pytest.mark.parametrize("settings", [{"alpha": -0.1}, {"alpha": math.inf}, {"kappa": 1.0}, {"kappa": math.nan}])
def test_bad_settings_are_refused_with_flag_and_value(settings):
    ((name, value),) = settings.items()
    with pytest.raises(UserError, match=f"--entropy_adv_{name}={value}"):
        EntropyAdvantage(**settings)


def test_logs_entropy_by_verdict_and_how_much_of_it_the_cap_cuts(make):
    logged = EntropyAdvantage().update(make([[1.0, 2.0], [0.5], []], correct=[1.0, 0.0, 1.0]))
    expected = {"entropy": 1.0, "entropy_right": 1.5, "entropy_wrong": 0.5, "above_unit_cap": 1 / 3}
    assert logged == pytest.approx(expected)


def test_nothing_is_logged_of_what_a_batch_does_not_hold(make):
    assert EntropyAdvantage().update(make([[]])) == {}
    assert EntropyAdvantage().update(make([[1.0]])).keys() == {"entropy", "entropy_wrong", "above_unit_cap"}


# ---- in the trainer


def test_the_loss_sees_shaped_advantages_per_token(trainer_factory):
    trainer = trainer_factory([EntropyAdvantage()], [WeightSchedule()], max_steps=1)
    seen = []
    join_bonuses = trainer.bonuses.join
    trainer.bonuses.join = lambda *given: seen.append((given[0], join_bonuses(*given), given[2])) or seen[-1][1]
    trainer.train()
    ((before, joined, rollout),) = seen
    mask = rollout.completion_mask
    before = before[:, None].expand_as(joined)
    assert before.any() and (joined[mask] >= before[mask]).all()
    torch.testing.assert_close(
        joined - before, torch.minimum(0.4 * rollout.features["entropy"] * mask, before.abs() / 2)
    )
    assert 0 < trainer.state.log_history[0]["ir/entropy-adv/share_of_advantage"] <= 1 / 3 + 1e-6
