"""A disk that fills up while run_countdown.py saves: one sentence, exit code 1, and the previous checkpoint stays."""

import shutil
import subprocess

import pytest

from tests.processes import train
from training.checkpoint import find_checkpoint, is_complete, list_checkpoints

MEGABYTE = 1_000_000
FLAGS = ["--save_steps", "2"]
ROOM = 24  # MB: one checkpoint of the embedded policy takes 13, two do not fit


@pytest.fixture
def small_disk(tmp_path):
    """An empty file system of `ROOM` MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM * MEGABYTE}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command).returncode:
        pytest.skip("mounting a small file system needs the rights for it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def assert_one_sentence_and_the_previous_checkpoint(code: int, printed: str, folder) -> None:
    """The run ended as it should when step 4 could not be saved."""
    assert code == 1, printed
    (message,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert "checkpoint-4" in message and "earlier checkpoints are untouched" in message and "Traceback" not in printed
    assert not is_complete(folder / "checkpoint-4")[0]
    assert find_checkpoint(folder, "auto", report=lambda reason: None) == folder / "checkpoint-2"


@pytest.mark.fault("F24")
def test_a_full_disk_ends_the_run_which_goes_on_once_there_is_room(small_disk, tmp_path):
    folder = small_disk / "run"
    flags = [*FLAGS, "--max_steps", "4", "--output_dir", str(folder)]
    code, printed = train(flags, tmp_path / "log")
    assert_one_sentence_and_the_previous_checkpoint(code, printed, folder)
    assert "(0 MB free on that disk)" in printed
    subprocess.run(["mount", "-o", f"remount,size={4 * ROOM * MEGABYTE}", str(small_disk)], check=True)
    code, printed = train([*flags, "--resume", "auto"], tmp_path / "log")
    assert code == 0, printed
    assert [path.name for path in list_checkpoints(folder) if is_complete(path)[0]] == ["checkpoint-2", "checkpoint-4"]


@pytest.mark.fault("F24")
def test_a_quota_reached_while_saving_ends_the_run_in_the_same_way(tmp_path):
    folder = tmp_path / "run"
    flags = [*FLAGS, "--output_dir", str(folder)]
    code, printed = train([*flags, "--max_steps", "2"], tmp_path / "log")
    assert code == 0, printed
    more = [*flags, "--max_steps", "4", "--resume", "auto"]
    code, printed = train(more, tmp_path / "log", max_file_size=5 * MEGABYTE)  # policy 4.5 MB, optimiser 9 MB
    assert_one_sentence_and_the_previous_checkpoint(code, printed, folder)
