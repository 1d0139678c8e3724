"""Pseudo-counts against the vectors M1-M3, M9-M13 and C1 of their specification, and the replay behind them."""

import math

import pytest
import torch

from intrinsic.parts.coin_flip import (
    MOMENTS_VARIANCE,
    CoinFlipCounts,
    RunningMoments,
    VisitReplay,
    coin_variance,
    rademacher,
    replay_priority,
)
from intrinsic.parts.elliptical import EllipticalCounts
from intrinsic.parts.networks import mlp
from intrinsic.parts.states import StateScale, TokenStates

VISITS = [1, 2, 4, 8, 16, 32, 64]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tolerance(visits, coins, draws):
    """Four standard errors of the mean of ``draws`` coin variances, from Var[v] = 2 (n - 1) / (n^3 d)."""
    return 4 * math.sqrt(2 * (visits - 1) / (visits**3 * coins * draws)) + 1e-6


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=atol, rtol=0)


def test_m1_mean_of_orthogonal_coins_is_one_over_visits():
    coins = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    assert [coin_variance(coins[:n].mean(dim=0)).item() for n in (1, 2, 4)] == [1.0, 0.5, 0.25]
    assert coin_variance(torch.tensor([[1.0, -1, 1, 1], [1, 1, -1, 1]]).mean(dim=0)) == 0.5


def test_m2_one_visit_and_an_untrained_head_have_variance_one():
    assert (coin_variance(rademacher(50, 20, seeded())) == 1.0).all()
    counts = CoinFlipCounts(3, "cpu", dim=4, widths=(5,))
    counts.moments.normalize = lambda values: values
    assert coin_variance(counts.outputs(torch.randn(1, 3), priors=torch.tensor([[1.0, -1, 1, -1]]))) == 1.0


def test_m3_priority_falls_with_draws_and_rises_with_variance():
    close(replay_priority(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([1.0, 0.25, 0.04])), [0.75, 0.25, 0.07])


def test_m9_coins_are_fair_and_independent():
    for visits in VISITS:
        coins = rademacher(2000 * visits, 20, seeded(visits)).view(2000, visits, 20)
        mean = coin_variance(coins.mean(dim=1)).mean().item()
        assert abs(mean - 1 / visits) < tolerance(visits, 20, 2000)


def test_m10_tabular_least_squares_counts():
    states = torch.repeat_interleave(torch.eye(len(VISITS)), torch.tensor(VISITS), dim=0)
    found = torch.stack(
        [
            coin_variance(torch.linalg.lstsq(states, rademacher(len(states), 20, seeded(seed))).solution)
            for seed in range(50)
        ]
    ).mean(dim=0)
    for value, visits in zip(found.tolist(), VISITS, strict=True):
        assert abs(value - 1 / visits) < tolerance(visits, 20, 50)


def trained(seed, with_prior=True, passes=700):
    """Counts trained on exact repeats of 7 states, the 7 states and an unseen one, and the mean-coin variances."""
    distinct = torch.randn(len(VISITS) + 1, 64, generator=seeded(seed))
    states = torch.repeat_interleave(distinct[:-1], torch.tensor(VISITS), dim=0)
    counts = CoinFlipCounts(
        64, "cpu", widths=(128, 128), weight_decay=0.0, batch_size=len(states), passes=passes, replay=0, seed=seed
    )
    if not with_prior:
        for parameter in counts.prior.parameters():
            parameter.zero_()
    twin = torch.Generator()
    twin.set_state(counts.generator.get_state())
    coins = rademacher(len(states), 20, twin)
    counts.learn(states)
    means = torch.stack([own.mean(dim=0) for own in coins.split(VISITS)])
    with torch.no_grad():
        return coin_variance(counts.outputs(distinct)), coin_variance(means)


def test_m11_trained_network_reaches_the_mean_of_the_coins():
    found, empirical = trained(seed=0)
    torch.testing.assert_close(found[:-1], empirical, rtol=0.01, atol=0)


def test_m11_mean_over_seeds_falls_with_visits():
    mean = torch.stack([trained(seed, passes=100)[0][:-1] for seed in range(20)]).mean(dim=0)
    assert (mean.diff() < 0).all()
    for value, visits in zip(mean.tolist(), VISITS, strict=True):
        assert abs(value - 1 / visits) < tolerance(visits, 20, 20) + 0.05 / visits


@pytest.mark.parametrize(("with_prior", "unseen_is_novel"), [(True, True), (False, False)])
def test_m12_unseen_states_are_novel_and_would_not_be_without_the_prior(with_prior, unseen_is_novel):
    found = trained(seed=1, with_prior=with_prior)[0]
    assert (found[-1] > 0.8 * found[0]).item() is unseen_is_novel


def test_m13_linear_head_has_the_elliptical_variance_in_expectation():
    dim, ridge, coins = 4, 0.5, 200_000
    states, probe = torch.randn(10, dim, generator=seeded(3)), 0.4 * torch.randn(6, dim, generator=seeded(4))
    prior = torch.randn(dim, coins, generator=seeded(5)) / math.sqrt(ridge)
    labels = rademacher(len(states), coins, seeded(6))
    head = torch.linalg.solve(states.T @ states + ridge * torch.eye(dim), states.T @ (labels - states @ prior))
    counts = EllipticalCounts(dim, "cpu", ridge)
    counts.learn(states)
    torch.testing.assert_close(counts.variance(probe), coin_variance(probe @ (head + prior)), rtol=0.02, atol=0)


def test_m13_elliptical_variance_of_separate_states_is_one_over_visits():
    counts = EllipticalCounts(3, "cpu", ridge=1e-6)
    counts.learn(torch.repeat_interleave(torch.eye(3), torch.tensor([1, 2, 4]), dim=0))
    close(counts.variance(torch.eye(3)), [1.0, 0.5, 0.25], atol=1e-5)


def test_c1_elliptical_variance_of_a_group_together_and_one_by_one():
    group = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    together, online = EllipticalCounts(2, "cpu"), EllipticalCounts(2, "cpu")
    together.learn(group)
    close(together.variance(group), [1 / 3, 1 / 3, 0.5])
    assert together.variance(group).sum() < 2
    close(torch.cat([online.learn(row[None])[0] for row in group]), [1.0, 0.5, 1.0])


def test_elliptical_counts_stay_exact_after_many_visits():
    counts = EllipticalCounts(4, "cpu", ridge=1.0)
    frequent = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).repeat(1000, 1)
    for _ in range(100):
        counts.learn(frequent)
    close(counts.variance(torch.tensor([[0.0, 0, 0, 1], [0.5, -0.5, 0, 0]])), [1.0, 0.5], atol=1e-4)


def test_moments_do_not_depend_on_the_split_into_batches():
    values = torch.randn(40, 5, generator=seeded()) * 3 + 1
    whole, split = RunningMoments(5, "cpu"), RunningMoments(5, "cpu")
    whole.update(values)
    for part in values.split([1, 7, 2, 30]):
        split.update(part)
    torch.testing.assert_close(split.mean, whole.mean)
    torch.testing.assert_close(split.variance, whole.variance)
    spread = torch.cat([values, torch.zeros(1, 5)]).var(dim=0, correction=0) + MOMENTS_VARIANCE / 41
    torch.testing.assert_close(whole.variance, spread)


def test_network_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    CoinFlipCounts(6, "cpu", widths=(8,)).learn(torch.ones(9, 6))
    assert torch.equal(before, torch.random.get_rng_state())


def test_head_size_at_the_width_of_a_half_billion_model():
    head = mlp((896, 512, 20), seeded(), zero_last=True)
    assert sum(parameter.numel() for parameter in head.parameters()) == 469_524


def test_prior_stays_frozen_and_head_learns_also_without_gradients_around():
    counts = CoinFlipCounts(6, "cpu", widths=(8,))
    prior = {name: value.clone() for name, value in counts.prior.state_dict().items()}
    with torch.no_grad():
        counts.learn(torch.randn(30, 6, generator=seeded()))
    assert all(torch.equal(prior[name], value) for name, value in counts.prior.state_dict().items())
    assert counts.head[-1].weight.abs().max() > 0


def test_each_visit_draws_fresh_coins_and_replay_keeps_them():
    counts = CoinFlipCounts(6, "cpu", widths=(8,), replay=64)
    same = torch.ones(8, 6)
    counts.learn(same)
    first = counts.replay.coins[: len(counts.replay)].clone()
    counts.learn(same)
    assert torch.equal(counts.replay.coins[: len(first)], first)
    assert len(counts.replay.coins[: len(counts.replay)].unique(dim=0)) == len(counts.replay) == 16


def test_as_many_replayed_visits_as_new_ones_are_learnt_and_lose_priority():
    counts = CoinFlipCounts(6, "cpu", widths=(8,), batch_size=5, replay=160)
    counts.learn(torch.randn(20, 6, generator=seeded()))
    assert (counts.replay.priority[:20] == 1.0).all()
    counts.learn(torch.randn(10, 6, generator=seeded(1)))
    drawn = counts.replay.draws[:20] == 2.0
    assert drawn.sum() == 10 and torch.equal(counts.replay.priority[:20] < 0.75 + 1e-6, drawn)
    assert counts.optimizer.state_dict()["state"][0]["step"] == 4 + 4


def test_a_batch_fills_at_most_an_eighth_of_the_replay():
    counts = CoinFlipCounts(6, "cpu", widths=(8,), replay=64)
    counts.learn(torch.randn(100, 6, generator=seeded()))
    assert len(counts.replay) == 8


def test_replay_evicts_the_oldest_and_draws_by_priority():
    replay = VisitReplay(4, 1, 2, "cpu")
    for number in range(6):
        replay.insert(torch.full((1, 1), float(number)), torch.ones(1, 2), torch.zeros(1, 2))
    assert sorted(replay.states.flatten().tolist()) == [2.0, 3.0, 4.0, 5.0]
    replay.mark_used(torch.tensor([0]), torch.tensor([0.25]))
    close(replay.priority, [0.375, 1.0, 1.0, 1.0])
    close(replay.draws, [2.0, 1.0, 1.0, 1.0])
    replay.priority[:3] = 0.0
    assert replay.draw(1, seeded()).tolist() == [3]


def test_passes_over_a_batch_are_bounded():
    counts = CoinFlipCounts(6, "cpu", widths=(8,), batch_size=10, passes=1, replay=0)
    counts.learn(torch.randn(35, 6, generator=seeded()))
    assert counts.optimizer.state_dict()["state"][0]["step"] == 4


def test_standardised_states_do_not_move_with_later_batches_and_ignore_padding():
    hidden = torch.randn(2, 5, 3, generator=seeded()) * torch.tensor([1.0, 100.0, 0.01]) + 7
    present = torch.ones(2, 5, dtype=torch.bool)
    present[1, 3:] = False
    hidden[1, 3:] = 1e9
    states = TokenStates(hidden, present, StateScale.fit(hidden, present))
    assert len(states) == 8
    assert states[:].mean(dim=0).abs().max() < 1e-4
    assert 0.9 < states[:][:, 1].std(correction=0) < 1.0


def test_one_dimension_that_never_varies_does_no_harm():
    hidden = torch.full((1, 4, 3), 2.0)
    states = TokenStates(hidden, torch.ones(1, 4, dtype=torch.bool), StateScale.fit(hidden, hidden[..., 0] > 0))
    assert torch.equal(states[:], torch.zeros(4, 3))
