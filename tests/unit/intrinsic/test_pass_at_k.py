"""Pass@k training: closed form against all subsets, spec vectors, replacement of the advantage, refused settings."""

import math
from fractions import Fraction
from itertools import combinations

import pytest
import torch

from common.errors import UserError
from intrinsic.base import WeightSchedule
from intrinsic.pass_at_k import PassAtK, passk_advantages, share_without
from intrinsic.pipeline import BonusPipeline, reward_advantages


def by_enumeration(n, c, k):
    """Advantages of a right and a wrong completion: mean over the sets of k that hold it of the set's z-score."""
    right = [index < c for index in range(n)]
    sets = list(combinations(range(n), k))
    rewards = torch.tensor([float(any(right[index] for index in chosen)) for chosen in sets], dtype=torch.float64)
    scores = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-6)

    def mean_of(completion):
        return scores[[completion in chosen for chosen in sets]].mean().item()

    return mean_of(0), mean_of(n - 1)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_closed_form_is_the_mean_over_all_sets(n):
    for k in range(1, n):
        for c in range(1, n):
            assert passk_advantages(n, c, k) == pytest.approx(by_enumeration(n, c, k), abs=1e-9), (c, k)


@pytest.mark.parametrize(
    "n, c, k, expected",
    [
        (4, 1, 2, (1.0, -0.333333)),
        (4, 2, 2, (0.447212, -0.447212)),
        (8, 2, 4, (0.522232, -0.174077)),
        (8, 1, 4, (1.0, -0.142857)),
        (8, 4, 1, (1.0, -1.0)),
        (4, 3, 2, (0.0, 0.0)),
        (4, 0, 2, (0.0, 0.0)),
        (8, 0, 4, (0.0, 0.0)),
    ],
)
def test_c3_vectors(n, c, k, expected):
    assert passk_advantages(n, c, k) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("n, c, k, rho", [(4, 1, 2, 0.5), (4, 2, 2, 0.833333), (8, 2, 4, 0.785714)])
def test_c3_share_of_sets_with_a_right_answer(n, c, k, rho):
    assert 1 - share_without(n, c, k) == pytest.approx(rho, abs=1e-6)


@pytest.mark.parametrize("k", [1, 2, 4, 16, 32, 63])
def test_large_groups_are_finite_zero_sum_and_as_exact_as_fractions(k):
    n = 64
    for c in range(n + 1):
        right, wrong = passk_advantages(n, c, k)
        assert math.isfinite(right) and math.isfinite(wrong) and right >= 0 >= wrong
        assert c * right + (n - c) * wrong == pytest.approx(0, abs=1e-10)
        failing = Fraction(math.comb(n - c, k), math.comb(n, k))
        if 0 < failing < 1:
            exact = float(failing) / (math.sqrt(float(failing * (1 - failing))) + 1e-6)
            assert right == pytest.approx(exact, rel=1e-12)


def test_k_of_one_is_grpo_with_the_population_deviation():
    for c in range(1, 8):
        verdicts = torch.tensor([1.0] * c + [0.0] * (8 - c), dtype=torch.float64)
        scores = (verdicts - verdicts.mean()) / (verdicts.std(correction=0) + 1e-6)
        assert passk_advantages(8, c, 1) == pytest.approx((scores[0].item(), scores[-1].item()), abs=1e-9)


def test_right_answers_of_rarely_solved_problems_are_worth_more():
    worth = [passk_advantages(8, c, 4)[0] for c in range(1, 6)]
    assert worth == sorted(worth, reverse=True) and worth[-1] == 0.0


# ---- the bonus


@pytest.fixture
def make(rollout_factory):
    def build(correct, num_generations=None, **fields):
        return rollout_factory([f"text {row}" for row in range(len(correct))], correct, None, num_generations, **fields)

    return build


def test_each_group_gets_its_own_advantages_by_verdict(make):
    rollout = make([1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0], num_generations=4)
    third, half = 1 / 3, 0.447212
    expected = torch.tensor([1, -third, -third, -third, -half, half, half, -half, 0, 0, 0, 0])
    score = PassAtK(2).score(rollout)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "correct, k",
    [([1.0], 1), ([0.0], 1), ([1.0], 2), ([1, 1, 1, 1], 2), ([0, 0, 0, 0], 2), ([1, 1, 1, 0], 2), ([1, 0], 2)],
)
def test_no_difference_between_sets_gives_zeros(make, correct, k):
    """Groups of one, all-right and all-wrong ones, fewer than k wrong answers, a single set, fewer than k in all."""
    assert PassAtK(k).score(make(correct)).tolist() == [0.0] * len(correct)


def test_texts_and_tokens_do_not_matter(rollout_factory):
    """Identical responses, an empty one and a row that is all padding: the verdict decides."""
    rollout = rollout_factory(["same", "same", "", "same"], [1, 0, 0, 0])
    rollout.completion_mask[2] = False
    torch.testing.assert_close(PassAtK(2).score(rollout), torch.tensor([1, -1 / 3, -1 / 3, -1 / 3]), atol=1e-5, rtol=0)


def test_replaces_the_group_advantage(make):
    rollout = make([1, 0, 0, 0])
    pipeline = BonusPipeline([PassAtK(2)], [WeightSchedule()])
    grpo = reward_advantages(rollout.correct[:, None], torch.ones(1), 4, "group")
    scored = pipeline.score(rollout)
    joined = pipeline.join(grpo + 7.0, scored, rollout)
    torch.testing.assert_close(joined, PassAtK(2).score(rollout))
    per_token = pipeline.join(grpo[:, None].expand(4, 6), scored, rollout)
    torch.testing.assert_close(per_token, PassAtK(2).score(rollout)[:, None].expand(4, 6))


def test_announces_that_it_replaces():
    assert PassAtK.replaces and PassAtK.placement == "advantage"


def test_batch_figures(make):
    metrics = PassAtK(2).update(make([1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0], num_generations=4))
    assert metrics["groups_with_signal"] == 0.5
    assert metrics["pass_at_k"] == pytest.approx((0.5 + 5 / 6 + 0 + 1) / 4)
    assert PassAtK(2).update(make([1, 0])) == {"groups_with_signal": 0.0, "largest": 0.0, "pass_at_k": 1.0}
    assert PassAtK(2).update(make([1.0])) == {"groups_with_signal": 0.0, "largest": 0.0}


@pytest.mark.parametrize("k", [4, 5, 64])
def test_k_not_below_the_group_size_is_refused(k):
    with pytest.raises(UserError, match=rf"--passk_k={k} .*--num_generations=4"):
        PassAtK(k).check(num_generations=4, max_completion_length=64)


def test_k_below_the_group_size_is_accepted():
    PassAtK(3).check(num_generations=4, max_completion_length=64)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(k):
    with pytest.raises(UserError, match=f"--passk_k={k} must be at least 1"):
        PassAtK(k)


def test_settings_are_part_of_the_identity():
    assert PassAtK(3).identity() == {"name": "passk", "passk_k": 3} != PassAtK(2).identity()


def test_flag_arrives():
    from intrinsic.flags.objective import PassAtKFlags

    assert PassAtK.from_options(PassAtKFlags(passk_k=5)).k == 5
    assert PassAtK.from_options(PassAtKFlags()).identity() == PassAtK().identity()
