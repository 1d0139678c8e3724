"""A run's name tells apart whatever the command line makes another experiment, and nothing else."""

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.parse import parse_options
from common.errors import UserError
from tasks.countdown.options import CountdownOptions
from training.run_name import default_output_dir, name_parts, run_name


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("tiny", "knn+", 0), "tiny_knn+_seed0"),
        (("Qwen/Qwen2.5-0.5B", "knn+,cfn", 3, "lr1e-5"), "Qwen2.5-0.5B_knn+-cfn_seed3_lr1e-5"),
        (("/some where/policy/", "no", 1), "policy_no_seed1"),
        (("../..//.hidden", "no", 1), "hidden_no_seed1"),
        (("модель v1", "no", 1), "v1_no_seed1"),
        (("outputs/sft/tiny_traces_seed0/final", "no", 1), "tiny_traces_seed0_no_seed1"),
        (("runs/a/best/", "no", 1), "a-best_no_seed1"),
        (("runs/a/unevaluated", "no", 1), "a-unevaluated_no_seed1"),
        (("runs/a/checkpoint-50", "no", 1), "a-checkpoint-50_no_seed1"),
        (("final", "no", 1), "final_no_seed1"),
        (("../final", "no", 1), "final_no_seed1"),
    ],
)
def test_run_names_follow_one_rule(parts, name):
    assert run_name(*parts) == name


@given(st.text(max_size=200), st.text(max_size=200))
def test_run_names_are_always_one_safe_path_component(model, bonus):
    try:
        name = run_name(model, bonus, 0)
    except UserError:
        return
    assert re.fullmatch(r"[A-Za-z0-9+_-][A-Za-z0-9.+_-]*", name) and len(name) <= 255


@pytest.mark.parametrize("model", ["", "..", "/", "модель"])
def test_a_model_without_a_usable_name_is_a_clear_error(model):
    with pytest.raises(UserError, match="--run_name"):
        run_name(model, "no", 0)


def test_the_default_folder_is_task_then_name():
    assert default_output_dir("gsm8k", "tiny_knn_seed2") == Path("outputs/gsm8k/tiny_knn_seed2")


def parts_of(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run_countdown.py", *arguments])
    return parse_options("countdown", CountdownOptions)[2].name_parts


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--use_ir=knn+", "--seed", "3"], []),
        (["--use_ir=knn+", "--k=1", "--ir_level=advantage"], []),  # typed, and the defaults
        (["--use_ir=knn+", "--k=4", "--ir_level=reward"], ["k4", "ir_level-reward"]),
        (["--use_ir=knn,cfn", "--ir_weight=.5,1"], ["ir_weight-.5,1"]),
        (["--lora", "--bf16", "false", "--learning_rate=3e-4"], ["lora", "bf16-false", "learning_rate0.0003"]),
        (["--eval_samples", "8", "--report_to=tensorboard", "--max_steps=9", "--save_steps", "5"], []),
    ],
)
def test_flags_that_change_the_experiment_are_in_the_name(arguments, parts, monkeypatch):
    assert sorted(parts_of(monkeypatch, *arguments)) == sorted(parts)


def test_of_a_config_file_only_what_the_command_line_changes_is_named(monkeypatch, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("use_ir: knn+\nk: 4\nL: 96\n")
    assert parts_of(monkeypatch, "--config", str(file), "--k=4", "--L=64") == ["L64"]


def test_paths_and_lists_are_named_by_their_last_parts():
    flags = {"data": "/some/where/rows.jsonl", "lora_target_modules": ["q_proj", "v_proj"], "min_p": None}
    assert name_parts(flags) == ["data-rows.jsonl", "lora_target_modules-q_proj-v_proj", "min_p-none"]


def test_a_name_that_is_too_long_ends_in_a_digest_of_all_of_it():
    names = {run_name("tiny", "no", 0, *[f"some_flag_{place}-{end}" for place in range(30)]) for end in ("a", "b")}
    assert len(names) == 2 and max(map(len, names)) <= 255
