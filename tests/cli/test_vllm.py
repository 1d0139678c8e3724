"""run_countdown.py with vLLM, on the stand-in of tests/vllm_stub.py: pretraining, evaluations, adapter, dry run."""

import json

from tests.processes import ScriptProcess
from tests.vllm_stub import standing_in
from training import vllm_checks

TOY = ["--bs", "2", "--num_generations", "4", "--L", "12", "--train_problems", "64", "--eval_problems", "4"]
TOY += ["--use_ir", "cfn", "--cfn_pretrain", "1", "--cfn_warmup", "1", "--cfn_width", "16", "--use_vllm", "--lora"]


def stand_in(connection) -> None:
    vllm_checks.check_installed = lambda: None
    standing_in().start()


def run(folder, log, *flags) -> str:
    process = ScriptProcess("run_countdown.py", [*TOY, *flags, "--output_dir", str(folder)], log, prepare=stand_in)
    assert process.finish() == 0, process.printed[-3000:]
    return process.printed


def test_a_whole_run_samples_with_vllm_in_training_alone(tmp_path):
    folder = tmp_path / "run"
    assert "OK  memory" in run(folder, tmp_path / "dry", "--dry_run") and not folder.exists()
    printed = run(folder, tmp_path / "log", "--max_steps", "2", "--eval_steps", "1", "--logging_steps", "1")
    reports = [json.loads((folder / "eval" / f"{name}.json").read_text()) for name in ("before", "after")]
    assert [report["step"] for report in reports] == [0, 2] and len(list((folder / "eval").glob("*.json"))) == 3
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if "loss" in row]
    assert [row["step"] for row in trained] == [1, 2]
    assert all(row["sampling/sampling_logp_difference/max"] < 1e-4 for row in trained)
    assert json.loads((folder / "run.json").read_text())["options"]["grpo"]["use_vllm"] is True
    assert (folder / "final" / "model.safetensors").exists() and str(folder) in printed
