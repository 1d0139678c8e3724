"""run_countdown.py from the shell, at toy size: what it leaves behind, determinism, resume, and refused input."""

import json
import sys

import pandas as pd
import pytest

from tests.processes import ROOT, ScriptProcess, run_python, run_script

TOY = ["--bs", "2", "--num_generations", "4", "--L", "12", "--train_problems", "64", "--eval_problems", "8"]
TOY += ["--logging_steps", "1", "--seed", "3"]
KNN_PLUS = ["--use_ir=knn+", "--explore_warmup", "1"]


def run(*flags, **settings):
    return run_script("run_countdown.py", *TOY, *flags, **settings)


def metrics(folder, drop=("seconds", "step_time", "train_runtime")):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in drop and not key.startswith(("train_", "profiling/"))}
        for line in lines
        if "loss" in line
    ]


def memory_bytes(folder, step):
    return (folder / f"checkpoint-{step}" / "intrinsic_state.safetensors").read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Four steps of knn+ without a stop, saved at steps 2 and 4.

    By an interpreter of its own: its hash seed differs from that of the runs that are compared with it.
    """
    folder = tmp_path_factory.mktemp("straight") / "run with spaces"
    flags = [*TOY, *KNN_PLUS, "--max_steps", "4", "--save_steps", "2"]
    return folder, run_python(ROOT / "run_countdown.py", *flags, "--output_dir", folder)


def test_run_folder_holds_what_a_reader_needs(straight):
    folder, result = straight
    options = json.loads((folder / "run.json").read_text())
    assert options["seed"] == 3 and options["versions"]["torch"]
    rows = metrics(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for part in ("raw", "scaled", "weight", "nonfinite", "share_of_advantage", "exploit/raw", "explore/raw_wrong"):
        assert f"ir/knn+/{part}" in rows[-1]
    before, after = (json.loads((folder / "eval" / f"{name}.json").read_text()) for name in ("before", "after"))
    assert len(before["records"]) == 8 * 2 and after["step"] == 4  # sampled and greedy
    assert (folder / "report.html").exists() and list((folder / "plots").glob("*.png"))
    assert "accuracy" in (folder / "final" / "README.md").read_text() and not (folder / "README.md").exists()
    completions = pd.read_parquet(next((folder / "completions").glob("*.parquet")))
    assert len(completions) == 8
    wanted = {"question", "completion", "correct", "verdict", "approach", "correctness", "advantage"}
    assert wanted | {"raw_ir_knn+_exploit", "raw_ir_knn+_explore"} <= set(completions)
    assert "accuracy" in result.stdout and "before" in result.stdout and str(folder) in result.stdout


def forbid_text_encoders(connection):
    """Makes every import of them fail."""
    sys.modules.update(dict.fromkeys(("faiss", "sentence_transformers")))


def test_without_an_output_dir_the_run_is_named_by_model_bonus_and_seed(tmp_path):
    run("--use_ir=no", "--max_steps", "1", "--do_eval", "0", cwd=tmp_path)
    (folder,) = (tmp_path / "outputs" / "countdown").iterdir()
    assert folder.name.startswith("tiny_no_seed3_") and (folder / "run.json").exists()


def test_same_seed_gives_the_same_run_bit_for_bit(straight, tmp_path):
    run(*KNN_PLUS, "--max_steps", "4", "--save_steps", "2", "--output_dir", tmp_path)
    assert metrics(tmp_path) == metrics(straight[0])
    assert memory_bytes(tmp_path, 4) == memory_bytes(straight[0], 4)
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (tmp_path, straight[0])]
    assert weights[0] == weights[1]


def evaluated_before(folder):
    return json.loads((folder / "eval" / "before.json").read_text())


def test_a_run_takes_the_same_evaluation_before_training_from_one_beside_it_and_trains_alike(straight):
    folder, beside = straight[0], straight[0].parent / "beside"
    printed = run(*KNN_PLUS, "--max_steps", "4", "--reuse_before", "--output_dir", beside).stdout
    place = str(folder / "eval" / "before.json")
    assert f"held-out evaluation before training: that of {place}" in printed
    assert evaluated_before(beside) == evaluated_before(folder) | {"taken_from": place}
    assert metrics(beside) == metrics(folder)
    other = straight[0].parent / "other"
    run("--use_ir=no", "--max_steps", "1", "--eval_samples", "2", "--reuse_before", "--output_dir", other)
    assert "taken_from" not in evaluated_before(other) and len(evaluated_before(other)["records"]) == 8 * 3


@pytest.mark.fault("F27")
def test_resumed_run_equals_the_uninterrupted_one(straight, tmp_path):
    # The learning rate schedule of the preset is constant, so stopping at 2 of 2 and of 4 steps trains alike.
    flags = [*KNN_PLUS, "--save_steps", "2", "--output_dir", str(tmp_path)]
    run(*flags, "--max_steps", "2")
    run(*flags, "--max_steps", "4", "--resume", "auto")
    assert metrics(tmp_path) == metrics(straight[0])
    assert memory_bytes(tmp_path, 4) == memory_bytes(straight[0], 4)
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (tmp_path, straight[0])]
    assert weights[0] == weights[1]


@pytest.mark.fault("F27")
def test_resume_with_other_settings_is_refused_with_a_table(straight):
    folder, _ = straight
    record = (folder / "run.json").read_text()
    changes = ["--k", "3", "--learning_rate", "0.01", "--adam_beta2", "0.9", "--ir_min_std", "0.1", "--max_steps", "6"]
    result = run(*KNN_PLUS, *changes, "--resume", "auto", "--output_dir", str(folder), code=2)
    assert (folder / "run.json").read_text() == record
    rows = [line.split("|")[0].strip() for line in result.stderr.splitlines() if "|" in line]
    assert rows == ["setting", "intrinsic.k", "intrinsic.ir_min_std", "grpo.learning_rate", "grpo.adam_beta2"]


@pytest.mark.fault("X1")
def test_folder_of_another_run_is_refused(straight):
    result = run("--use_ir=no", "--output_dir", str(straight[0]), code=2)
    assert "already holds a run" in result.stderr


@pytest.mark.fault("X5")
def test_no_bonus_needs_neither_faiss_nor_sentence_transformers(tmp_path):
    flags = [*TOY, "--use_ir=no", "--max_steps", "1", "--do_eval", "0", "--output_dir", tmp_path / "run"]
    run = ScriptProcess("run_countdown.py", flags, tmp_path / "printed", prepare=forbid_text_encoders, fresh=True)
    assert run.finish() == 0, run.printed


def test_policy_encoder_needs_no_other_model(tmp_path):
    run("--use_ir=knn", "--encoder", "policy", "--max_steps", "2", "--do_eval", "0", "--output_dir", str(tmp_path))
    assert metrics(tmp_path)[-1]["ir/knn/nonfinite"] == 0


def test_a_local_file_is_evaluated_on_its_test_problems_which_choose_no_policy(tmp_path):
    from tasks.countdown.problems import generate, split_of

    rows = [row for split, count in (("train", 60), ("test", 4)) for row in generate(count, split, 0).to_list()]
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(json.dumps({"nums": row["numbers"], "target": row["target"]}) for row in rows))
    flags = ["--data", str(path), "--eval_split=test", "--eval_greedy", "0", "--max_steps", "1"]
    run(*flags, "--output_dir", str(tmp_path / "run"))
    records = json.loads((tmp_path / "run" / "eval" / "after.json").read_text())["records"]
    assert len(records) == 4 and {split_of(record["numbers"], record["target"]) for record in records} == {"test"}
    assert not (tmp_path / "run" / "best").exists() and (tmp_path / "run" / "final").exists()


BAD_INPUT = {
    "unknown bonus": (["--use_ir=curiosity"], ["curiosity", "knn+"]),
    "weights do not match names": (["--use_ir=knn,knn+", "--ir_weight=1,2,3"], ["3 weights for 2 bonuses"]),
    "batch flag of TRL": (["--per_device_train_batch_size", "7"], ["--bs"]),
    "batch not divisible": (["--generation_batch_size", "13"], ["13"]),
    "group of one": (["--num_generations", "1"], ["at least 2"]),
    "too few problems for a batch": (["--train_problems", "1"], ["cannot fill a batch"]),
    "impossible problem space": (["--min_numbers", "7"], ["2 <= min <= max <= 6"]),
    "model not found": (["--model_name", "nobody/nothing"], ["nobody/nothing", "--model_name=tiny"]),
    "encoder not found": (["--use_ir=knn", "--encoder", "nobody/nothing"], ["nobody/nothing", "--encoder"]),
    "prompt over length": (["--max_prompt_length", "3"], ["all 64 prompts are longer than 3 tokens"]),
    "missing file": (["--data", "nowhere.jsonl"], ["nowhere.jsonl"]),
    "bad prompt style": (["--prompt_style", "haiku"], ["haiku", "chat"]),
    "missing config": (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
    "unknown schedule": (["--use_ir=knn", "--ir_schedule", "zigzag"], ["zigzag", "cosine"]),
    "resume from nothing": (["--resume", "nowhere/checkpoint-9"], ["not a complete checkpoint"]),
}


@pytest.mark.fault("F8")
@pytest.mark.fault("F20")
@pytest.mark.fault("F21")
@pytest.mark.parametrize("flags, words", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_sentence_and_exit_code_2(flags, words, tmp_path):
    result = run(*flags, "--output_dir", str(tmp_path / "run"), code=2)
    message = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(message) == 1 and "Traceback" not in result.stderr
    for word in words:
        assert word in message[0]


def test_file_without_the_needed_columns_names_those_it_has(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "1", "answer": "2"}\n')
    result = run("--data", str(path), "--output_dir", str(tmp_path / "run"), code=2)
    assert "question" in result.stderr and "target" in result.stderr


def test_empty_file_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("")
    result = run("--data", str(path), "--output_dir", str(tmp_path / "run"), code=2)
    assert "Traceback" not in result.stderr
