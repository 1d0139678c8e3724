"""The best policy on held-out problems is kept, over the end of a session too."""

import json
from pathlib import Path

import pytest

from training.best import BestPolicy


def report(name, step, accuracy):
    return {"name": name, "step": step, "metrics": {"accuracy": {"mean": accuracy}}}


def keeper(folder, saved, is_main=True):
    def save(path):
        folder.mkdir(parents=True, exist_ok=True)
        saved.append(path)

    return BestPolicy(folder, save, is_main)


def test_only_a_better_policy_replaces_the_kept_one(tmp_path):
    saved = []
    best = keeper(tmp_path / "best", saved)
    offers = [("before", 0, 0.2), ("step_000010", 10, 0.5), ("step_000020", 20, 0.5), ("after", 30, 0.4)]
    assert [best.offer(report(*offer)) for offer in offers] == [True, True, False, False]
    assert len(saved) == 2
    record = json.loads((tmp_path / "best" / "held_out.json").read_text())
    assert record == {"step": 10, "accuracy": 0.5, "name": "step_000010"}


def test_a_resumed_run_keeps_the_best_of_earlier_sessions(tmp_path):
    keeper(tmp_path / "best", []).offer(report("step_000010", 10, 0.5))
    assert not keeper(tmp_path / "best", []).offer(report("step_000020", 20, 0.4))
    assert keeper(tmp_path / "best", []).offer(report("step_000030", 30, 0.6))


def test_other_processes_save_their_share_but_write_no_record(tmp_path):
    saved = []
    assert keeper(tmp_path / "best", saved, is_main=False).offer(report("before", 0, 0.2))
    assert len(saved) == 1 and not (tmp_path / "best" / "held_out.json").exists()


@pytest.mark.fault("F24")
@pytest.mark.parametrize("fails_in", ["policy", "record"])
def test_a_save_that_fails_keeps_the_best_policy_with_its_accuracy(tmp_path, monkeypatch, fails_in):
    folder = tmp_path / "best"
    policies = iter(["first", "second"])

    def fail(*args):
        raise OSError("the disk is full")

    def save(path):
        policy = next(policies)
        Path(path).mkdir(exist_ok=True)
        (Path(path) / "model.safetensors").write_text(policy)
        if policy == "second" and fails_in == "policy":
            fail()

    kept = BestPolicy(folder, save)
    kept.offer(report("step_000010", 10, 0.5))
    if fails_in == "record":
        monkeypatch.setattr("training.best.write_json", fail)
    with pytest.raises(OSError, match="full"):
        kept.offer(report("step_000020", 20, 0.6))
    assert (folder / "model.safetensors").read_text() == "first" and list(tmp_path.iterdir()) == [folder]
    assert kept.accuracy == BestPolicy(folder, save).accuracy == 0.5
