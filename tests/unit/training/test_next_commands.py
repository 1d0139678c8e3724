"""The commands that a run names at its end: the same flags with another bonus, its own folder, quoted."""

import shlex
from pathlib import Path

import pytest

from cli.parse import parse_options
from evaluation.tasks import TASKS
from intrinsic.options import IntrinsicOptions
from tasks.countdown.options import CountdownOptions
from tests.processes import ROOT
from training.next_commands import next_commands

PLAIN = IntrinsicOptions()


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
        _, again, _ = next_commands("countdown", given, Path("outputs/a"), IntrinsicOptions(use_ir=use_ir))
        assert shlex.split(again) == ["python", "run_countdown.py", *kept, f"--use_ir={other}"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("--use_ir=knn+,cfn --ir_weight 0.5,1 --bs 8", "--bs 8"),
        ("--use_ir knn,noise --ir-level reward,reward --k=3 --bs 8", "--bs 8"),
        ("--use_ir=sc --sc_alone --seed 1", "--seed 1"),
        ("--use_ir=cfn --ir_schedule linear --match_mass true --cfn_mode linear --bf16 false", "--bf16 false"),
        ("--use_ir=rnd --rnd-center true --rnd_width 8 --no_eval_greedy", "--no_eval_greedy"),
        ("--config two.yaml --seed 1", "--config two.yaml --seed 1 --ir_weight= --ir_level=advantage"),
        ("--config alone.yaml", "--config alone.yaml --sc_alone=false"),
        ("--config two.yaml --ir_weight 1,2 --ir_level reward", "--config two.yaml --ir_weight= --ir_level=advantage"),
        ("--use_ir=no --ir_weight 0.5 --ir_level reward --match_mass true", None),
    ],
)
def test_the_script_takes_the_flags_of_the_same_run_with_another_bonus(given, kept, monkeypatch, tmp_path):
    (tmp_path / "two.yaml").write_text("use_ir: knn+,ppl\nir_weight: 1,2\nir_level: reward,advantage\n")
    (tmp_path / "alone.yaml").write_text("use_ir: certain\nsc_alone: true\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run_countdown.py", *shlex.split(given)])
    _, intrinsic, *_ = parse_options("countdown", CountdownOptions)
    _, again, _ = next_commands("countdown", shlex.split(given), Path("a"), intrinsic)
    monkeypatch.setattr("sys.argv", shlex.split(again)[1:])
    _, other, *_ = parse_options("countdown", CountdownOptions)
    assert other.bonus_names == ([] if kept is not None else ["knn+"])
    assert kept is None or again == f"python run_countdown.py {kept} --use_ir=no"


def test_folders_with_blanks_are_quoted():
    evaluate, _, token_map = next_commands("gsm8k", [], Path("my runs/a"), PLAIN)
    assert shlex.split(evaluate)[-1] == "--model_name=my runs/a/final"
    assert shlex.split(token_map)[3:] == ["--run", "my runs/a", "--model_name", "my runs/a/final", "--out", "map.html"]


@pytest.mark.parametrize("script", sorted(ROOT.glob("run_*.py")), ids=lambda script: script.stem)
def test_the_test_split_is_that_of_a_task_that_there_is(script):
    task = script.stem.removeprefix("run_")
    evaluate, *_ = next_commands(task, [], Path("outputs/a"), PLAIN)
    name = shlex.split(evaluate)[2].removeprefix("--task=")
    assert name in TASKS or task in ("eval", "sft"), "scripts that end in no run of this kind"


def test_sql_is_evaluated_where_its_databases_are():
    evaluate, *_ = next_commands("sql", ["--data", "my spider", "--bs", "2", "--databases=d"], Path("a"), PLAIN)
    assert shlex.split(evaluate)[3:] == ["--model_name=a/final", "--data", "my spider", "--databases=d"]


def test_an_evaluation_asks_as_the_run_asked_and_a_small_world_is_a_task():
    evaluate, *_ = next_commands("gsm8k", [], Path("a"), PLAIN, {"data": "d", "prompt_type": "qwen25-math-cot"})
    assert shlex.split(evaluate)[2:] == ["--task=gsm8k", "--model_name=a/final", "--prompt_type=qwen25-math-cot"]
    asked = {"data": "sql_tiny", "prompt_type": "plain"}
    evaluate, *_ = next_commands("sql", ["--config", "c.yaml", "--data=sql_tiny"], Path("a"), PLAIN, asked)
    assert shlex.split(evaluate)[2:] == ["--task=sql_tiny", "--model_name=a/final", "--prompt_type=plain"]


@pytest.mark.parametrize(
    "subset, task", [("ARC-Easy", "arc_easy"), ("ARC-Challenge", "arc_challenge"), ("all", "mmlu")]
)
def test_multiple_choice_is_evaluated_on_the_part_that_was_trained_on(subset, task):
    evaluate, *_ = next_commands("choice", [], Path("a"), PLAIN, {"subset": subset, "prompt_type": "reasoning"})
    assert shlex.split(evaluate)[2] == f"--task={task}" and task in TASKS
