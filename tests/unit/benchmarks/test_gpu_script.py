"""benchmarks/gpu.sh: every command that it runs, at full, short and toy size, is one that the benchmarks take."""

import os
import shlex
import subprocess
import sys
from importlib import import_module

import pytest

from common.flags import parse_one
from intrinsic import REGISTRY
from tests.processes import ROOT

# Stands for Python: it names a card, and writes down what else it is called with.
RECORDER = """#!/bin/sh
if [ "$1" = -c ]; then echo nvidia-card; exit; fi
echo "$@" >> "$0.log"
case "$*" in *BROKEN*) exit 1;; esac
"""
BONUSES = {"": set(REGISTRY), "short": {"knn+", "cfn"}, "toy": {"sc", "cfn"}}


def commands(folder, *words, broken="none", code=0):
    """(module, flags) of each command of the script called with ``words``, in order; those of ``broken`` fail."""
    recorder = folder / "python"
    recorder.write_text(RECORDER.replace("BROKEN", broken))
    recorder.chmod(0o755)
    script = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), *words]
    done = subprocess.run(script, env=os.environ | {"PYTHON": str(recorder)}, check=False, timeout=60)
    assert done.returncode == code
    lines = (folder / "python.log").read_text().splitlines()
    return [(words[1], words[2:]) for words in map(shlex.split, lines)]


def test_a_table_that_cannot_be_made_does_not_stop_the_others(tmp_path):
    modules = [module for module, _ in commands(tmp_path, "short", broken="step_time", code=1)]
    assert modules[1] == "benchmarks.step_time" and modules[-1] == "benchmarks.bonus_overhead"


@pytest.mark.parametrize("mode", BONUSES)
def test_its_commands_are_those_that_the_benchmarks_take(mode, tmp_path, monkeypatch):
    found = commands(tmp_path, *filter(None, [mode]))
    assert len(found) == (5 if mode else 6)
    for module, flags in found[1:]:  # the first one saves a policy, as do the tests of benchmarks.peak
        monkeypatch.setattr(sys, "argv", [module, *flags])
        options = parse_one(import_module(module).Options)
        place = "outputs/gpu_toy/gpu_toy_" if "toy" in options.output else "benchmarks/results/gpu_nvidia-card_"
        assert options.output.startswith(place)
    assert module == "benchmarks.bonus_overhead"
    assert set(options.names) == BONUSES[mode]
