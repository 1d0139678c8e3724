"""What the LightEval backend refuses, and what it hands to LightEval's process, without starting that process."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from peft import get_peft_model

from common.errors import RunError, UserError
from evaluation import lighteval_backend
from evaluation.lighteval_backend import run_lighteval
from policy.chat import render
from policy.load import EMBEDDED, load_policy, load_tokenizer
from policy.options import PolicyOptions

ROW = {"question": "Ada has 2 pens and buys 3. How many has she?", "answer": "2 + 3 = 5\n#### 5"}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "data" / "test.jsonl", [ROW, ROW | {"answer": "She has 1,005.\n#### 1,005"}])


@pytest.fixture
def overlay(tmp_path, monkeypatch):
    """A LightEval folder that exists, so that only what comes after that check can fail."""
    (tmp_path / "overlay" / "lighteval").mkdir(parents=True)
    monkeypatch.setattr(lighteval_backend, "OVERLAY", tmp_path / "overlay")


@pytest.fixture
def requests(overlay, monkeypatch):
    """Records every request with the rows, the weights and the files it names, and answers it with one metric."""
    seen = []

    def answer(request, workspace):
        rows = {
            f"{path.parent.name}/{path.stem}": [json.loads(line) for line in path.read_text().splitlines()]
            for path in Path(request.rows).rglob("*.jsonl")
        }
        model = workspace / request.model
        files = {path.name for path in model.iterdir()}
        seen.append((request, rows, load_policy(str(model)).state_dict(), files))
        Path(request.result).write_text(json.dumps({"metrics": {"gsm8k_tiers/loose": 0.5}, "records": []}))

    monkeypatch.setattr(lighteval_backend, "_run_child", answer)
    return seen


def test_missing_lighteval_is_refused_with_the_command_that_installs_it(tmp_path, monkeypatch, data):
    monkeypatch.setattr(lighteval_backend, "OVERLAY", tmp_path / "nowhere")
    command = f"-m pip install --no-deps --target '{tmp_path / 'nowhere'}' -r requirements-lighteval.txt"
    with pytest.raises(UserError, match="LightEval is not in") as error:
        run_lighteval("tiny", "gsm8k", tmp_path / "out", data=data)
    assert sys.executable in str(error.value) and command in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "math500"}, "--task='math500'"),
        ({"num_shots": 99}, "--num_shots=99"),
        ({"prompt_type": "haiku"}, "--prompt_type='haiku'"),
        ({"max_new_tokens": 1024}, r"row 0 has a prompt of \d+ tokens.*context of 1024"),
    ],
)
def test_bad_arguments_are_refused_by_name_and_value(overlay, tmp_path, data, arguments, message):
    with pytest.raises(UserError, match=message):
        run_lighteval("tiny", output_dir=tmp_path / "out", data=data, **{"task": "gsm8k"} | arguments)


def test_gold_without_mark_is_refused_with_its_row(overlay, tmp_path):
    data = write(tmp_path / "data" / "test.jsonl", [ROW, ROW | {"answer": "five"}])
    with pytest.raises(UserError, match="row 1 .*####"):
        run_lighteval("tiny", "gsm8k", tmp_path / "out", data=data)


def test_shots_from_a_file_without_train_split_are_refused(overlay, tmp_path, data):
    with pytest.raises(UserError, match="--num_shots needs a train split"):
        run_lighteval("tiny", "gsm8k", tmp_path / "out", data=data, num_shots=1)


def test_rows_keep_solutions_and_get_numbers_and_rendered_prompts(requests, tmp_path, data):
    run_lighteval("tiny", "gsm8k", tmp_path / "out", data=data)
    rows = requests[0][1]
    rendered = f"<|user|>{ROW['question']}<|assistant|>"
    assert rows == {
        "ours/test": [{"prompt": rendered, "gold": gold, "answer_place": "tags"} for gold in ("5", "1005")],
        "builtin/test": [ROW, ROW | {"answer": "She has 1,005.\n#### 1,005"}],
    }


def test_names_for_the_chat_template_reach_both_tasks(overlay, tmp_path, data, monkeypatch):
    asked, seen = [{"role": "user", "content": "a"}], []

    def answer(request, workspace):
        ours = [json.loads(line)["prompt"] for line in (Path(request.rows) / "ours" / "test.jsonl").open()]
        # LightEval's own task renders by the tokenizer that it is given.
        seen.extend([*ours, render(asked, load_tokenizer(str(workspace / request.model)))])
        Path(request.result).write_text(json.dumps({"metrics": {}}))

    monkeypatch.setattr(lighteval_backend, "_run_child", answer)
    policy = tmp_path / "policy"
    shutil.copytree(EMBEDDED, policy)
    template = policy / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if aside is defined %}{{ aside }}{% endif %}")
    run_lighteval(str(policy), "gsm8k", tmp_path / "out", data=data, chat_template_kwargs={"aside": "Go."})
    assert len(seen) == 3 and all(prompt.endswith("<|assistant|>Go.") for prompt in seen)


def test_max_samples_takes_the_first_rows(requests, tmp_path):
    data = write(tmp_path / "data" / "test.jsonl", [ROW | {"question": f"Question {n}?"} for n in range(9)])
    run_lighteval("tiny", "gsm8k", tmp_path / "out", data=data, max_samples=3)
    assert [row["question"] for row in requests[0][1]["builtin/test"]] == ["Question 0?", "Question 1?", "Question 2?"]


def test_shots_stand_in_our_prompts_and_the_train_split_goes_along(requests, tmp_path, data):
    write(tmp_path / "data" / "train.jsonl", [ROW | {"question": "Where?"}])
    run_lighteval("tiny", "gsm8k", tmp_path / "out", data=str(tmp_path / "data"), num_shots=2)
    request, rows, *_ = requests[0]
    assert request.num_shots == 2
    assert rows["builtin/train"] == [ROW | {"question": "Where?"}]
    assert all(row["prompt"].count("<|assistant|><reasoning>") == 2 for row in rows["ours/test"])


def test_model_has_a_relative_name_and_a_fresh_cache(requests, tmp_path, data):
    for _ in range(2):
        run_lighteval("tiny", "gsm8k", tmp_path / "out", data=data)
    first, second = (request for request, *_ in requests)
    assert not Path(first.model).is_absolute()
    assert first.cache != second.cache
    assert not Path(first.cache).exists()
    torch.testing.assert_close(requests[0][2], load_policy("tiny").state_dict())


def test_adapter_is_merged_for_lighteval(requests, tmp_path, data):
    adapter = get_peft_model(load_policy("tiny"), PolicyOptions(lora=True, lora_r=4).lora_config())
    with torch.no_grad():
        for name, value in adapter.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.05)
    adapter.save_pretrained(tmp_path / "adapter")
    run_lighteval(str(tmp_path / "adapter"), "gsm8k", tmp_path / "out", data=data)
    request, _, weights, files = requests[0]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files and "adapter_config.json" not in files
    assert request.context == 1024
    torch.testing.assert_close(weights, adapter.merge_and_unload().state_dict())
    assert not torch.equal(
        weights["model.layers.0.mlp.up_proj.weight"],
        load_policy(str(EMBEDDED)).state_dict()["model.layers.0.mlp.up_proj.weight"],
    )


def test_report_holds_settings_and_what_the_process_answered(requests, tmp_path, data):
    metrics = run_lighteval("tiny", "gsm8k", tmp_path / "out", data=data)
    report = json.loads((tmp_path / "out" / "lighteval.json").read_text())
    assert metrics == report["metrics"] == {"gsm8k_tiers/loose": 0.5}
    assert (report["model"], report["data"], report["max_new_tokens"]) == ("tiny", data, 256)


def test_failing_process_is_reported_with_the_end_of_its_output(overlay, tmp_path, data, monkeypatch, capsys):
    monkeypatch.setattr(lighteval_backend, "_CHILD", "evaluation.no_such_module")
    with pytest.raises(RunError, match="exit code 1") as error:
        run_lighteval("tiny", "gsm8k", tmp_path / "out", data=data)
    assert str(error.value).endswith("No module named evaluation.no_such_module")
    assert "no_such_module" in capsys.readouterr().err
    assert not (tmp_path / "out" / "lighteval.json").exists()
