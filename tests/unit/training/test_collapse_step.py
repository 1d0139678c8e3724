"""The step of collapse: held-out accuracy far below its best while what a label-free bonus pays for still rises."""

import json
import types

import pytest

from intrinsic import bonus_class, label_free_names
from training.watchdogs.callback import WARNINGS_FILE, WatchdogCallback
from training.watchdogs.checks import Thresholds
from training.watchdogs.collapse_step import collapse_step
from training.watchdogs.history import History

RISES = [1.0 + 0.01 * step for step in range(1, 41)]
ACCURACY = {0: 0.20, 10: 0.30, 20: 0.27, 30: 0.24, 40: 0.10}


def record(bonus, step, value, weight=1.0):
    return {"step": step, f"ir/{bonus}/{bonus_class(bonus).measured}": value, f"ir/{bonus}/weight": weight}


def run(accuracy=ACCURACY, values=RISES, bonus="sc", **fields):
    """Each evaluation's warning, of a run that logs a value per step."""
    history, found = History(), {}
    for step in range(41):
        if step in accuracy:
            history.evaluations.append({"step": step, "mean": accuracy[step]})
            found[step] = collapse_step(history, Thresholds(), bonus)
        if step:
            history.add(record(bonus, step, values[step - 1], **fields))
    return found


@pytest.mark.parametrize("bonus", label_free_names())
def test_it_is_the_first_evaluation_that_lies_a_set_amount_below_the_best(bonus):
    found = run(bonus=bonus)
    assert [step for step, warning in found.items() if warning] == [30, 40]
    assert found[30].numbers["collapse_step"] == found[30].step == 30 and found[30].numbers["best_step"] == 10
    assert bonus in found[30].watchdog and "30.0% at step 10 to 24.0%" in found[30].message


@pytest.mark.parametrize(
    "change",
    [
        {"values": RISES[::-1]},  # the reward falls too: no collapse by the reward
        {"values": [1.0] * 40},
        {"accuracy": {0: 0.20, 20: 0.30, 40: 0.26}},
        {"accuracy": {}},
        {"weight": 0.0},  # only watched
    ],
    ids=["reward falls", "reward rests", "accuracy holds", "no evaluation", "weight 0"],
)
def test_otherwise_there_is_none(change):
    assert not any(run(**change).values())


def test_a_best_before_any_log_is_compared_with_the_first_steps():
    assert [step for step, warning in run({0: 0.3, 40: 0.1}).items() if warning] == [40]
    assert not any(run({0: 0.3}).values())


def test_it_is_written_once_beside_the_other_warnings_and_for_no_other_bonus(tmp_path):
    for names, expected in ((["majority"], [30]), (["knn"], [])):
        folder = tmp_path / names[0]
        callback = WatchdogCallback(folder, names, out=lambda line: None)
        callback.on_train_begin(None, types.SimpleNamespace(global_step=0), None)
        for step in range(41):
            if step in ACCURACY:
                mean = ACCURACY[step]
                bounds = {"mean": mean, "low": mean - 0.2, "high": mean + 0.2}
                callback.add_evaluation({"step": step, "metrics": {"accuracy": bounds}})
            if step:
                callback.on_log(
                    None, types.SimpleNamespace(global_step=step), None, record("majority", step, RISES[step - 1])
                )
        lines = [json.loads(line) for line in (folder / WARNINGS_FILE).read_text().splitlines()]
        assert [line["numbers"]["collapse_step"] for line in lines] == expected
