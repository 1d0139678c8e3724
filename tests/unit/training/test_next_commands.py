"""The commands that a run names at its end: the same flags with another bonus, its own folder, quoted."""

import shlex
from pathlib import Path

import pytest

from evaluation.tasks import TASKS
from tests.processes import ROOT
from training.next_commands import next_commands


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["--use_ir=knn+", "--seed", "1"], ["--seed", "1"]),
        (["--use-ir", "knn+", "--bs", "4", "--output_dir=a b"], ["--bs", "4"]),
        (["--resume", "auto", "--report_to", "wandb", "tensorboard"], ["--report_to", "wandb", "tensorboard"]),
        ([], []),
    ],
)
def test_the_same_run_with_another_bonus_keeps_every_other_flag(given, kept):
    for use_ir, other in (("knn+", "no"), ("no", "knn+")):
        _, again, _ = next_commands("countdown", given, Path("outputs/a"), use_ir)
        assert shlex.split(again) == ["python", "run_countdown.py", *kept, f"--use_ir={other}"]


def test_folders_with_blanks_are_quoted():
    evaluate, _, token_map = next_commands("gsm8k", [], Path("my runs/a"), "no")
    assert shlex.split(evaluate)[-1] == "--model_name=my runs/a/final"
    assert shlex.split(token_map)[3:] == ["--run", "my runs/a", "--model_name", "my runs/a/final", "--out", "map.html"]


@pytest.mark.parametrize("script", sorted(ROOT.glob("run_*.py")), ids=lambda script: script.stem)
def test_the_test_split_is_that_of_a_task_that_there_is(script):
    task = script.stem.removeprefix("run_")
    evaluate, *_ = next_commands(task, [], Path("outputs/a"), "no")
    name = shlex.split(evaluate)[2].removeprefix("--task=")
    assert name in TASKS or task in ("eval", "sft"), "scripts that end in no run of this kind"


def test_sql_is_evaluated_where_its_databases_are():
    evaluate, *_ = next_commands("sql", ["--data", "my spider", "--bs", "2", "--databases=d"], Path("a"), "no")
    assert shlex.split(evaluate)[3:] == ["--model_name=a/final", "--data", "my spider", "--databases=d"]


def test_an_evaluation_asks_as_the_run_asked_and_a_small_world_is_a_task():
    evaluate, *_ = next_commands("gsm8k", [], Path("a"), "no", {"data": "d", "prompt_type": "qwen25-math-cot"})
    assert shlex.split(evaluate)[2:] == ["--task=gsm8k", "--model_name=a/final", "--prompt_type=qwen25-math-cot"]
    asked = {"data": "sql_tiny", "prompt_type": "plain"}
    evaluate, *_ = next_commands("sql", ["--config", "c.yaml", "--data=sql_tiny"], Path("a"), "no", asked)
    assert shlex.split(evaluate)[2:] == ["--task=sql_tiny", "--model_name=a/final", "--prompt_type=plain"]


@pytest.mark.parametrize(
    "subset, task", [("ARC-Easy", "arc_easy"), ("ARC-Challenge", "arc_challenge"), ("all", "mmlu")]
)
def test_multiple_choice_is_evaluated_on_the_part_that_was_trained_on(subset, task):
    evaluate, *_ = next_commands("choice", [], Path("a"), "no", {"subset": subset, "prompt_type": "reasoning"})
    assert shlex.split(evaluate)[2] == f"--task={task}" and task in TASKS
