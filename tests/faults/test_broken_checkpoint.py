"""Crashes, full disks and hostile files: no broken checkpoint is ever trusted, no good one is ever lost."""

import errno
import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from common.errors import RunError, UserError
from common.state import load_state, save_state
from training.checkpoint import find_checkpoint, is_complete, mark_complete, saving

STATE = {"memory": {"keys": torch.arange(600_000.0), "texts": ["a", "b"]}, "step": 3}


def make_checkpoint(output_dir: Path, step: int) -> Path:
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    save_state(STATE, folder)
    mark_complete(folder)
    return folder


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


DAMAGE = {
    "no marker": (lambda folder: (folder / "COMPLETE").unlink(), "no COMPLETE marker"),
    "truncated tensors": (
        lambda folder: cut(folder / "intrinsic_state.safetensors"),
        "bytes instead of",
    ),
    "missing file": (lambda folder: (folder / "trainer_state.json").unlink(), "trainer_state.json is missing"),
    "changed small file": (lambda folder: flip_last_byte(folder / "intrinsic_state.json"), "has changed"),
    "truncated marker": (lambda folder: cut(folder / "COMPLETE") or cut(folder / "COMPLETE"), "marker is damaged"),
    "marker that is no object": (lambda folder: (folder / "COMPLETE").write_text("[]"), "marker is damaged"),
}


@pytest.mark.fault("F25")
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_is_passed_over_with_its_reason(tmp_path, damage, capsys):
    previous, newest = make_checkpoint(tmp_path, 10), make_checkpoint(tmp_path, 20)
    inflict, reason = DAMAGE[damage]
    inflict(newest)
    assert find_checkpoint(tmp_path, "auto") == previous
    printed = capsys.readouterr().out
    assert "checkpoint-20" in printed and reason in printed


@pytest.mark.fault("F25")
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_asked_for_by_path_is_an_error(tmp_path, damage):
    folder = make_checkpoint(tmp_path, 10)
    inflict, reason = DAMAGE[damage]
    inflict(folder)
    with pytest.raises(UserError, match="--resume auto") as error:
        find_checkpoint(tmp_path, str(folder))
    assert reason in str(error.value)


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-1"))


@pytest.mark.fault("F25")
@pytest.mark.parametrize("name", ["intrinsic_state.safetensors", "intrinsic_state.json"])
@pytest.mark.parametrize("inflict", [cut, Path.unlink], ids=["truncated", "missing"])
def test_loading_a_damaged_state_is_an_error_that_names_the_folder(tmp_path, name, inflict):
    folder = make_checkpoint(tmp_path, 10)
    if name.endswith(".json"):
        cut(folder / name)
    inflict(folder / name)
    with pytest.raises(UserError, match="checkpoint-10"):
        load_state(folder)


def test_tensors_of_another_save_are_not_joined_with_this_json(tmp_path):
    save_state({"a": torch.zeros(1), "b": 1}, tmp_path)
    json_of_first = (tmp_path / "intrinsic_state.json").read_bytes()
    save_state({"c": torch.zeros(1), "b": 1}, tmp_path)
    (tmp_path / "intrinsic_state.json").write_bytes(json_of_first)
    with pytest.raises(UserError, match="different tensors"):
        load_state(tmp_path)


class Trap:
    """Unpickling it creates a file: proof that a payload ran."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self):
        return (Path.touch, (self.proof,))


def test_the_trap_works_at_all(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "proof")))
    assert (tmp_path / "proof").exists()


@pytest.mark.fault("F26")
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("writer", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_a_pickle_under_the_name_of_the_state_is_refused_and_not_run(tmp_path, suffix, writer):
    folder = make_checkpoint(tmp_path, 10)
    with (folder / f"intrinsic_state{suffix}").open("wb") as file:
        writer(Trap(tmp_path / "proof"), file)
    with pytest.raises(UserError, match="intrinsic_state"):
        load_state(folder)
    assert not (tmp_path / "proof").exists()


@pytest.mark.fault("F26")
def test_pickles_beside_the_state_are_not_read(tmp_path):
    folder = make_checkpoint(tmp_path, 10)
    for suffix in (".pt", ".pkl", ".bin", ".pth"):
        with (folder / f"intrinsic_state{suffix}").open("wb") as file:
            pickle.dump(Trap(tmp_path / "proof"), file)
    assert load_state(folder)["step"] == 3
    assert not (tmp_path / "proof").exists()


def disk_full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.fault("F24")
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_disk_full_while_saving_keeps_the_previous_state_and_leaves_no_temporary_file(tmp_path, monkeypatch, call):
    folder = make_checkpoint(tmp_path, 10)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, call, disk_full)
        with pytest.raises(OSError, match="No space left"):
            save_state({"other": torch.ones(3)}, folder)
        with pytest.raises(OSError, match="No space left"):
            mark_complete(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.fault("F24")
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_disk_full_during_a_checkpoint_leaves_it_unmarked_and_the_previous_one_complete(tmp_path, monkeypatch, call):
    previous = make_checkpoint(tmp_path, 10)
    folder = tmp_path / "checkpoint-20"
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, disk_full)
        with pytest.raises(RunError, match="No space left.*MB free.*--resume auto"), saving(folder):
            save_state(STATE, folder)
    assert list(folder.iterdir()) == []
    assert is_complete(previous) == (True, "")
    assert find_checkpoint(tmp_path, "auto", report=lambda reason: None) == previous


@pytest.mark.fault("F24")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_torch_save_on_a_full_disk_is_reported_as_a_failed_save(tmp_path):
    with pytest.raises(RunError, match="could not save.*earlier checkpoints are untouched"), saving(tmp_path / "new"):
        torch.save(torch.zeros(1_000_000), "/dev/full")


def test_an_error_that_is_not_about_writing_passes_through_and_leaves_no_marker(tmp_path):
    with pytest.raises(RuntimeError, match="out of memory") as error, saving(tmp_path):
        raise RuntimeError("out of memory")
    assert not isinstance(error.value, RunError)
    assert not is_complete(tmp_path)[0]


def test_a_crash_while_a_complete_checkpoint_is_written_again_leaves_it_unmarked(tmp_path):
    folder = make_checkpoint(tmp_path, 10)
    with pytest.raises(KeyboardInterrupt), saving(folder):
        raise KeyboardInterrupt
    assert not is_complete(folder)[0]
