"""The stop rule on synthetic curves, both ways, and in a trainer: it stops on collapse alone, and saves."""

from types import SimpleNamespace

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, TrainerControl

from intrinsic.base import WeightSchedule
from intrinsic.self_certainty import SelfCertainty
from training.checkpoint import is_complete
from training.watchdogs.callback import Watchdog, WatchdogCallback
from training.watchdogs.checks import REPETITION, training_checks
from training.watchdogs.collapse import (
    EXIT_CODE,
    CollapseCallback,
    CollapseLimits,
    collapse,
    stops_on_collapse,
)
from training.watchdogs.history import History

LIMITS = CollapseLimits()
ACCURACY, LENGTH, CLIPPED, KL = "rewards/correctness/mean", "completions/mean_length", "completions/clipped_ratio", "kl"

# A run under self-certainty as it should go: accuracy rises, answers grow, the policy drifts. Progress p in [0, 1].
HEALTHY = {
    ACCURACY: lambda p: 0.2 + 0.3 * p,
    LENGTH: lambda p: 100 + 150 * p,
    CLIPPED: lambda p: 0.02 + 0.2 * p,
    REPETITION: lambda p: 0.1 + 0.15 * p,
    KL: lambda p: 0.3 * p,
}
NOISE = {ACCURACY: 0.05, LENGTH: 10.0, CLIPPED: 0.03, REPETITION: 0.03, KL: 0.03}
ONSET = 0.4
COLLAPSES = {
    "length collapse": {
        ACCURACY: lambda p: 0.35 - 0.3 * (p > ONSET),
        LENGTH: lambda p: np.where(p > ONSET, 10, 130),
    },
    "length runaway": {CLIPPED: lambda p: 0.05 + 0.8 * (p > ONSET)},
    "repetition": {REPETITION: lambda p: 0.1 + 0.7 * (p > ONSET)},
    "KL runaway": {KL: lambda p: 0.2 + 3.0 * (p > ONSET)},
}


def records(steps=150, seed=0, **curves):
    """Logged records: the healthy curves with noise, those of ``curves`` in their place."""
    random, progress = np.random.default_rng(seed), np.arange(steps) / steps
    columns = {
        key: np.maximum(0, curve(progress) + random.normal(0, NOISE[key], steps))
        for key, curve in (HEALTHY | curves).items()
    }
    return [
        {"step": step + 1, **{key: float(column[step]) for key, column in columns.items()}} for step in range(steps)
    ]


def first_collapse(rows):
    """What the rule finds first when it looks after every record."""
    history = History()
    for row in rows:
        history.add(row)
        if (warning := collapse(history, LIMITS)) is not None:
            return warning
    return None


@pytest.mark.parametrize("seed", range(10))
def test_a_healthy_run_is_never_stopped(seed):
    assert first_collapse(records(seed=seed)) is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", COLLAPSES)
def test_a_collapse_is_found_within_a_window_and_a_half(name, seed):
    warning = first_collapse(records(seed=seed, **COLLAPSES[name]))
    assert warning.watchdog == name
    assert ONSET * 150 < warning.step <= ONSET * 150 + 15


@pytest.mark.parametrize(
    "curves",
    [
        {LENGTH: lambda p: 200 - 120 * p},
        {LENGTH: lambda p: np.where(p > ONSET, 30, 130)},
        {CLIPPED: lambda p: 0.6 + 0 * p},
        {CLIPPED: lambda p: 0.05 + 0.35 * p},
        {REPETITION: lambda p: 0.2 + 0.3 * p},
        {KL: lambda p: 0.9 * p},
        {KL: lambda p: 0.2 + 20 * (np.round(p * 150) % 5 == 0)},
    ],
    ids=["shorter", "short and right", "limit too short from the start", "longer", "list", "drift", "spikes of KL"],
)
def test_what_deserves_a_warning_at_most_does_not_stop_a_run(curves):
    assert first_collapse(records(**curves)) is None


@pytest.mark.parametrize("name", sorted(set(COLLAPSES) - {"KL runaway"}))
def test_watchdogs_warn_before_the_rule_stops(name):
    """On a slow collapse; otherwise nobody could have stepped in."""
    slow = {
        "length collapse": {ACCURACY: lambda p: 0.3 + 0 * p, LENGTH: lambda p: 130 * np.exp(-4 * p)},
        "length runaway": {CLIPPED: lambda p: 0.05 + 0.9 * p},
        "repetition": {REPETITION: lambda p: 0.1 + 0.8 * p},
    }
    rows, history, warned = records(**slow[name]), History(), []
    dogs = [Watchdog(check, patience=10) for check in training_checks(LIMITS.checks.__class__(), ["sc"])]
    for row in rows:
        history.add(row)
        warned += [found for dog in dogs if (found := dog.look(history)) is not None and found.watchdog == name]
    assert warned[0].step < first_collapse(rows).step


def evaluations(*means, half_width=0.03):
    return [
        {"step": 10 * index, "mean": mean, "low": mean - half_width, "high": mean + half_width}
        for index, mean in enumerate(means)
    ]


@pytest.mark.parametrize(
    "means, stops",
    [
        ((0.2, 0.4, 0.3, 0.3), True),
        ((0.4, 0.3, 0.3), True),
        ((0.2, 0.4, 0.3), False),
        ((0.2, 0.4, 0.3, 0.38), False),
        ((0.2, 0.4, 0.36, 0.36), False),
        ((), False),
    ],
    ids=["rise and fall", "below the start", "once", "recovered", "within the interval", "none"],
)
def test_held_out_accuracy_has_to_fall_twice_in_a_row(means, stops):
    history = History()
    history.evaluations = evaluations(*means)
    warning = collapse(history, LIMITS)
    assert (warning is not None) == stops
    assert not stops or (warning.watchdog == "held-out accuracy fell" and warning.step == 10 * (len(means) - 1))


def test_a_run_without_kl_penalty_is_judged_by_the_rest():
    rows = [{key: value for key, value in row.items() if key != KL} for row in records(**COLLAPSES["repetition"])]
    assert first_collapse(rows).watchdog == "repetition"


@pytest.mark.parametrize(
    "asked, bonuses, stops",
    [
        (None, ["sc"], True),
        (None, ["knn+", "sc"], True),
        (None, ["knn+"], False),
        (None, [], False),
        (False, ["sc"], False),
        (True, ["knn+"], True),
    ],
)
def test_on_for_self_certainty_and_off_for_others_unless_told(asked, bonuses, stops):
    assert stops_on_collapse(asked, bonuses) == stops


# ---- the callback


def collapsed_history():
    return History(records(**COLLAPSES["repetition"]))


def state(step):
    return SimpleNamespace(global_step=step)


ONE_PROCESS = SimpleNamespace(world_size=1)


def test_stops_with_log_and_checkpoint_on_the_next_generation_boundary():
    callback = CollapseCallback(collapsed_history, steps_per_generation=4)
    callback.on_log(ONE_PROCESS, state(150), TrainerControl())
    control = TrainerControl()
    for step in (151, 153):
        callback.on_step_end(ONE_PROCESS, state(step), control)
        assert not control.should_training_stop and not callback.stopped
    callback.on_step_end(ONE_PROCESS, state(152), control)
    assert control.should_training_stop and control.should_save and control.should_log and callback.stopped


def test_message_says_what_collapsed_where_the_policy_is_and_how_to_go_on():
    callback = CollapseCallback(collapsed_history)
    callback.on_log(ONE_PROCESS, state(150), TrainerControl())
    for part in ("step 150", "repetition", "%", "best/", "--resume auto --stop_on_collapse false"):
        assert part in callback.message
    assert "\n" not in callback.message and EXIT_CODE not in (0, 1, 2)
    assert CollapseCallback(collapsed_history).message == ""  # on a process that is not the main one


@pytest.mark.parametrize("limit, last_step", [(-1.0, 4), (1.0, 8)], ids=["collapsed", "healthy"])
def test_a_training_run_is_stopped_and_saved_only_on_collapse(
    trainer_factory, random_policy, tokenizer, tmp_path, limit, last_step
):
    folder = tmp_path / "run"
    random_policy.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    watchdogs = WatchdogCallback(folder, ["sc"])
    limits = CollapseLimits(kl=limit, kl_window=3)
    rule = CollapseCallback(lambda: watchdogs.history, limits=limits)
    trainer = trainer_factory([SelfCertainty()], [WeightSchedule()], policy=policy, max_steps=8, beta=0.005)
    trainer.add_callback(watchdogs)
    trainer.add_callback(rule)
    trainer.train()
    assert trainer.state.global_step == last_step
    assert rule.stopped == (last_step < 8)
    assert [is_complete(path)[0] for path in folder.glob("checkpoint-*")] == [True] * rule.stopped
