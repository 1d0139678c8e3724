"""Threads are chosen by the load, before torch is imported, and stay the same on resume."""

import json

import pytest
import torch

from common import threads
from common.threads import by_load
from tests.processes import OURS, ROOT, run_python
from training.run_folder import take_recorded_threads


@pytest.mark.parametrize(
    ("cores", "busy", "expected", "passive"),
    [(2, 0.0, None, False), (2, 1.0, 1, True), (2, 2.0, 1, True), (16, 1.0, 15, True), (1, 1.0, 1, True)],
)
def test_a_process_takes_the_cores_that_are_free(cores, busy, expected, passive):
    choice = by_load(cores, busy)
    assert (choice.threads, choice.passive) == (expected, passive)


def test_the_load_is_the_share_of_time_that_usable_cores_were_not_idle(monkeypatch):
    looks = iter([[(100, 50), (100, 90)], [(200, 50), (200, 190)]])
    monkeypatch.setattr(threads, "_core_times", lambda: next(looks))
    monkeypatch.setattr(threads, "LOOK", 0.0)
    assert threads.busy_cores() == 1.0


def test_what_the_user_set_is_left_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    choice = threads.choose_threads.__wrapped__()
    assert choice.threads == 3
    assert "OMP_NUM_THREADS=3 is set" in str(choice)
    assert "OMP_WAIT_POLICY" not in threads.os.environ


def test_every_script_and_benchmark_chooses_before_torch_is_imported():
    # The first import of torch finds the choice made: a stand-in for torch says so and ends the import.
    probe = (
        "import sys, importlib.abc\n"
        "class Found(BaseException): pass\n"
        "class Probe(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch':\n"
        "            from common.threads import choose_threads\n"
        "            raise Found(choose_threads.cache_info().currsize)\n"
        "sys.meta_path.insert(0, Probe())\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "for module in sys.argv[3:]:\n"
        "    try:\n"
        "        importlib.import_module(module)\n"
        "    except Found as found:\n"
        "        print(module, found)\n"
        "    for name in [name for name in sys.modules if name.split('.')[0] in sys.argv[2].split()]:\n"
        "        del sys.modules[name]\n"
    )
    modules = [path.stem for path in sorted(ROOT.glob("run_*.py"))] + ["benchmarks.step_time", "tests.conftest"]
    printed = run_python("-c", probe, ROOT, " ".join(OURS), *modules).stdout
    assert printed.splitlines() == [f"{module} 1" for module in modules]


def test_a_resumed_run_takes_the_threads_of_its_record(tmp_path):
    before = torch.get_num_threads()
    (tmp_path / "run.json").write_text(json.dumps({"machine": {"torch_threads": before + 1}}))
    try:
        take_recorded_threads(tmp_path)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
