"""CDE's actor bonus: spec vectors, cap, decay, whom it may pay, edge cases, what is logged."""

import math
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from intrinsic.base import WeightSchedule
from intrinsic.flags.policy import PerplexityFlags
from intrinsic.perplexity import Perplexity, omega
from intrinsic.pipeline import BonusPipeline

FULL = {"decay": "staircase", "until": 0.9}  # omega is 1 at the fixture's step 10 of 20


@pytest.fixture
def make(rollout_factory):
    """A rollout with these rewards, whose completions have these token log-probabilities, rows of any length."""

    def build(rewards, logps, correct=None, num_generations=None, **fields):
        correct = correct or [float(reward > 0) for reward in rewards]
        rollout = rollout_factory(["x"] * len(rewards), correct, num_generations=num_generations, **fields)
        width = max(1, *map(len, logps))
        rollout.completion_mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in logps])
        rollout.features = {"logps": torch.tensor([row + [0.0] * (width - len(row)) for row in logps])}
        rollout.rewards = torch.tensor(rewards)
        return rollout

    return build


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-6, rtol=0)


# ---- the quantity


@pytest.mark.parametrize(
    "reward, nll, total",
    [
        (1.0, 0.2, 1.2),
        (1.0, 1.166667, 1.333333),
        (0.0, 1.166667, 0.0),
        (-1.0, 0.1, -0.9),
        (-1.0, 1.166667, -0.666667),
    ],
)
def test_c2_capped_bonus_beside_the_reward(make, reward, nll, total):
    close(reward + Perplexity(**FULL).score(make([reward], [[-nll]])), [total])


def test_surprise_is_the_mean_over_tokens_and_not_over_padding(make):
    rollout = make([1.0, 1.0], [[-0.1, -0.2, -0.3], [-0.1]])
    rollout.features["logps"][~rollout.completion_mask] = -9.0
    close(Perplexity(**FULL).score(rollout), [0.2, 0.1])


def test_alpha_scales_the_surprise_and_kappa_the_cap(make):
    rollout = make([2.0, 2.0], [[-0.1], [-5.0]])
    close(Perplexity(kappa=4.0, alpha=3.0, **FULL).score(rollout), [0.3, 0.5])


def test_no_reward_changes_its_sign(make):
    rewards = [-1.0, -0.2, 0.5, 1.5]
    rollout = make(rewards, [[-50.0]] * 4)
    paid = torch.tensor(rewards) + Perplexity(kappa=1.01, **FULL).score(rollout)
    assert (paid.sign() == torch.tensor(rewards).sign()).all()


# ---- the decay


@pytest.mark.parametrize(
    "decay, weights",
    [
        ("staircase", [1.0, 1.0, 1.0, 0.0, 0.0]),
        ("linear", [1.0, 2 / 3, 1 / 3, 0.0, 0.0]),
        ("cosine", [1.0, 0.75, 0.25, 0.0, 0.0]),
    ],
)
def test_omega_falls_to_nothing_at_its_share_of_training(decay, weights):
    assert [omega(progress, decay, 0.75) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx(weights)


def test_the_bonus_follows_omega_by_the_rollouts_step(make):
    bonus = Perplexity(decay="linear", until=1.0)
    paid = [bonus.score(make([1.0], [[-0.2]], step=step, max_steps=20)).item() for step in (0, 5, 20)]
    assert paid == pytest.approx([0.2, 0.15, 0.0])


@pytest.mark.parametrize("decay, until", [("none", 0.5), ("constant", 0.5), ("staircase", 1.0)])
def test_a_bonus_that_never_ends_is_refused(decay, until):
    with pytest.raises(UserError, match="--ppl_(decay|until)"):
        Perplexity(decay=decay, until=until)


def test_after_the_staircase_groups_without_verdict_differences_are_left_alone(make):
    """While omega is above 0, however small, group scaling makes a full-sized advantage of it in an all-right group."""
    late = make([1.0, 1.0], [[-0.1], [-0.3]], step=15, max_steps=20)
    assert not Perplexity().score(late).any()
    assert Perplexity(decay="cosine", until=1.0).score(late).std() > 0


# ---- whom it pays, and edge cases


def test_wrong_answers_get_nothing_under_a_verdict_of_zero_or_one(make):
    rollout = make([0.0, 0.0, 0.0], [[-0.1], [-0.5], [-3.0]])
    assert Perplexity(**FULL).score(rollout).tolist() == [0.0] * 3
    assert not Perplexity(**FULL).eligible(rollout).any()


def test_may_pay_completions_with_tokens_and_a_reward(make):
    rollout = make([1.0, 0.0, -1.0, 1.0], [[-0.1], [-0.1], [-0.1], []])
    assert Perplexity().eligible(rollout).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    "logps, expected",
    [([[-0.2]], [0.2]), ([[-0.2], [-0.2]], [0.2, 0.2]), ([[], [-0.2]], [0.0, 0.2]), ([[], []], [0.0, 0.0])],
    ids=["alone", "identical", "one without tokens", "all padding"],
)
def test_groups_of_one_identical_and_empty_completions(make, logps, expected):
    close(Perplexity(**FULL).score(make([1.0] * len(logps), logps)), expected)


def test_all_right_groups_are_ranked_by_surprise(make):
    score = Perplexity(**FULL).score(make([1.0] * 3, [[-0.1], [-0.3], [-0.2]]))
    assert score.argsort().tolist() == [0, 2, 1]


@pytest.mark.parametrize("broken", [-math.inf, math.nan])
def test_value_that_is_not_finite_reaches_the_guard_despite_the_cap(make, broken):
    bonus, rollout = Perplexity(**FULL), make([1.0, 1.0, 1.0], [[-0.1], [broken], [-0.2]])
    assert bonus.score(rollout).isnan().tolist() == [False, True, False]
    (scored,) = BonusPipeline([bonus], [WeightSchedule()]).score(rollout)
    assert scored.nonfinite == 1
    close(scored.total, [0.1, 0.0, 0.2])


def test_no_gradient_flows_and_half_precision_is_widened(make):
    rollout = make([1.0], [[-0.25]])
    rollout.features["logps"] = rollout.features["logps"].bfloat16().requires_grad_()
    score = Perplexity(**FULL).score(rollout)
    assert score.dtype == torch.float32 and not score.requires_grad


# ---- flags, log


def test_built_from_its_flags_and_told_apart_on_resume():
    identity = Perplexity.from_options(PerplexityFlags()).identity()
    assert identity == {"name": "ppl", "ppl_kappa": 3.0, "ppl_alpha": 1.0, "ppl_decay": "staircase", "ppl_until": 0.5}
    options = SimpleNamespace(ppl_kappa=2.0, ppl_alpha=0.5, ppl_decay="cosine", ppl_until=1.0)
    identity = Perplexity.from_options(options).identity()
    assert identity == {"name": "ppl", "ppl_kappa": 2.0, "ppl_alpha": 0.5, "ppl_decay": "cosine", "ppl_until": 1.0}


@pytest.mark.parametrize(
    "settings",
    [{"kappa": 0.0}, {"kappa": math.inf}, {"alpha": -1.0}, {"alpha": math.nan}, {"decay": "step"}, {"until": 0.0}]
    + [{"until": 1.5}],
)
def test_bad_settings_are_refused_with_flag_and_value(settings):
    ((name, value),) = settings.items()
    with pytest.raises(UserError, match=f"--ppl_{name}=.*{value}"):
        Perplexity(**settings)


def test_logs_surprise_by_verdict_cap_and_calibration(make):
    rollout = make([1.0, 1.0, 0.0, 1.0], [[-0.2], [-0.35], [-0.4], []], correct=[1.0, 1.0, 0.0, 1.0])
    logged = Perplexity(**FULL).update(rollout)
    expected = {"nll": 0.95 / 3, "nll_right": 0.275, "nll_wrong": 0.4, "right_more_likely": 1.0, "capped": 0.5}
    assert logged == pytest.approx({"omega": 1.0} | expected)


def test_nothing_is_logged_of_what_a_batch_does_not_hold(make):
    assert Perplexity().update(make([0.0], [[]])).keys() == {"omega"}
    assert Perplexity().update(make([0.0], [[-1.0]])).keys() == {"omega", "nll", "nll_wrong"}


# ---- in the trainer


def test_is_a_reward_column_that_counts_on_top_of_the_verdict(trainer_factory):
    bonus = Perplexity(alpha=0.01, **FULL)
    trainer = trainer_factory([bonus], [WeightSchedule()], max_steps=1)
    trainer.train()
    rollout, logged = trainer._rollout, trainer.state.log_history[0]
    mask = rollout.completion_mask
    nll = -(rollout.features["logps"] * mask).sum(dim=1) / mask.sum(dim=1)
    expected = torch.where(rollout.correct > 0.5, 0.01 * nll, 0.0)
    assert expected.any() and (0.01 * nll < 1 / 3).all()
    assert logged["rewards/ir_ppl/mean"] == pytest.approx(expected.mean().item(), abs=1e-6)
    assert logged["reward"] == pytest.approx((rollout.correct + expected).mean().item(), abs=1e-6)
