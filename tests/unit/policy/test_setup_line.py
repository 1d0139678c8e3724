"""The line on what a script computes on, and the warning about a GPU that torch does not see."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from policy import setup_line
from policy.setup_line import setup_of, unseen_gpu
from training.run_options import RunConfig

SHOWN = "| NVIDIA-SMI 535.54.03   Driver Version: {driver}   CUDA Version: {cuda}     |"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Pretends to have an NVIDIA GPU: ``machine(shown, build)`` says what nvidia-smi prints and torch is built for."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(setup_line, "DRIVER", tmp_path)

    def pretend(shown, build):
        code = 0 if shown else 9
        found = subprocess.CompletedProcess(["nvidia-smi"], code, stdout=shown or "", stderr="")
        monkeypatch.setattr(setup_line.shutil, "which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(setup_line.subprocess, "run", lambda *args, **settings: found)
        monkeypatch.setattr(torch.version, "cuda", build)

    return pretend


@pytest.mark.parametrize(
    ("shown", "build", "cause", "fix"),
    [
        (SHOWN.format(driver="535.54.03", cuda="12.2"), None, "is built without CUDA", "Install a build with CUDA"),
        (
            SHOWN.format(driver="470.82.01", cuda="11.4"),
            "13.0",
            "its driver 470.82.01 goes up to CUDA 11.4 and torch",
            "Update the driver, or install torch for CUDA 11.4 or older",
        ),
        (None, "13.0", "nvidia-smi does not answer", "docker run --gpus all"),
        (SHOWN.format(driver="580.65.06", cuda="13.0"), "13.0", "torch says: ", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_gpu_that_torch_does_not_see_is_named_with_cause_and_fix(shown, build, cause, fix, machine):
    machine(shown, build)
    warning = unseen_gpu()
    assert warning.startswith("warning: this machine has an NVIDIA GPU, and torch does not see it: ")
    assert cause in warning and fix in warning and "\n" not in warning
    assert warning.endswith("What follows runs on the CPU.")


def test_no_warning_without_a_gpu_with_one_in_use_or_where_the_user_hides_it(machine, monkeypatch, tmp_path):
    machine(SHOWN.format(driver="535", cuda="12.2"), None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert unseen_gpu() is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert unseen_gpu() is None
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(setup_line.shutil, "which", lambda name: None)
    monkeypatch.setattr(setup_line, "DRIVER", tmp_path / "absent")
    assert unseen_gpu() is None


def test_the_line_names_device_precision_attention_and_sampler(random_policy):
    setup = setup_of(random_policy, torch.device("cpu"), "bfloat16 autocast", "vLLM (colocate)")
    assert str(setup) == (
        f"device: cpu (threads: {torch.get_num_threads()}), precision: bfloat16 autocast, weights in float32, "
        "attention: eager, sampler: vLLM (colocate)"
    )
    assert setup_of(random_policy, torch.device("cpu"), "float32", "none").precision == "float32"


@pytest.mark.parametrize(
    ("vllm", "continuous", "named"),
    [(True, False, "vLLM (server)"), (False, True, "continuous batching of transformers"), (False, False, "generate")],
)
def test_the_sampler_is_the_one_that_samples(vllm, continuous, named, tmp_path):
    config = RunConfig(output_dir=str(tmp_path))
    config.use_vllm, config.vllm_mode, config.use_transformers_continuous_batching = vllm, "server", continuous
    assert named in config.sampler


def lines_of(printed):
    return [line for line in printed.splitlines() if line.startswith("device: ")]


@pytest.mark.parametrize("script", ["run_countdown", "run_sft", "run_eval"])
def test_a_script_prints_one_line_and_keeps_it_behind_the_warning(script, tmp_path, run_here, capsys, monkeypatch):
    for module in ("training.run", "run_sft", "run_eval"):
        monkeypatch.setattr(f"{module}.unseen_gpu", lambda: "warning: a GPU that torch does not see")
    folder, data = tmp_path / "run", tmp_path / "traces.jsonl"
    row = {"prompt": [{"role": "user", "content": "1?"}], "completion": [{"role": "assistant", "content": "1"}]}
    data.write_text(f"{json.dumps(row)}\n" * 4, encoding="utf-8")
    flags = {
        "run_countdown": "--max_steps 1 --bs 1 --num_generations 2 --L 4 --train_problems 8 --do_eval 0 --use_ir=no",
        "run_sft": f"--data {data} --max_steps 1 --per_device_train_batch_size 2",
        "run_eval": "--task countdown --limit 2 --max_new_tokens 4",
    }
    place = ["--output", folder / "eval.json"] if script == "run_eval" else ["--output_dir", folder]
    run_here(script, *flags[script].split(), *place)
    printed = capsys.readouterr().out
    (line,) = lines_of(printed)
    assert "warning: a GPU that torch does not see\n" in printed[: printed.index(line)]
    record = json.loads(Path(folder / ("eval.json" if script == "run_eval" else "run.json")).read_text())
    assert all(f"{value}" in line for value in record["setup"].values())
    assert record["setup"]["device"] == "cpu"
    assert record["setup"]["sampler"] == ("none" if script == "run_sft" else "Hugging Face generate")


def test_an_nvidia_smi_that_prints_no_text_ends_nothing(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'a\\377b'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert setup_line._nvidia_smi() == "a\ufffdb"
