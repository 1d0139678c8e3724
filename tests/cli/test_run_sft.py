"""run_sft.py from the shell: traces to a policy that run_countdown.py takes; resume, LoRA and bad input."""

import json
import re

import pytest

from tests.processes import ROOT, run_python, run_script

TOY = ["--per_device_train_batch_size", "4", "--learning_rate", "1e-3", "--seed", "0", "--logging_steps", "1"]


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "injected.jsonl"
    run_script("tasks.countdown.bridge", "--n", 16, "--output", path, fresh=True)
    return path


@pytest.fixture(scope="module")
def trained(traces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft")
    result = run_script("run_sft.py", "--data", traces, *TOY, "--max_steps", 2, cwd=folder, fresh=True)
    (run,) = (folder / "outputs" / "sft").iterdir()
    return run, result


def test_leaves_policy_record_and_metrics_under_the_one_rule_for_names(trained):
    folder, result = trained
    assert folder.name == "tiny_injected_seed0_per_device_train_batch_size4_learning_rate0.001"
    assert (folder / "final" / "model.safetensors").exists() and "16 traces, 2 updates" in result.stdout
    assert json.loads((folder / "run.json").read_text())["options"]["sft"]["loss_on"] == "completion"
    logs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [log["step"] for log in logs if "loss" in log] == [1, 2]


def test_reinforcement_learning_goes_on_from_it(trained, tmp_path):
    flags = ["--config", "configs/countdown_tiny.yaml", "--max_steps", 1, "--bs", 2, "--L", 16, "--do_eval", "false"]
    flags += ["--num_generations", 4, "--train_problems", 64, "--eval_problems", 8, "--save_strategy", "no"]
    run_script("run_countdown.py", "--model_name", trained[0] / "final", *flags, "--output_dir", tmp_path / "rl")
    assert (tmp_path / "rl" / "final" / "config.json").exists()


def test_tiny_is_a_new_policy_sized_for_traces_that_the_embedded_one_has_no_words_for(tmp_path):
    problems = tmp_path / "igsm.jsonl"
    settings = ["--n", 8, "--traces", "plain", "--min_op", 4, "--max_op", 5]
    run_script("tasks.igsm.generate", "--output", problems, *settings, fresh=True)
    flags = ["--data", problems, *TOY, "--max_length", 400, "--output_dir", tmp_path / "sft"]
    result = run_script("run_sft.py", *flags, "--max_steps", 1)
    assert "new policy" in result.stdout and "traces, 1 updates" in result.stdout
    shape = json.loads((tmp_path / "sft" / "final" / "config.json").read_text())
    assert shape["hidden_size"] == 256 and shape["vocab_size"] > 300
    assert "--lora" in run_script("run_sft.py", "--data", problems, "--lora", code=2).stderr


def test_a_resumed_run_equals_an_uninterrupted_one(traces, tmp_path):
    flags = ["--data", traces, *TOY, "--save_strategy", "steps", "--save_steps", 1, "--lr_scheduler_type", "constant"]
    # By an interpreter of its own: its hash seed differs from that of the forked halves.
    run_python(ROOT / "run_sft.py", *flags, "--max_steps", 3, "--output_dir", tmp_path / "straight")
    run_script("run_sft.py", *flags, "--max_steps", 2, "--output_dir", tmp_path / "halves")
    going_on = [*flags, "--max_steps", 3, "--output_dir", tmp_path / "halves", "--resume", "auto"]
    refused = run_script("run_sft.py", *going_on, "--weight_decay", 0.5, code=2).stderr
    assert re.search(r"sft.weight_decay +\| 0 +\| 0.5", refused)
    run_script("run_sft.py", *going_on)
    first, second = ((tmp_path / name / "final" / "model.safetensors").read_bytes() for name in ("straight", "halves"))
    assert first == second


def test_lora_leaves_adapter_and_merged_policy(traces, tmp_path):
    run_script("run_sft.py", "--data", traces, *TOY, "--max_steps", 1, "--lora", "--output_dir", tmp_path / "run")
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--data is needed"),
        (["--data", "nowhere.jsonl"], "not a file or folder"),
        (["--data", "TRACES", "--max_length", "4"], "all 16 traces are longer than 4 tokens"),
        (["--data", "TRACES", "--completion_only_loss", "false"], "--loss_on"),
        (["--data", "TRACES", "--loss_onn", "all"], "did you mean --loss_on"),
        (["--data", "TRACES", "--resume", "auto"], "there is no complete checkpoint"),
        (["--data", "TRACES", "--model_name", "nowhere/model"], "--model_name='nowhere/model'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(flags, message, traces, tmp_path):
    flags = [str(traces) if flag == "TRACES" else flag for flag in flags]
    result = run_script("run_sft.py", *flags, code=2, cwd=tmp_path)
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("model.safetensors"))


def test_help_explains_every_flag_by_group():
    text = run_script("run_sft.py", "--help").stdout
    assert "--loss_on" in text and "--packing" in run_script("run_sft.py", "--help_all").stdout
