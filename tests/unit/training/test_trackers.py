"""Which trackers ``--report_to`` names, and what they get."""

import os
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback

from common.errors import UserError
from training import trackers
from training.trackers import ShieldedTracker, chosen_trackers, shield_trackers, track_evaluation


@pytest.mark.parametrize(
    ("report_to", "names"),
    [
        (None, ["none"]),
        ("", ["none"]),
        ([], ["none"]),
        (["none"], ["none"]),
        ("None", ["none"]),
        ("tensorboard", ["tensorboard"]),
        (["wandb,tensorboard"], ["wandb", "tensorboard"]),
        (["wandb,", "tensorboard", "wandb"], ["wandb", "tensorboard"]),
    ],
)
def test_trackers_are_separated_by_blanks_or_commas(report_to, names, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    assert chosen_trackers(report_to) == names


@pytest.mark.parametrize(
    ("report_to", "message"),
    [("no_such_one", "'no_such_one' is no tracker; use none"), (["none,wandb"], "none stands alone")],
)
def test_a_wrong_tracker_is_refused_with_those_there_are(report_to, message):
    with pytest.raises(UserError, match=f"--report_to=.*{message}.*tensorboard"):
        chosen_trackers(report_to)


@pytest.mark.parametrize(("tracker", "package"), [("flyte", "flytekit"), ("azure_ml", "azureml"), ("wandb", "wandb")])
def test_a_tracker_is_looked_for_under_the_name_of_its_package(tracker, package, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: name == package or None)
    assert chosen_trackers([tracker]) == [tracker]
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"needs the package {package}"):
        chosen_trackers([tracker])


class Tracker(TrainerCallback):
    """Keeps what it is given."""

    def __init__(self):
        self.logged = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logged.append(logs)


def trainer_with(*callbacks, project="mine"):
    handler = SimpleNamespace(callbacks=list(callbacks))
    return SimpleNamespace(
        args=SimpleNamespace(project=project), callback_handler=handler, state=None, control=None, model=None
    )


def test_held_out_figures_reach_the_trackers_alone_under_their_own_names():
    tracker, other = Tracker(), Tracker()
    metrics = {"accuracy": {"mean": 0.25, "low": 0.1, "high": 0.4, "n": 8}, "mean_length": 12.5, "note": "text"}
    trainer = trainer_with(other, ShieldedTracker(tracker))
    track_evaluation(trainer, metrics)
    assert tracker.logged == []  # a tracker that has not been told where to write would choose for itself
    trainer.callback_handler.callbacks[1].on_train_begin(None, None, None)
    assert tracker.logged == [{"eval_accuracy": 0.25, "eval_mean_length": 12.5}] and other.logged == []


def test_a_value_that_a_step_does_not_have_is_not_sent():
    tracker = Tracker()
    shielded = ShieldedTracker(tracker)
    shielded.on_train_begin(None, None, None)
    shielded.on_log(None, None, None, logs={"loss": 0.5, "advantage/right": None})
    assert tracker.logged == [{"loss": 0.5}]


@pytest.mark.parametrize(("set_before", "expected"), [(None, "mine"), ("theirs", "theirs")])
def test_the_project_is_the_flags_unless_the_variable_says_otherwise(set_before, expected, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    if set_before:
        monkeypatch.setenv("WANDB_PROJECT", set_before)
    shield_trackers(trainer_with())
    assert os.environ["WANDB_PROJECT"] == expected
    monkeypatch.delenv("WANDB_PROJECT")
