"""The summary of runs leaves out what it cannot read, with a line, and averages runs that differ in seed alone."""

import json

import pytest

from analysis import summary
from common.errors import UserError


def write_run(root, bonus, seed, before, after, evaluations=("before", "after"), task="countdown", **flags):
    folder = root / f"{bonus}_{seed}"
    (folder / "eval").mkdir(parents=True)
    options = {"intrinsic": {"use_ir": bonus}, "task": flags, "grpo": {"seed": seed, "run_name": folder.name}}
    (folder / "run.json").write_text(json.dumps({"seed": seed, "options": options, "resumed": []}))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 7, "seconds": 90.0}) + "\n")
    for name, share in zip(("before", "after"), (before, after), strict=True):
        if name in evaluations:
            interval = {"mean": share, "low": share - 0.1, "high": share + 0.1, "n": 50}
            metrics = {"accuracy": interval, "false_claims": interval}
            (folder / "eval" / f"{name}.json").write_text(json.dumps({"task": task, "metrics": metrics}))
    return folder


def printed(monkeypatch, capsys, *folders):
    monkeypatch.setattr("sys.argv", ["summary", *map(str, folders)])
    summary.main()
    return capsys.readouterr()


def test_a_row_a_run_and_a_row_for_seeds_of_the_same_settings(tmp_path, monkeypatch, capsys):
    folders = [write_run(tmp_path, "no", seed, 0.2, 0.4 + 0.1 * seed) for seed in (0, 1)]
    folders.append(write_run(tmp_path, "knn", 0, 0.2, 0.3))
    out = printed(monkeypatch, capsys, *folders).out
    assert "| no_0 | 7 | 1.5 | 20.0 % [10.0, 30.0] | 40.0 % [30.0, 50.0] | 2.00 | 40.0 % [30.0, 50.0] |" in out
    # Half width over two seeds .1 apart: t_.975(1) * .0707 / sqrt(2) = 12.706 * .05.
    assert "| no | 0, 1 | 20.0 ± 0.0 | 45.0 ± 63.5 | 25.0 ± 63.5 |" in out
    assert "| knn | 0 |" not in out


def test_runs_before_a_flag_was_removed_and_after_are_one_arm_and_those_of_another_task_are_none_of_it(
    tmp_path, monkeypatch, capsys
):
    old = [write_run(tmp_path, "no", seed, 0.2, 0.4, gone=False) for seed in (0, 1)]
    new = [write_run(tmp_path, "no", seed, 0.2, 0.4) for seed in (2, 3)]
    others = [write_run(tmp_path / "gsm8k", "no", seed, 0.2, 0.3, task="gsm8k") for seed in (4, 5)]
    out = printed(monkeypatch, capsys, *old, *new, *others).out
    assert "| no | 0, 1, 2, 3 |" in out and "| no | 4, 5 |" in out


def test_broken_and_running_folders_are_left_out_with_a_line(tmp_path, monkeypatch, capsys):
    good = write_run(tmp_path, "no", 0, 0.2, 0.4)
    running = write_run(tmp_path, "knn", 0, 0.2, 0.4, evaluations=("before",))
    damaged = write_run(tmp_path, "cfn", 0, 0.2, 0.4)
    (damaged / "eval" / "after.json").write_text("{")
    (tmp_path / "a_file").write_text("")
    captured = printed(monkeypatch, capsys, tmp_path / "a_file", running, damaged, tmp_path / "absent", good)
    assert captured.out.count("| no_0 |") == 1 and "knn_0" not in captured.out
    assert [line.startswith("left out: ") for line in captured.err.splitlines()] == [True] * 4
    assert "knn_0 has no eval/after.json" in captured.err


def test_no_finished_run_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="none of the 1 folders"):
        printed(monkeypatch, capsys, tmp_path)
