"""Watchdogs on synthetic curves, both ways: each fires on its failure and is silent on healthy noisy runs."""

import numpy as np
import pytest

from training.watchdogs.callback import Watchdog
from training.watchdogs.checks import (
    IDENTICAL,
    REPETITION,
    bonus_against_accuracy,
    entropy_collapse,
    entropy_runaway,
    format_never_adopted,
    held_out_fall,
    identical_completions,
    length_collapse,
    length_runaway,
    repetition,
    reward_mode_collapse,
    training_checks,
)
from training.watchdogs.history import History, change, highest_window
from training.watchdogs.thresholds import Thresholds

LIMITS = Thresholds()
ACCURACY, RAW = "rewards/correctness/mean", "ir/knn/raw"

# A healthy run: accuracy and format rise, length grows, entropy halves, the bonus rises too. Progress p in [0, 1].
HEALTHY = {
    ACCURACY: lambda p: 0.2 + 0.3 * p,
    "rewards/format/mean": lambda p: 0.3 + 0.6 * np.minimum(1, 2 * p),
    RAW: lambda p: 0.3 + 0.4 * p,
    "ir/knn/weight": lambda p: 1.0 + 0 * p,
    "completions/mean_length": lambda p: 100 + 100 * p,
    "completions/clipped_ratio": lambda p: 0.02 + 0.15 * p,
    REPETITION: lambda p: 0.05 + 0.15 * p,
    IDENTICAL: lambda p: 0.05 + 0.2 * p,
    "entropy": lambda p: 0.4 - 0.2 * p,
    "advantage/wrong_answer": lambda p: -0.4 + 0.1 * p,
    "advantage/no_answer": lambda p: -0.3 + 0 * p,
}
NOISE = {ACCURACY: 0.05, "completions/mean_length": 10.0, "ir/knn/weight": 0.0, "entropy": 0.02}
SHARES = (ACCURACY, "rewards/format/mean", "completions/clipped_ratio", REPETITION, IDENTICAL)


def records(steps=150, seed=0, noise=1.0, **curves):
    """Logged records of a run: the healthy curves, with those of ``curves`` (or None to leave out) in their place."""
    random, progress = np.random.default_rng(seed), np.arange(steps) / steps
    columns = {}
    for key, curve in (HEALTHY | curves).items():
        if curve is not None:
            values = curve(progress) + random.normal(0, noise * NOISE.get(key, 0.03), steps)
            columns[key] = np.clip(values, 0, 1) if key in SHARES else values
    return [
        {"step": step + 1, **{key: float(values[step]) for key, values in columns.items()}} for step in range(steps)
    ]


def barks(rows, bonuses=("knn",)):
    """(watchdog, step) of every warning of a run that is looked at after each record."""
    history, found = History(), []
    watchdogs = [Watchdog(check, LIMITS.window) for check in training_checks(LIMITS, bonuses)]
    for row in rows:
        history.add(row)
        found += [(warning.watchdog, warning.step) for dog in watchdogs if (warning := dog.look(history))]
    return found


def names(rows):
    return {name for name, _ in barks(rows)}


FLAT = {ACCURACY: lambda p: 0.3 + 0 * p}
FALLING = {ACCURACY: lambda p: 0.2 + 0.3 * np.where(p < 0.4, p / 0.4, 1 - (p - 0.4))}
FAILURES = {
    "reward-mode collapse": FLAT,
    "format never adopted": {"rewards/format/mean": lambda p: 0.005 + 0 * p},
    "length collapse": FLAT | {"completions/mean_length": lambda p: 10 + 110 * (p < 0.5)},
    "length runaway": {"completions/clipped_ratio": lambda p: 0.1 + 0.6 * p},
    "repetition": {REPETITION: lambda p: 0.1 + 0.6 * (p > 0.6)},
    "identical completions": {IDENTICAL: lambda p: 0.1 + 0.7 * p},
    "entropy collapse": {"entropy": lambda p: 0.4 * np.exp(-4 * p)},
    "entropy runaway": FLAT | {"entropy": lambda p: 0.4 + 2.0 * p},
    "bonus against accuracy (knn)": FALLING,
}


# ---- the two ways of every watchdog


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("failure", FAILURES)
def test_each_watchdog_sees_its_failure(failure, seed):
    assert failure in names(records(seed=seed, **FAILURES[failure]))


@pytest.mark.parametrize("steps", [58, 150, 460])
@pytest.mark.parametrize("seed", range(2))
def test_no_watchdog_barks_at_a_healthy_noisy_run(steps, seed):
    assert names(records(steps, seed)) == set()


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_small_batches_does_not_pass_for_a_failure(seed):
    """Three times the noise: a batch of one or two prompts."""
    assert names(records(300, seed, noise=3.0)) == set()


@pytest.mark.parametrize("seed", range(2))
def test_a_long_plateau_after_learning_is_healthy_whatever_the_bonus_does(seed):
    """The best of 46 windows lies above a plateau by luck alone; a bonus that goes on rising must not be blamed."""
    assert names(records(460, seed, **{ACCURACY: lambda p: 0.2 + 0.3 * np.minimum(1, 3 * p)})) == set()


def test_nothing_is_said_before_two_windows_are_there():
    failing = {key: value for curves in FAILURES.values() for key, value in curves.items()}
    assert barks(records(2 * LIMITS.window - 1, **failing)) == []


# ---- what sets each failure apart from health


def only(check, rows, **arguments):
    return check(History(rows), limits=LIMITS, **arguments)


def test_format_learnt_before_accuracy_is_no_collapse_until_the_wait_is_over():
    """Format jumps at step 40, accuracy begins to follow at step 60."""
    curves = {
        "rewards/format/mean": lambda p: 0.1 + 0.8 * (p > 0.4),
        ACCURACY: lambda p: 0.1 + np.clip(p - 0.6, 0, 1),
    }
    assert "reward-mode collapse" not in names(records(100, **curves))
    step = dict(barks(records(100, noise=0.5, **(curves | FLAT))))["reward-mode collapse"]
    assert step >= 40 + LIMITS.format_patience


def test_rewards_for_shape_count_by_their_maximum():
    """A rise by 0.15 is nearly a third of a reward of at most 0.5, but little of one of at most 1."""
    jump = {"rewards/format/mean": None, **FLAT}
    half = records(**jump, **{"rewards/soft_format/mean": lambda p: 0.1 + 0.15 * (p > 0.2)})
    whole = records(**jump, **{"rewards/steps/mean": lambda p: 0.1 + 0.15 * (p > 0.2)})
    assert only(reward_mode_collapse, half).numbers["soft_format_after"] == pytest.approx(0.5, abs=0.05)
    assert only(reward_mode_collapse, whole) is None


def test_accuracy_at_its_ceiling_is_not_flat():
    rows = records(**{ACCURACY: lambda p: 0.95 + 0 * p}, noise=0.5)
    assert only(reward_mode_collapse, rows) is None


def test_a_format_that_was_lost_again_is_no_reward_mode_collapse():
    rows = records(**FLAT, **{"rewards/format/mean": lambda p: 0.1 + 0.8 * ((p > 0.1) & (p < 0.8))})
    assert only(reward_mode_collapse, rows) is None


def test_a_format_adopted_slowly_is_left_alone():
    slow = {"rewards/format/mean": lambda p: 0.001 + 0.04 * p}
    assert only(format_never_adopted, records(30, noise=0.01, **slow)) is None
    never = {"rewards/format/mean": lambda p: 0.001 + 0 * p}
    assert only(format_never_adopted, records(30, noise=0.01, **never)) is not None


def test_one_adopted_format_is_enough():
    """strict_format stays at 0 in many healthy GSM8K runs; the tags are there."""
    curves = {"rewards/format/mean": None, "rewards/strict_format/mean": lambda p: 0 * p}
    never = records(noise=0.0, **curves)
    adopted = records(noise=0.0, **curves, **{"rewards/xml_count/mean": lambda p: 0.4 + 0 * p})
    assert only(format_never_adopted, never) is not None
    assert only(format_never_adopted, adopted) is None


def test_shorter_and_better_is_no_length_collapse():
    shorter = {"completions/mean_length": lambda p: 180 - 130 * p}
    assert only(length_collapse, records(**shorter)) is None
    assert only(length_collapse, records(**shorter, **FLAT)) is not None


def test_length_is_measured_from_its_peak():
    """Memory-R+ saw lengths collapse after they had grown first: 40 -> 150 -> 40 ends where it began."""
    rows = records(**FLAT, **{"completions/mean_length": lambda p: 40 + 110 * ((p > 0.3) & (p < 0.6))})
    assert only(length_collapse, rows).numbers["mean_length_before"] == pytest.approx(150, abs=10)


@pytest.mark.parametrize(
    ("check", "key"),
    [(length_runaway, "completions/clipped_ratio"), (repetition, REPETITION), (identical_completions, IDENTICAL)],
)
def test_a_share_high_from_the_start_is_the_task_and_no_failure(check, key):
    assert only(check, records(**{key: lambda p: 0.6 + 0.1 * p})) is None
    assert only(check, records(**{key: lambda p: 0.2 + 0.5 * p})) is not None


def test_entropy_that_halves_is_no_collapse():
    assert only(entropy_collapse, records(**{"entropy": lambda p: 0.4 - 0.22 * p})) is None
    assert only(entropy_collapse, records(**{"entropy": lambda p: 0.4 - 0.37 * p})) is not None


def test_entropy_that_pays_off_or_rises_from_next_to_nothing_is_no_runaway():
    assert only(entropy_runaway, records(**FLAT | {"entropy": lambda p: 0.4 + 0.35 * p})) is None
    assert only(entropy_runaway, records(**{"entropy": lambda p: 0.4 + 2.0 * p})) is None  # accuracy rises
    assert only(entropy_runaway, records(**FLAT | {"entropy": lambda p: 0.05 + 0.2 * p})) is None
    assert only(entropy_runaway, records(**FLAT | {"entropy": lambda p: 0.4 + 1.0 * p})) is not None


def test_a_bonus_is_blamed_only_if_it_rose_since_accuracy_was_best_and_is_paid():
    blamed = records(**FALLING)
    assert only(bonus_against_accuracy, blamed, bonus="knn") is not None
    unpaid = [row | {"ir/knn/weight": 0.0} for row in blamed]
    assert only(bonus_against_accuracy, unpaid, bonus="knn") is None
    early_riser = records(**FALLING, **{RAW: lambda p: 0.3 + 0.4 * np.minimum(1, p / 0.3)})
    assert only(bonus_against_accuracy, early_riser, bonus="knn") is None


def test_every_bonus_has_its_own_watchdog():
    rows = [row | {"ir/cfn/uncertainty": 0.5, "ir/cfn/weight": 1.0} for row in records(**FALLING)]
    assert {name for name, _ in barks(rows, ("knn", "cfn"))} == {"bonus against accuracy (knn)"}


def test_a_bonus_standardised_in_its_group_is_judged_by_what_it_measures():
    rows = [
        row | {"ir/sc/raw": 0.0, "ir/sc/weight": 1.0, "ir/sc/self_certainty": row["ir/knn/raw"]}
        for row in records(**FALLING)
    ]
    assert only(bonus_against_accuracy, rows, bonus="sc") is not None


def test_held_out_accuracy_must_fall_below_the_best_interval():
    def check(*means):
        history = History()
        for index, mean in enumerate(means):
            history.evaluations.append({"step": 10 * index, "mean": mean, "low": mean - 0.04, "high": mean + 0.04})
        return held_out_fall(history, LIMITS)

    assert check() is None
    assert check(0.2, 0.4, 0.35) is None
    found = check(0.2, 0.4, 0.3)
    assert (found.step, found.numbers) == (20, {"best": 0.4, "best_step": 10, "last": 0.3})
    assert check(0.2, 0.4, 0.3, 0.38) is None


# ---- the history


def test_history_keeps_only_steps_at_which_all_columns_are_numbers():
    history = History([{"step": 1, "a": 1.0, "b": None}, {"step": 2, "a": 2.0, "b": 5.0}, {"step": 3, "b": 6.0}])
    history.add({"step": 4, "a": float("nan"), "b": 7.0})
    history.add({"step": 5, "a": 4.0, "b": 8.0, "text": "no number"})
    assert [column.tolist() for column in history.columns("a", "b")] == [[2.0, 4.0], [5.0, 8.0]]
    assert [column.tolist() for column in history.columns("a", "missing")] == [[], []]
    assert history.step == 5


def test_change_compares_window_means_with_their_error():
    found = change(np.array([0.0, 2.0, 9.0, 9.0, 5.0, 7.0]), window=2)
    assert (found.before, found.after) == (1.0, 6.0)
    differences = np.var([2, 7, 0, -4, 2], ddof=1)
    assert found.error == pytest.approx(np.sqrt(max(2.0 + 2.0, differences) / 2))
    noisy_at_first = change(np.array([0.0, 8.0, *[4.0] * 20]), window=2)
    assert noisy_at_first.error == pytest.approx(np.sqrt(32.0 / 2))
    assert change(np.arange(5.0), window=2, start=2) is None


def test_a_window_calm_by_chance_does_not_make_the_error_small():
    values = np.tile([0.0, 1.0], 20)
    values[-4:] = 1.0
    assert change(values, window=4, start=0).error > 0.45


def test_highest_window_ends_before_the_last_one():
    assert highest_window(np.array([1.0, 1, 5, 5, 2, 2, 9, 9]), window=2) == 2
    assert highest_window(np.array([1.0, 1]), window=2) == 0


# ---- advantages of wrong answers


@pytest.mark.parametrize("kind", ["wrong_answer", "no_answer"])
@pytest.mark.parametrize("seed", range(3))
def test_wrong_answers_with_a_positive_mean_advantage_are_named(kind, seed):
    rising = {f"advantage/{kind}": lambda p: -0.2 + 0.6 * p}
    found = [bark for bark in barks(records(seed=seed, **rising)) if bark[0].startswith("wrong answers paid")]
    assert [name for name, _ in found] == [f"wrong answers paid ({kind})"]
    assert 50 < found[0][1] < 90


def test_advantages_of_wrong_answers_about_zero_or_for_less_than_ten_steps_are_not():
    assert not barks(records(**{"advantage/wrong_answer": lambda p: 0.0 * p}))
    assert not barks(records(steps=9, **{"advantage/wrong_answer": lambda p: 0.5 + 0 * p}))
