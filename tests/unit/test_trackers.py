"""Which trackers ``--report_to`` names."""

import pytest

from training import trackers
from training.errors import UserError
from training.trackers import chosen_trackers


@pytest.mark.parametrize(
    ("report_to", "names"),
    [
        (None, ["none"]),
        ("", ["none"]),
        ([], ["none"]),
        (["none"], ["none"]),
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
