"""The run folder: its record, its lock, its metrics file."""

import ast
import json
import math
import os
import re
import sqlite3
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.trainer_utils import IntervalStrategy

from common.errors import UserError
from tests.processes import ROOMS, ROOT
from training.run_folder import (
    MetricsFile,
    check_run_folder,
    create_run_folder,
    describe_run,
    git_commit,
    package_versions,
    plain,
    refuse_finished,
)

OPTIONS = {"intrinsic": {"use_ir": "knn+", "k": 1}, "training": {"seed": 7, "learning_rate": 1e-6}}


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_the_record_holds_flags_seed_versions_and_machine(tmp_path):
    with create_run_folder(tmp_path / "outputs" / "a run", OPTIONS, resume=False) as run:
        record = record_of(run.path)
    assert record["options"] == OPTIONS
    assert record["seed"] == 7
    assert record["versions"]["torch"] == torch.__version__ and record["versions"]["python"].startswith("3.")
    assert record["machine"]["cores"] >= 1 and record["machine"]["torch_threads"] >= 1
    assert record["resumed"] == []
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["started"])


def test_the_record_names_the_version_of_all_that_decides_a_result():
    """Every distribution that the code of a run imports, and what those compute with, but for what moves no number."""
    moves_none = {"filelock", "httpx", "huggingface_hub", "lighteval", "packaging", "pandas", "psutil", "pyarrow"}
    moves_none |= {"Jinja2", "PyYAML", "tqdm", "intrinsic-grpo"}  # the last is the project, whose commit is recorded
    modules = {name for room in ROOMS if room.name not in ("analysis", "benchmarks") for name in imported(room)}
    distributions, recorded = packages_distributions(), package_versions()
    used = {name for module in modules for name in distributions.get(module, [])}
    assert used - moves_none - recorded.keys() == set()
    assert {"latex2sympy2_extended", "antlr4-python3-runtime", "sympy"} <= recorded.keys()
    assert recorded["sqlite"] == sqlite3.sqlite_version


def imported(room: Path) -> set[str]:
    """First parts of the names that the modules of ``room`` import."""
    found = set()
    for node in (node for file in room.rglob("*.py") for node in ast.walk(ast.parse(file.read_text("utf-8")))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


def test_a_git_that_prints_no_text_leaves_the_commit_unknown(tmp_path, monkeypatch):
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\nprintf '/a\\377'\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert git_commit() is None


def test_a_second_run_in_the_folder_is_refused_with_the_ways_out(tmp_path):
    create_run_folder(tmp_path, OPTIONS, resume=False).release()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UserError, match=r"--resume auto.*--run_name"):
        create_run_folder(tmp_path, OPTIONS, resume=False)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_folder_with_checkpoints_but_no_record_is_refused(tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    with pytest.raises(UserError, match="checkpoint-5"):
        create_run_folder(tmp_path, OPTIONS, resume=False)


def test_a_folder_without_a_trained_step_is_free_and_keeps_nothing_of_the_first_start(tmp_path):
    create_run_folder(tmp_path, OPTIONS, resume=False).release()
    for name in ("eval/before.json", "best/held_out.json", "best.partial/config.json", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    create_run_folder(tmp_path, {"training": {"seed": 8}}, resume=False).release()
    assert record_of(tmp_path)["seed"] == 8 and record_of(tmp_path)["resumed"] == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == ["notes.txt", "run.json"]
    for name in ("eval/countdown.json", "best/mine.txt"):  # of others
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    create_run_folder(tmp_path, OPTIONS, resume=False).release()
    assert (tmp_path / "eval" / "countdown.json").is_file() and (tmp_path / "best" / "mine.txt").is_file()


def test_a_run_that_goes_on_from_the_start_has_its_own_record(tmp_path):
    create_run_folder(tmp_path, OPTIONS, resume=False).release()
    create_run_folder(tmp_path, {"training": {"seed": 8}}, resume=True, from_start=True).release()
    assert record_of(tmp_path)["seed"] == 8 and record_of(tmp_path)["resumed"] == []
    for name, said in (
        ("unevaluated", "run_eval.py --model_name=.*unevaluated"),
        ("final", r"a finished run \(final\)"),
    ):
        (tmp_path / name).mkdir()
        with pytest.raises(UserError, match=said):
            refuse_finished(tmp_path)


def test_a_folder_that_cannot_be_written_is_named_and_a_try_leaves_none(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="cannot be written"):
            check_run_folder(folder)
    check_run_folder(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_a_refused_run_does_not_keep_the_lock(tmp_path):
    create_run_folder(tmp_path, OPTIONS, resume=False).release()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="already holds"):
        create_run_folder(tmp_path, OPTIONS, resume=False)
    create_run_folder(tmp_path, OPTIONS, resume=True).release()


def test_resuming_keeps_the_first_record_and_appends(tmp_path):
    create_run_folder(tmp_path, OPTIONS, resume=False).release()
    first = record_of(tmp_path)
    for learning_rate in (2e-6, 3e-6):
        create_run_folder(tmp_path, {"training": {"learning_rate": learning_rate}}, resume=True).release()
    record = record_of(tmp_path)
    assert {**record, "resumed": []} == first
    assert [entry["options"]["training"]["learning_rate"] for entry in record["resumed"]] == [2e-6, 3e-6]


def test_resuming_an_empty_folder_starts_a_record(tmp_path):
    create_run_folder(tmp_path / "new", OPTIONS, resume=True).release()
    assert record_of(tmp_path / "new")["resumed"] == []


def test_a_damaged_record_is_reported_not_overwritten(tmp_path):
    (tmp_path / "run.json").write_text('{"seed"')
    with pytest.raises(UserError, match="damaged"):
        create_run_folder(tmp_path, OPTIONS, resume=True)
    assert (tmp_path / "run.json").read_text() == '{"seed"'


def test_an_output_dir_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output_dir"):
        create_run_folder(tmp_path / "file" / "run", OPTIONS, resume=False)


HOLD = """
import sys
from training.run_folder import create_run_folder
create_run_folder(sys.argv[1], {}, resume=False)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.fault("X1")
def test_two_live_processes_cannot_share_a_folder_and_the_lock_ends_with_its_process(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another live run"):
            create_run_folder(tmp_path, OPTIONS, resume=True)
        holder.kill()
        holder.wait()
    create_run_folder(tmp_path, OPTIONS, resume=True).release()


def test_a_run_holds_its_folder_even_when_the_caller_drops_the_handle(tmp_path):
    create_run_folder(tmp_path, OPTIONS, resume=False)
    with pytest.raises(UserError, match="another live run"):
        create_run_folder(tmp_path, OPTIONS, resume=True)


def test_secrets_are_hidden_but_token_settings_are_not():
    options = {"training": {"hub_token": "hf_abc", "vllm_api_key": None, "pad_token": "<pad>"}}
    shown = describe_run(options)["options"]["training"]
    assert shown == {"hub_token": "(hidden)", "vllm_api_key": None, "pad_token": "<pad>"}


def test_plain_turns_anything_into_strict_json():
    values = {
        "nan": math.nan,
        "array": np.array([1.0, math.inf]),
        "scalar": np.float32(0.5),
        "tensor": torch.tensor(3),
        "tuple": (1, Path("a")),
        "strategy": IntervalStrategy.STEPS,
        "flag": True,
    }
    expected = {
        "nan": None,
        "array": [1.0, None],
        "scalar": 0.5,
        "tensor": 3,
        "tuple": [1, "a"],
        "strategy": "steps",
        "flag": True,
    }
    assert plain(values) == expected
    assert json.loads(json.dumps(plain(values), allow_nan=False)) == expected


def test_metrics_are_on_disk_after_each_line_and_non_finite_values_are_null(tmp_path):
    file = MetricsFile(tmp_path / "new" / "metrics.jsonl")
    file.write({"step": 1, "loss": math.nan, "reward": -math.inf, "text": "é\ud800"})
    assert file.read() == [{"step": 1, "loss": None, "reward": None, "text": "é\ud800"}]
    assert file.path.read_bytes().decode("utf-8").endswith("}\n")
    file.close()


def test_metrics_of_an_earlier_session_are_kept(tmp_path):
    for step in (1, 2):
        file = MetricsFile(tmp_path / "metrics.jsonl")
        file.write({"step": step})
        file.close()
    assert [record["step"] for record in file.read()] == [1, 2]


def test_a_line_half_written_in_a_crash_does_not_spoil_the_next_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    file = MetricsFile(path)
    file.write({"step": 2})
    file.close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_line_half_written_in_a_crash_is_told_of_once(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert MetricsFile(path).truncate_after(1) == MetricsFile(path).read() == [{"step": 1}]
    assert [record.getMessage().count("the last line is cut off") for record in caplog.records] == [1]


def test_truncating_drops_later_steps_and_summaries_and_writing_goes_on(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3, 4):
        file.write({"step": step, "reward": step / 10})
    file.write({"step": 2, "eval_reward": 0.5})
    file.write({"step": 2, "train_runtime": 1.0})
    kept = file.truncate_after(2)
    file.write({"step": 3, "reward": 9.0})
    file.close()
    expected = [{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.2}, {"step": 2, "eval_reward": 0.5}]
    assert kept == expected
    assert file.read() == [*expected, {"step": 3, "reward": 9.0}]


def test_a_damaged_line_in_the_middle_is_reported_by_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\ngarbage\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        MetricsFile(path).truncate_after(1)
