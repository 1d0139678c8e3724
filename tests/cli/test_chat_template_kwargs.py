"""--chat_template_kwargs: every prompt of a run, of its evaluations and of run_eval.py is rendered with them."""

import json
import shutil
import sys

import pytest

import run_countdown
from common.errors import run_cli
from policy.chat import render
from policy.load import EMBEDDED, load_tokenizer

THINKS = "{% if add_generation_prompt and enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"
TOY = ["--bs", "2", "--num_generations", "4", "--L", "8", "--train_problems", "64", "--eval_problems", "4"]
SILENT = '--chat_template_kwargs={"enable_thinking": false}'
ASKED = [{"role": "user", "content": "a"}]


@pytest.fixture
def policy(tmp_path):
    """The embedded policy with a template that opens the thinking, unless it is told not to."""
    folder = tmp_path / "policy"
    shutil.copytree(EMBEDDED, folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + THINKS)
    assert render(ASKED, load_tokenizer(str(folder))).endswith("<think>\n")
    return folder


def prefills(path):
    return {record["prefill"] for record in json.loads(path.read_text())["records"]}


def test_a_run_its_evaluations_and_those_of_its_policy_are_asked_alike(policy, tmp_path, run_here):
    run, out = tmp_path / "run", tmp_path / "eval.json"
    flags = [*TOY, "--use_ir=no", "--max_steps", "2", "--eval_steps", "1", "--output_dir", run]
    run_here("run_countdown", f"--model_name={policy}", SILENT, *flags)
    reports = sorted((run / "eval").glob("*.json"))
    assert [path.stem for path in reports] == ["after", "before", "step_000001"]
    assert all(prefills(path) == {""} for path in reports)
    assert json.loads((run / "run.json").read_text())["options"]["grpo"]["chat_template_kwargs"] == {
        "enable_thinking": False
    }
    assert json.loads(reports[1].read_text())["of"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert not any("think" in render(ASKED, load_tokenizer(str(run / name))) for name in ("final", "best"))

    asked = ["--task=countdown", "--limit", "2", "--max_new_tokens", "4", "--output", out]
    for model, flags, prefill in (
        (run / "final", [], ""),
        (run / "final", ['--chat_template_kwargs={"enable_thinking": true}'], "<think>\n"),
        (policy, [], "<think>\n"),
        (policy, [SILENT], ""),
    ):
        run_here("run_eval", f"--model_name={model}", *asked, *flags)
        assert prefills(out) == {prefill}
    assert json.loads(out.read_text())["settings"]["chat_template_kwargs"] == '{"enable_thinking": false}'


def test_a_dry_run_measures_the_prompts_of_the_run(policy, tmp_path, monkeypatch, capsys):
    template = policy / "chat_template.jinja"
    template.write_text(template.read_text().replace("<think>", "1 " * 300))
    monkeypatch.setattr("cli.dry_run.report", lambda run, rows, tokenizer: [render(ASKED, tokenizer)])
    for flags, code in (([], 2), ([SILENT], None)):
        arguments = [f"--model_name={policy}", "--output_dir", tmp_path / "run", *TOY, *flags]
        monkeypatch.setattr(sys, "argv", list(map(str, ["run_countdown.py", "--dry_run", *arguments])))
        if code:
            with pytest.raises(SystemExit, match=str(code)):
                run_cli(run_countdown.main)
            assert "prompts are longer than" in capsys.readouterr().err
        else:
            run_cli(run_countdown.main)
            assert "1 1" not in capsys.readouterr().out
