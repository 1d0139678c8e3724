"""benchmarks/gpu.sh: every command that it runs, at full size and at toy size, is one that the benchmarks take."""

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
if [ "$1" = -c ]; then echo nvidia-card; else echo "$@" >> "$0.log"; fi
"""


@pytest.fixture(params=["", "toy"])
def commands(request, tmp_path):
    """(module, flags) of each command of the script, in order."""
    recorder = tmp_path / "python"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    script = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), *filter(None, [request.param])]
    subprocess.run(script, env=os.environ | {"PYTHON": str(recorder)}, check=True, timeout=60)
    lines = (tmp_path / "python.log").read_text().splitlines()
    assert len(lines) == (5 if request.param else 6)
    return [(words[1], words[2:]) for words in map(shlex.split, lines)]


def test_its_commands_are_those_that_the_benchmarks_take(commands, monkeypatch):
    for module, flags in commands[1:]:  # the first one saves a policy, as do the tests of benchmarks.peak
        monkeypatch.setattr(sys, "argv", [module, *flags])
        options = parse_one(import_module(module).Options)
        place = "outputs/gpu_toy/gpu_toy_" if "toy" in options.output else "benchmarks/results/gpu_nvidia-card_"
        assert options.output.startswith(place)
    assert module == "benchmarks.bonus_overhead"
    assert options.names == ["sc", "cfn"] if "toy" in options.output else set(options.names) == set(REGISTRY)
