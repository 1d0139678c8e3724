"""run_gsm8k.py and run_math.py from the shell, at toy size: every bonus, LoRA, shots, evaluation, bad input."""

import json
import shlex
import sys

import pandas as pd
import pytest

from cli.parse import parse_options
from intrinsic.options import MathIntrinsicOptions
from rewards.answer import grade_number
from tasks.math.options import GSM8KOptions, load_problems
from tasks.math.problems import load_gsm8k
from tasks.math.prompts import place_of
from tasks.traces import load_traces
from tests.processes import ROOT, run_python, run_script

SEED_README = ROOT.parent / "shared" / "seeds" / "memory_r.txt"
REAL = ROOT.parent / "shared" / "data" / "gsm8k"
TOY = ["--bs", "2", "--gc", "1", "--num_generations", "4", "--L", "16", "--max_steps", "2", "--eval_problems", "4"]
SHAPES = ("xml_count", "soft_format", "strict_format", "integer")


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """Forty word problems in GSM8K's shape, of different lengths."""
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    rows = [
        {
            "question": "Well. " * (n % 7) + f"Ada has {n} pens and buys {n + 3} boxes of {n + 2}. How many has she?",
            "answer": f"She buys {(n + 3) * (n + 2)}.\n#### {n + (n + 3) * (n + 2):,}",
        }
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "flags",
    [
        ["--use_ir=r1"],
        ["--use_ir=knn", "--k=1", "--num_shots=2"],
        ["--use_ir=cosine", "--reward_legacy"],
        ["--use_ir=cosine,knn+", "--ir_weight=0.5,1"],
    ],
    ids=lambda flags: " ".join(flags[:2]),
)
def test_every_use_ir_trains(flags, problems, tmp_path):
    run_script("run_gsm8k.py", *TOY, "--data", str(problems), *flags, "--output_dir", str(tmp_path))
    log = [record for record in records(tmp_path) if "loss" in record]
    assert len(log) == 2
    for column in (*SHAPES, "correctness"):
        assert f"rewards/{column}/mean" in log[-1]
    assert ("rewards/cosine/mean" in log[-1]) == ("cosine" in flags[0])
    assert ("ir/knn+/raw" in log[-1]) == ("knn+" in flags[0])
    assert (tmp_path / "final" / "model.safetensors").exists()


@pytest.fixture(scope="module")
def lora_run(problems, tmp_path_factory):
    """Memory-R+ on an adapter, evaluated before, between and after."""
    folder = tmp_path_factory.mktemp("lora")
    flags = ["--use_ir=knn+", "--lora", "--lora_r", "4", "--do_eval", "1", "--eval_steps", "1", "--eval_samples", "2"]
    return folder, run_script("run_gsm8k.py", *TOY, "--data", problems, *flags, "--output_dir", folder, fresh=True)


def test_held_out_evaluation_reports_all_tiers_greedy_and_sampled(lora_run):
    folder, result = lora_run
    assert {path.stem for path in (folder / "eval").glob("*.json")} == {"before", "step_000001", "after"}
    report = json.loads((folder / "eval" / "after.json").read_text())
    for name in ("accuracy", "strict", "medium", "loose", "greedy/strict", "greedy/medium", "greedy/loose"):
        assert set(report["metrics"][name]) >= {"mean", "low", "high"}
    assert "pass@1" in report["metrics"]
    assert "accuracy" in result.stdout
    asked = {record["gold"] for record in report["records"]}
    trained = set(pd.concat(pd.read_parquet(path) for path in (folder / "completions").glob("*.parquet"))["question"])
    assert asked and not trained & {record["question"] for record in report["records"]}


def test_best_policy_is_kept_with_the_step_it_comes_from(lora_run):
    best = json.loads((lora_run[0] / "best" / "held_out.json").read_text())
    # A policy without English answers nothing right, so the first evaluation stays the best one.
    assert best["name"] == "before" and (lora_run[0] / "best" / "adapter_model.safetensors").exists()


def test_lora_run_ends_with_adapter_and_merged_model(lora_run):
    import torch

    from policy.load import load_policy

    folder, _ = lora_run
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    merged, again = load_policy(str(folder / "final")), load_policy(str(folder / "adapter"))
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, again(ids).logits)
        assert not torch.equal(merged(ids).logits, load_policy("tiny")(ids).logits)


def test_latex_answers_train_through_run_math(tmp_path):
    rows = [{"problem": f"What is {n}/7?", "solution": f"It is \\boxed{{\\frac{{{n}}}{{7}}}}."} for n in range(1, 31)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [*TOY, "--data", data, "--use_ir=knn+", "--do_eval", "1", "--output_dir", tmp_path / "run"]
    run_script("run_math.py", *flags, fresh=True)
    log = records(tmp_path / "run")
    assert any("rewards/steps/mean" in record for record in log)
    assert json.loads((tmp_path / "run" / "eval" / "after.json").read_text())["records"][0]["gold"].startswith("\\frac")


@pytest.mark.skipif(not SEED_README.exists(), reason="the shared seeds folder is not here")
def test_every_training_command_of_memory_r_means_what_the_paper_meant(monkeypatch):
    commands = [line for line in SEED_README.read_text().splitlines() if line.startswith("python run_gsm8k.py")]
    assert len(commands) == 15
    for command in commands:
        arguments = shlex.split(command, comments=True)[1:]
        flags = dict(part.split("=") for part in arguments[1:] if "=" in part)
        monkeypatch.setattr(sys, "argv", arguments)
        task, intrinsic, options, config = parse_options("gsm8k", GSM8KOptions, MathIntrinsicOptions)
        assert options.model_name == flags["--model_name"] and intrinsic.use_ir == flags["--use_ir"]
        assert config.generation_batch_size == 256 and config.num_generations == 16
        assert config.max_completion_length == config.L and config.num_train_epochs == float(flags["--nepochs"])
        assert (config.beta, config.temperature, config.loss_type) == (0.04, 0.9, "grpo")
        assert task.num_shots == int(flags["--num_shots"]) and intrinsic.k == 1
        # As in the paper, all 7,473 problems are trained on unless an evaluation is asked for.
        assert not config.do_eval and not task.train_problems


@pytest.mark.skipif(not REAL.exists(), reason="the shared data folder is not here")
def test_a_printed_command_trains_on_the_real_rows(tmp_path):
    command = "--use_ir=knn+ --k=1 --num_shots=0 --nepochs=1 --seed 0 --bs 2 --gc 8 --L 200 --num_generations 2"
    # The last --L counts; 200 tokens of 32 completions would take most of this file's time.
    flags = [*command.split(), "--model_name=tiny", "--data", str(REAL), "--max_steps", "1", "--L", "32"]
    run_script("run_gsm8k.py", *flags, "--output_dir", str(tmp_path))
    completions = pd.read_parquet(next((tmp_path / "completions").glob("*.parquet")))
    assert len(completions) == 2 * 8 * 2 and completions["question"].nunique() == 16


BAD_INPUT = {
    "more shots than exemplars": (["--num_shots", "12"], ["--num_shots=12", "0..9"]),
    "unknown prompt type": (["--prompt_type", "haiku"], ["haiku", "qwen25-math-cot"]),
    "unknown bonus": (["--use_ir=memory"], ["memory", "cosine", "r1"]),
    "4 bit without CUDA": (["--load_in_4bit", "--lora"], ["CUDA"]),
    "completion longer than the context": (["--L", "2000"], ["--L=2000", "1024"]),
    "nothing fits": (["--max_prompt_length", "3"], ["longer than 3 tokens"]),
    "evaluation strategy of TRL": (["--eval_strategy", "steps"], ["--eval_steps"]),
}


@pytest.mark.parametrize("flags, words", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_sentence_and_exit_code_2(flags, words, problems, tmp_path):
    result = run_script("run_gsm8k.py", *TOY, "--data", str(problems), *flags, "--output_dir", str(tmp_path), code=2)
    message = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(message) == 1 and "Traceback" not in result.stderr
    for word in words:
        assert word in message[0]


BAD_ROWS = {
    "missing mark": ({"question": "A?", "answer": "7"}, ["row 1", "####"]),
    "unparsable gold": ({"question": "A?", "answer": "#### many"}, ["row 1", "many"]),
}


@pytest.mark.fault("F17")
@pytest.mark.parametrize("row, words", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_unreadable_gold_is_refused_with_its_row(row, words, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"question": "B?", "answer": "#### 1"}) + "\n" + json.dumps(row) + "\n")
    result = run_script("run_gsm8k.py", *TOY, "--data", str(data), "--output_dir", str(tmp_path / "run"), code=2)
    assert all(word in result.stderr for word in words)


@pytest.mark.fault("F19")
def test_policy_without_chat_template_is_told_of_the_plain_prompt(problems, tmp_path):
    from policy.load import load_policy, load_tokenizer

    load_policy("tiny").save_pretrained(tmp_path / "base")
    tokenizer = load_tokenizer("tiny")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    flags = [*TOY, "--data", str(problems), "--model_name", str(tmp_path / "base")]
    refused = run_script("run_gsm8k.py", *flags, "--output_dir", str(tmp_path / "run"), code=2)
    assert "--prompt_type=plain" in refused.stderr
    run_script("run_gsm8k.py", *flags, "--prompt_type=plain", "--output_dir", str(tmp_path / "run"))


@pytest.mark.parametrize("prompt_type", ["reasoning", "think", "qwen25-math-cot", "plain"])
def test_traces_are_right_in_the_shape_asked_for_and_not_of_the_validation_questions(prompt_type, tmp_path):
    rows = [
        {"question": f"{n} and {n}?", "answer": f"Add.\n\nIt is {n}+{n} = <<{n}+{n}={m}>>{m:,}.\n#### {m:,}"}
        for n, m in zip(range(1000, 1020), range(2000, 2040, 2), strict=True)
    ]
    rows.append({"question": "Long?", "answer": "One.\nTwo.\nThree.\n#### 3"})
    data, output = tmp_path / "rows.jsonl", tmp_path / "traces.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--data", data, "--output", output, "--prompt_type", prompt_type]
    run_python("-m", "tasks.math.traces", *flags, "--n", 16, "--max_lines", 2)
    asked = set()
    for row in load_traces(str(output), "train"):
        texts = [part if isinstance(part, str) else part[-1]["content"] for part in row.values()]
        question = int(texts[0].removesuffix("\nResponse:").split()[-3])
        assert f"Add.\nIt is {question}+{question} = {2 * question:,}." in texts[1]
        grade = grade_number(texts[1], str(2 * question), place_of(prompt_type))
        assert grade.medium and grade.well_formed
        asked.add(f"{question} and {question}?")
    _, validation = load_problems(GSM8KOptions(data=str(data)), 4, load_gsm8k, validate=True, seed=0)
    assert len(asked) == 16 and asked.isdisjoint(validation["question"])
    refused = run_python("-m", "tasks.math.traces", *flags, "--n", 21, "--max_lines", 2, code=2)
    assert "--n=21 is more than the 20 solutions of at most 2 lines" in refused.stderr
