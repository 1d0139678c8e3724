"""Intervals and p values of paired differences hold for other seeds and other problems, and for a whole family."""

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import (
    crossed_difference,
    crossed_error,
    detectable_effect,
    holm,
    interquartile_mean,
    mann_whitney_interval,
    mean_t_interval,
    paired_t,
    performance_profile,
    probability_of_improvement,
)

SEEDS = np.array([0.06, 0.02, 0.09, -0.01, 0.05])


def test_where_seeds_alone_vary_the_crossed_test_is_the_paired_t_test_over_seeds():
    table = np.repeat(SEEDS[:, None], 40, axis=1)
    found, (mean, half) = crossed_difference(table), mean_t_interval(SEEDS)
    assert crossed_error(table) == pytest.approx(stats.sem(SEEDS))
    assert found["difference"] == pytest.approx(mean) and found["high"] - found["difference"] == pytest.approx(half)
    assert found["p"] == pytest.approx(stats.ttest_1samp(SEEDS, 0.0).pvalue)


def test_where_problems_alone_vary_the_error_is_that_over_problems_and_not_over_all_values():
    """A problem that is easy for one seed is easy for all: 5 x 40 values are 40 problems, not 200."""
    problems = np.random.default_rng(0).normal(0.1, 0.5, 40)
    table = np.repeat(problems[None], 5, axis=0)
    assert crossed_error(table) == pytest.approx(stats.sem(problems))
    assert crossed_error(table) > 2 * stats.sem(table.ravel())


def test_the_error_is_that_of_a_two_way_bootstrap_without_the_cell_noise_that_it_counts_twice_too_often():
    """The bootstrap is drawn here: n - 1 of n seeds and of n problems, with replacement, independently."""
    rng = np.random.default_rng(1)
    table = rng.normal(0, 0.2, (5, 1)) + rng.normal(0, 0.5, (1, 30)) + rng.normal(0, 0.6, (5, 30))
    counts = [rng.multinomial(n - 1, np.full(n, 1 / n), size=40_000) / (n - 1) for n in table.shape]
    drawn = np.einsum("ns,sp,np->n", counts[0], table, counts[1], optimize=True)
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    cells = np.square(rest).sum() / (5 * 4 * 30 * 29)
    assert cells > 0.05 * drawn.var(), "the part must be large enough to be missed"
    assert crossed_error(table) ** 2 == pytest.approx(drawn.var(ddof=1) - 2 * cells, rel=0.04)


@pytest.mark.parametrize("seed_spread, problem_spread", [(0.1, 0.1), (0.03, 0.3), (0.0, 0.0)])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_nothing_is_found_where_nothing_is_whatever_varies(seeds, seed_spread, problem_spread):
    """Few seeds that agree by luck make no p value small: Holm over twenty arms asks for one below .0025."""
    rng = np.random.default_rng(7)
    p_values = []
    for _ in range(800):
        seed, problem, cell = (rng.normal(size=shape) for shape in ((seeds, 1), (1, 60), (seeds, 60)))
        p_values.append(crossed_difference(seed_spread * seed + problem_spread * problem + 0.2 * cell)["p"])
    shares = {level: np.mean(np.array(p_values) < level) for level in (0.05, 0.005)}
    for level, share in shares.items():
        assert share <= level + 2 * (level * (1 - level) / 800) ** 0.5, shares


def test_a_difference_of_the_size_that_is_called_detectable_is_found_four_times_in_five():
    rng = np.random.default_rng(8)
    tables = [
        rng.normal(0, 0.05, (5, 1)) + rng.normal(0, 0.1, (1, 60)) + rng.normal(0, 0.2, (5, 60)) for _ in range(800)
    ]
    typical = np.mean([crossed_difference(table)["mde"] ** 2 for table in tables]) ** 0.5
    found = np.mean([crossed_difference(typical + table)["p"] < 0.05 for table in tables])
    assert found >= 0.8 - 2 * (0.8 * 0.2 / 800) ** 0.5


def test_the_same_data_give_the_same_interval():
    table = np.random.default_rng(2).normal(size=(5, 30))
    assert crossed_difference(table) == crossed_difference(table)


def test_one_seed_has_an_interval_over_problems_and_no_p_value():
    found = crossed_difference(np.random.default_rng(3).normal(size=(1, 50)))
    assert found["low"] < found["difference"] < found["high"] and found["p"] is None and found["mde"] is None
    alone = crossed_difference([[0.5]])
    assert alone == {"difference": 0.5, "low": None, "high": None, "p": None, "mde": None}


@pytest.mark.parametrize("value, p", [(0.0, 1.0), (1.0, 0.0)])
def test_differences_that_are_all_the_same_have_no_spread(value, p):
    found = crossed_difference(np.full((4, 6), value))
    assert (found["low"], found["high"], found["p"], found["mde"]) == (value, value, p, None)
    assert paired_t([value] * 4) == p


def test_paired_t_is_scipys():
    first, second = SEEDS + 0.3, np.full(5, 0.3)
    assert paired_t(SEEDS) == pytest.approx(stats.ttest_rel(first, second).pvalue)


def test_holm_multiplies_the_smallest_by_the_size_of_the_family_and_never_falls():
    # By hand: .01 x 4; .02 x 3; .03 x 2 = .06, as high as the one before; .5 x 1.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.04, 0.03]) == pytest.approx([0.06, 0.06]) and holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None, 0.02, None, 0.04]) == [None, pytest.approx(0.04), None, pytest.approx(0.04)] and holm([]) == []


@pytest.mark.parametrize("freedom", [1, 2, 4, 30])
def test_the_detectable_effect_is_found_in_80_percent_of_repetitions(freedom):
    rng, draws = np.random.default_rng(9), 20_000
    differences = detectable_effect(1.0, freedom) + rng.normal(size=draws)
    errors = (rng.chisquare(freedom, draws) / freedom) ** 0.5
    found = 2 * stats.t.sf(np.abs(differences) / errors, freedom) < 0.05
    assert np.mean(found) == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / draws) ** 0.5)
    assert detectable_effect(2.0, freedom) == pytest.approx(2 * detectable_effect(1.0, freedom))


def test_interquartile_mean_leaves_out_a_quarter_at_each_end():
    assert interquartile_mean([0.0, 0.4, 0.5, 10.0]) == pytest.approx(0.45)


def test_interquartile_mean_is_the_middle_half_of_all_runs_and_tasks_as_rliable_defines_it():
    """Agarwal et al. 2021: of the N M scores of N runs on M tasks, sorted, without floor(N M / 4) at each end."""
    scores = np.random.default_rng(4).random((3, 7))
    ordered, cut = sorted(scores.ravel()), 21 // 4
    assert interquartile_mean(scores) == pytest.approx(sum(ordered[cut:-cut]) / (21 - 2 * cut))


@pytest.mark.parametrize("numbers", [(5, 5), (2, 6), (1, 3)])
def test_probability_of_improvement_is_rliables_mean_over_pairs_of_runs(numbers):
    """P(X > Y) = 1 / (N K) sum_i sum_j S(x_i, y_j), S = 1 where y_j < x_i, 1/2 where equal, 0 else."""
    rng = np.random.default_rng(5)
    ours, theirs = (rng.integers(0, 5, number) / 5 for number in numbers)
    pairs = [1.0 if y < x else 0.5 if y == x else 0.0 for x in ours for y in theirs]
    found = probability_of_improvement(ours, theirs)
    assert found["chance"] == pytest.approx(sum(pairs) / len(pairs))
    assert (found["low"] is None) == (min(numbers) == 1)
    assert probability_of_improvement(ours, ours)["chance"] == 0.5
    opposite = probability_of_improvement(theirs, ours)
    assert opposite["chance"] == pytest.approx(1 - found["chance"])
    assert opposite["low"] is None or opposite["low"] == pytest.approx(1 - found["high"])


def test_the_interval_of_an_improvement_obeys_newcombes_equation_and_is_open_where_no_runs_overlap():
    low, high = mann_whitney_interval(0.8, 5, 6)
    for bound in (low, high):
        others = (5 + 6) / 2 - 1
        spread = 1 + others * (1 - bound) / (2 - bound) + others * bound / (1 + bound)
        assert (0.8 - bound) ** 2 == pytest.approx(1.959964**2 * bound * (1 - bound) * spread / 30, rel=1e-5)
    assert low < 0.8 < high
    assert mann_whitney_interval(1.0, 5, 5) == (pytest.approx(0.64, abs=0.02), 1.0)
    assert mann_whitney_interval(0.0, 5, 5)[0] == 0.0


@pytest.mark.parametrize("seeds, shift", [(2, 0.7), (5, 1.5), (5, 2.5), (10, 0.7)])
def test_the_interval_of_an_improvement_covers_the_truth(seeds, shift):
    rng, truth = np.random.default_rng(6), stats.norm.cdf(shift / 2**0.5)
    covered = 0
    for _ in range(200):
        found = probability_of_improvement(rng.normal(shift, 1, seeds), rng.normal(0, 1, seeds))
        covered += found["low"] <= truth <= found["high"]
    assert covered / 200 >= 0.9


def test_a_performance_profile_is_rliables_share_of_scores_above_each_threshold():
    """F(tau) = 1/M sum_m 1/N sum_n [x_nm > tau]: one minus the empirical distribution function."""
    scores, thresholds = np.random.default_rng(7).integers(0, 9, (4, 50)) / 8, np.arange(9) / 8
    by_hand = [np.mean([[score > tau for score in run] for run in scores]) for tau in thresholds]
    assert performance_profile(scores, thresholds) == pytest.approx(by_hand)
    survival = stats.ecdf(scores.ravel()).sf.evaluate(thresholds)
    assert performance_profile(scores, thresholds) == pytest.approx(survival)
