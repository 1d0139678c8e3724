"""run_code.py and run_eval.py on code from the shell: a run with a bonus, an evaluation, and bad input."""

import json

import pytest

from tests.processes import run_script

ROWS = [
    {"prompt": f"Return {n}.", "code": f"def f(): return {n}", "test_list": [f"assert f() == {n}"], "test_imports": []}
    for n in range(12)
]


@pytest.fixture
def data(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(tmp_path / "rows.jsonl")


def test_trains_with_a_bonus_under_a_named_isolation(data, tmp_path):
    flags = ["--data", data, "--bs", "1", "--L", "6", "--max_steps", "2", "--do_eval", "1", "--eval_problems", "2"]
    output = run_script("run_code.py", *flags, "--use_ir=outcome", "--seed", "0", cwd=tmp_path, fresh=True).stdout
    assert "sandbox: a process of its own, resource limits" in output
    (folder,) = (tmp_path / "outputs" / "code").iterdir()
    records = json.loads((folder / "eval" / "after.json").read_text())["records"]
    assert records and not {"test", "io", "helpers"} & records[0].keys()
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any("verdict/output_limit" in line for line in logged)


def test_run_eval_judges_code(data, tmp_path):
    flags = ["--task=mbpp", "--data", data, "--limit", 2, "--max_new_tokens", 4, "--prompt_type=plain"]
    assert "task mbpp" in run_script("run_eval.py", *flags, cwd=tmp_path, fresh=True).stdout


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("run_code.py", ["--data", "openai/openai_humaneval"], "HumanEval"),
        ("run_code.py", ["--sandbox", "none"], "--sandbox='none' is unknown"),
        ("run_code.py", ["--test_seconds", 0], "--test_seconds=0 must be at least 1"),
        ("run_eval.py", ["--task=mbpp", "--num_shots", 2], "--num_shots=2: code is asked without"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(script, flags, message, tmp_path):
    result = run_script(script, *flags, cwd=tmp_path, code=2)
    assert message in result.stderr and "Traceback" not in result.stderr
