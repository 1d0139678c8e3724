"""run_eval.py and sh/eval_gsm8k.sh from the shell: tables, files, comparison, judging again, and refused input."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from policy.load import EMBEDDED
from tests.processes import ENVIRONMENT, ROOT, run_script

SHARED = ROOT.parent / "shared" / "data"
TINY = ["--model_name=tiny", "--max_new_tokens", "8"]


def run(*flags, **settings):
    return run_script("run_eval.py", *flags, **settings)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(5)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Countdown, four samples of each of eight problems."""
    path = tmp_path_factory.mktemp("eval") / "sampled.json"
    flags = ["--task=countdown", "--model_name=tiny", "--limit", "8", "--n", "4", "--temperature", "1"]
    return path, run(*flags, "--output", path, fresh=True)


def test_all_tiers_pass_and_vote_are_side_by_side_with_records(sampled):
    path, result = sampled
    for name in ("strict", "medium", "loose", "pass@4", "maj@4", "mean_length", "truncated", "well_formed"):
        assert any(line.startswith(name) for line in result.stdout.splitlines()), result.stdout
    report = json.loads(path.read_text())
    assert len(report["records"]) == 32 and report["decoding"]["samples"] == 4
    assert {"completion", "numbers", "target", "verdict", "strict", "answer"} <= set(report["records"][0])
    assert not path.with_suffix(".partial.jsonl").exists()


def test_the_readmes_command_needs_no_other_flag(rows, tmp_path):
    run("--task=gsm8k", *TINY, "--data", rows, cwd=tmp_path)
    (path,) = (tmp_path / "outputs" / "eval" / "gsm8k" / "tiny").glob("*.json")
    data = "-".join(rows.parts[-2:])
    assert (
        path.name == f"greedy_reasoning_0shot_max8_data-{data}.json"
        and len(json.loads(path.read_text())["records"]) == 5
    )


def test_compare_and_regrade_need_no_model(sampled, tmp_path):
    path, _ = sampled
    report = json.loads(path.read_text())
    for record in report["records"]:
        record["medium"] = record["loose"] = False
    changed = tmp_path / "wrong.json"
    changed.write_text(json.dumps(report))
    compared = run("--compare", changed, path)
    assert "95 % interval" in compared.stdout and "8 problems" in compared.stdout
    right = sum(record["medium"] for record in json.loads(path.read_text())["records"])
    again = run("--regrade", changed)
    assert f"{right} of 32 verdicts changed" in again.stdout
    regraded = json.loads((tmp_path / "wrong.regraded.json").read_text())
    assert regraded["metrics"]["medium"] == json.loads(path.read_text())["metrics"]["medium"]


def test_output_may_be_a_folder(rows, tmp_path):
    run("--task=gsm8k", *TINY, "--data", rows, "--output", tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_shell_script_prints_the_loose_tier_from_inside_its_folder(rows, tmp_path):
    flags = [
        "qwen25-math-cot",
        "tiny",
        "--data",
        str(rows),
        "--max_new_tokens",
        "8",
        "--output",
        str(tmp_path / "x.json"),
    ]
    command = ["bash", "sh/eval_gsm8k.sh", *flags]
    environment = os.environ | ENVIRONMENT | {"PYTHON": sys.executable}
    settings = {"capture_output": True, "text": True, "cwd": ROOT / "evaluation", "env": environment, "timeout": 300}
    result = subprocess.run(command, **settings)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines()[1].startswith("loose") and "medium" not in result.stdout


def test_shell_script_hands_on_its_flags_and_the_exit_code(tmp_path):
    """What run_eval.py refuses ends the script with code 2; a stand-in for Python says what it was called with."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 2\n")
    python.chmod(0o755)
    command = ["bash", "evaluation/sh/eval_gsm8k.sh", "plain", "a model", "--data", "nowhere.jsonl"]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHON": python}, capture_output=True, text=True)
    script, *flags = ended.stdout.splitlines()
    assert ended.returncode == 2 and script == str(ROOT / "run_eval.py")
    assert flags[1:3] == ["--prompt_type=plain", "--model_name=a model"] and flags[-2:] == ["--data", "nowhere.jsonl"]


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
@pytest.mark.parametrize(
    "task, source", [("gsm8k", "gsm8k"), ("svamp", "svamp/test.jsonl"), ("math500", "math500/test.jsonl")]
)
def test_every_task_runs_on_its_real_rows(task, source, tmp_path):
    flags = [f"--task={task}", *TINY, "--data", SHARED / source, "--limit", "3", "--output", tmp_path / "x.json"]
    if source.endswith("jsonl"):
        flags += ["--split", "train"]
    run(*flags)
    assert len(json.loads((tmp_path / "x.json").read_text())["records"]) == 3


def without_weights(folder):
    shutil.copytree(EMBEDDED, folder)
    (folder / "model.safetensors").unlink()
    return folder


BAD_INPUT = {
    "unknown task": (["--task=aime"], ["aime", "svamp"]),
    "greedy samples": (["--n", "4"], ["--temperature"]),
    "missing file": (["--data", "nowhere.jsonl"], ["nowhere.jsonl"]),
    "unknown model": (["--model_name", "nobody/nothing"], ["nobody/nothing"]),
    "unknown prompt type": (["--prompt_type", "haiku"], ["haiku", "plain"]),
    "unknown tier": (["--tier", "medum"], ["medum", "loose"]),
    "one file to compare": (["--compare", "a.json"], ["two files"]),
    "no evaluation": (["--regrade", "README.md"], ["README.md"]),
}


@pytest.mark.parametrize("flags, words", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_sentence_and_exit_code_2(flags, words):
    result = run(*flags, code=2)
    message = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(message) == 1 and "Traceback" not in result.stderr
    assert all(word in message[0] for word in words)


def test_damaged_data_and_checkpoints_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "columns.jsonl").write_text('{"problem": "1", "reply": "2"}\n')
    cases = [
        (["--data", tmp_path / "empty.jsonl"], "no rows"),
        (["--data", tmp_path / "columns.jsonl"], "problem, reply"),
        (["--model_name", without_weights(tmp_path / "model")], "incomplete"),
    ]
    for flags, words in cases:
        result = run(*flags, code=2)
        assert words in result.stderr and "Traceback" not in result.stderr
