"""Processes of a benchmark: how one ended is said, and what was measured before it is kept."""

import json
import signal
import subprocess
import sys

import pytest

from benchmarks import bonus_overhead, generation, memory_read, peak, step_time
from benchmarks.child import measured, output_of
from common.errors import RunError
from tests.processes import ROOT

# A benchmark whose second measurement waits, for the signal or for the end of its input.
WAITING = """
import sys
from benchmarks import peak

def measure(options, policy, flags):
    if "0.04" in flags:
        return {"estimated": 2.0, "measured": 1.0}
    print("waiting", flush=True)
    sys.stdin.read()
    raise SystemExit(3)

peak.measure = measure
peak.main()
"""
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


def test_output_that_is_no_text_is_read_with_its_other_characters():
    assert output_of(["-c", "import sys; sys.stdout.buffer.write(b'a\\xffb')"]) == "a\ufffdb"


def test_its_output_is_what_it_printed(tmp_path):
    assert output_of(["-c", "import os; print(os.getcwd())"], cwd=tmp_path).strip() == str(tmp_path)


def test_what_a_process_measured_is_its_last_line(tmp_path, monkeypatch):
    (tmp_path / "toy_benchmark.py").write_text(
        "import json, sys\nprint('warming up')\nprint(json.dumps(sys.argv[1:]))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert measured("toy_benchmark", "--rows", 4) == ["--rows", "4"]


@pytest.mark.parametrize(
    ("benchmark", "flags", "of_a_run"),
    [
        (bonus_overhead, ["--bonuses", "knn,sc"], {"seconds": 2.0, "inside": 0.5, "megabytes": 10.0}),
        (step_time, ["--ways", "ours;trl"], {"seconds": [2.0], "generation": [0.5], "tokens": 10.0, "mb": 10.0}),
    ],
)
def test_a_run_that_fails_leaves_the_table_of_those_before_it(benchmark, flags, of_a_run, monkeypatch, tmp_path):
    def measured(module, *flags):
        assert module == benchmark.__name__
        if flags[-1] in ("sc", "trl"):
            raise RunError(f"{flags[-1]} was killed")
        return of_a_run

    monkeypatch.setattr(benchmark, "measured", measured)
    monkeypatch.setattr(sys, "argv", ["benchmark", *flags, f"--output={tmp_path / 'found'}"])
    with pytest.raises(RunError, match="was killed"):
        benchmark.main()
    runs = json.loads((tmp_path / "found.json").read_text())["runs"]
    assert runs in ([["no", of_a_run], ["knn", of_a_run]], {"ours": [of_a_run]})
    assert "2.00" in (tmp_path / "found.md").read_text()


def test_peaks_that_were_measured_before_a_dry_run_fails_are_kept(monkeypatch, tmp_path):
    def measure(options, policy, flags):
        if "--use_ir=sc,cfn" in flags:
            raise RunError("out of memory")
        return {"estimated": 2.0, "measured": 1.0}

    monkeypatch.setattr(peak, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["peak", "--shapes", "toy", f"--output={tmp_path / 'found'}"])
    with pytest.raises(RunError, match="out of memory"):
        peak.main()
    assert list(json.loads((tmp_path / "found.json").read_text())["runs"]["toy"]) == ["full, KL penalty", "full"]


def test_samplers_that_were_measured_before_an_interruption_are_kept(monkeypatch, tmp_path):
    def run_child(sampler):
        if sampler == "vllm":
            raise KeyboardInterrupt
        return {"missing": "not on this machine"}

    monkeypatch.setattr(generation, "run_child", run_child)
    monkeypatch.setattr(sys, "argv", ["generation", "--sampler", "hf,vllm", f"--output={tmp_path / 'found'}"])
    with pytest.raises(KeyboardInterrupt):
        generation.main()
    assert list(json.loads((tmp_path / "found_qwen2.5-0.5b_full.json").read_text())["samplers"]) == ["hf"]


def test_what_was_measured_before_sigterm_is_kept(tmp_path):
    command = [sys.executable, "-c", WAITING, "--shapes=toy", f"--output={tmp_path / 'found'}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 143
    assert list(json.loads((tmp_path / "found.json").read_text())["runs"]["toy"]) == ["full, KL penalty"]


@pytest.fixture
def sigterm():
    """SIGTERM is handled as before after the test, and raises where nothing else handles it."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: pytest.fail("SIGTERM is not handled"))
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("benchmark", "measures"),
    [
        (bonus_overhead, "measured"),
        (generation, "run_child"),
        (step_time, "measured"),
        (peak, "measure"),
        (memory_read, "measure"),
    ],
)
def test_every_benchmark_that_keeps_what_it_has_at_an_exit_takes_sigterm_for_one(
    benchmark, measures, sigterm, monkeypatch, tmp_path
):
    monkeypatch.setattr(benchmark, measures, lambda *arguments: signal.raise_signal(signal.SIGTERM))
    needed = {peak: ["--shapes=toy"], memory_read: ["--data=rows.jsonl"]}.get(benchmark, [])
    monkeypatch.setattr(sys, "argv", ["benchmark", *needed, f"--output={tmp_path / 'found'}"])
    with pytest.raises(SystemExit, match="143"):
        benchmark.main()
    signal.raise_signal(signal.SIGTERM)  # another one is ignored
