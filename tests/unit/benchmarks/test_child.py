"""Processes of a benchmark: how one ended is said, and what was measured before it is kept."""

import json
import sys

import pytest

from benchmarks import bonus_overhead, step_time
from benchmarks.child import output_of
from common.errors import RunError

KILLED = "import os, signal; os.kill(os.getpid(), signal.SIG{})"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit('no such policy')", "ended with exit code 1:\nno such policy"),
        (KILLED.format("KILL"), "was killed, which the system does where memory runs out"),
        (KILLED.format("TERM"), "was ended by SIGTERM"),
    ],
)
def test_how_a_process_ended_is_said(code, said):
    with pytest.raises(RunError) as error:
        output_of(["-c", code])
    assert said in str(error.value)


def test_its_output_is_what_it_printed(tmp_path):
    assert output_of(["-c", "import os; print(os.getcwd())"], cwd=tmp_path).strip() == str(tmp_path)


@pytest.mark.parametrize(
    ("benchmark", "flags", "of_a_run"),
    [
        (bonus_overhead, ["--bonuses", "knn,sc"], {"seconds": 2.0, "inside": 0.5, "megabytes": 10.0}),
        (step_time, ["--ways", "ours;trl"], {"seconds": [2.0], "generation": [0.5], "tokens": 10.0, "mb": 10.0}),
    ],
)
def test_a_run_that_fails_leaves_the_table_of_those_before_it(benchmark, flags, of_a_run, monkeypatch, tmp_path):
    def run_child(name):
        if name in ("sc", "trl"):
            raise RunError(f"{name} was killed")
        return of_a_run

    monkeypatch.setattr(benchmark, "run_child", run_child)
    monkeypatch.setattr(sys, "argv", ["benchmark", *flags, f"--output={tmp_path / 'found'}"])
    with pytest.raises(RunError, match="was killed"):
        benchmark.main()
    runs = json.loads((tmp_path / "found.json").read_text())["runs"]
    assert runs in ([["no", of_a_run], ["knn", of_a_run]], {"ours": [of_a_run]})
    assert "2.00" in (tmp_path / "found.md").read_text()
