"""Runs that have to learn: every bonus, adapters, 4 bits, float16, every loss; vLLM, and several GPUs."""

import json
from importlib.util import find_spec

import pytest
import torch
from datasets import Dataset

from evaluation.rank import evaluate_ranking
from intrinsic import REGISTRY
from policy.options import PolicyOptions
from tests.equivalence.scripted import ScriptedTrainer
from tests.gpu.machine import DESCENT, assert_learnt, build, weights_of
from tests.processes import ROOT, run_python

TOY = ["--train_problems", "64", "--do_eval", "0", "--seed", "0", "--encoder", "policy", "--max_steps", "2"]
ROWS = {
    "choice": [{"question": f"{n} + 1?", "choices": [str(n + 1), "x"], "answer": 0} for n in range(12)],
    "code": [
        {"prompt": f"f{n}", "code": "def f(x): ...", "test_list": [f"assert f({n}) == 0"], "test_imports": []}
        for n in range(12)
    ],
}
LOSSES = {
    "two updates per batch": {"num_iterations": 2, "max_steps": 4},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0, "num_iterations": 2, "max_steps": 4},
    "GSPO": {"importance_sampling_level": "sequence", "num_iterations": 2, "max_steps": 4},
    "scaled by the batch": {"scale_rewards": "batch"},
    "masked truncation": {"mask_truncated_completions": True},
}


def learns(machine, folder, *args, **settings):
    trainer = build(machine, folder, *args, **settings)
    before = weights_of(trainer)
    trainer.pretrain_bonuses()
    trainer.train()
    assert_learnt(trainer, before)
    return trainer


@pytest.mark.parametrize("bonus", REGISTRY)
def test_full_fine_tuning_learns_under_every_bonus(bonus, machine, tmp_path):
    trainer = learns(machine, tmp_path, {"use_ir": bonus})
    assert {value.device for value in weights_of(trainer).values()} == {machine.device}
    assert any(name.startswith(f"ir/{bonus}") for log in trainer.state.log_history for name in log)


def test_vllm_samples_in_the_trainers_process(gpu, tmp_path):
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: pip install -r requirements-vllm.txt")
    flags = ["--use_vllm", "true", "--vllm_mode", "colocate", "--vllm_gpu_memory_utilization", "0.3"]
    flags += ["--use_ir=sc,knn+", "--explore_warmup", "0", "--bs", "8", "--L", "64", "--output_dir", tmp_path / "run"]
    run_python("run_countdown.py", *TOY, *flags)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 2 and all(line["grad_norm"] > 0 for line in steps)


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_lora_moves_the_adapter_and_no_bit_of_the_base(beta, machine, tmp_path):
    options = PolicyOptions(lora=True, lora_r=8)
    trainer = build(machine, tmp_path, {"use_ir": "cfn,sc"}, policy_options=options, beta=beta)
    before = weights_of(trainer)
    trainer.train()
    moved = {name for name, value in weights_of(trainer).items() if not torch.equal(value, before[name])}
    assert moved and all("lora_" in name for name in moved)
    assert_learnt(trainer, before)


def test_a_policy_in_4_bits_trains_a_float32_adapter(gpu, tmp_path):
    if find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed: pip install bitsandbytes")
    trainer = learns(gpu, tmp_path, policy_options=PolicyOptions(lora=True, load_in_4bit=True))
    adapter = {name: value for name, value in weights_of(trainer).items() if "lora_" in name}
    assert {value.dtype for value in adapter.values()} == {torch.float32}
    assert any(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name)


def test_float16_trains_with_scaled_gradients(gpu, tmp_path):
    trainer = learns(gpu, tmp_path, {"use_ir": "sc,cfn"}, bf16=False, fp16=True, max_steps=8)
    assert {value.dtype for value in weights_of(trainer).values()} == {torch.float32}
    assert trainer.accelerator.scaler.get_scale() >= 1


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_and_scale_of_trl_trains(loss, machine, tmp_path):
    """On given completions of up to 8 tokens, some of them cut off there."""
    settings = {"trainer_class": ScriptedTrainer, "own": {"capture_features": False}, "max_completion_length": 8}
    learns(machine, tmp_path, {"use_ir": "cfn,sc"}, **DESCENT | settings | LOSSES[loss])


def test_fsdp_trains_on_several_gpus(gpu, tmp_path):
    count = torch.cuda.device_count()
    if count < 2:
        pytest.skip(f"needs two GPUs to share the weights out over, and there is {count}")
    launch = ["-m", "accelerate.commands.launch", "--config_file", ROOT / "configs" / "accelerate" / "fsdp.yaml"]
    flags = ["--use_ir=knn+,sc,cfn,repexp", "--explore_warmup", "0", "--bs", "8", "--L", "64"]
    flags += ["--save_steps", "1", "--output_dir", tmp_path / "run"]
    run_python(*launch, "--num_processes", "2", ROOT / "run_countdown.py", *TOY, *flags)
    assert (tmp_path / "run" / "final" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "checkpoint-2" / "COMPLETE").is_file()


@pytest.mark.parametrize("task", ROWS)
def test_multiple_choice_and_code_train_and_are_evaluated(task, machine, tmp_path, run_here):
    """Their graders count letters, and run what the policy writes in a process of its own, beside the device's."""
    data, folder = tmp_path / "rows.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS[task]))
    flags = ["--model_name", machine.policy, "--data", data, "--bs", "2", "--gc", "1", "--L", machine.length]
    flags += ["--max_steps", "2", "--num_generations", "4", "--use_ir=sc,cfn", "--cfn_warmup", "1", "--seed", "0"]
    run_here(f"run_{task}", *flags, "--do_eval", "1", "--eval_problems", "2", "--output_dir", folder)
    reports = [json.loads((folder / "eval" / f"{name}.json").read_text()) for name in ("before", "after")]
    assert [report["step"] for report in reports] == [0, 2]
    if task == "choice":
        rows = Dataset.from_list([{"question": "1 + 1?", "choices": ["2", "3 + 4"], "gold": "2", "subject": ""}])
        report = evaluate_ranking(str(folder / "final"), "arc_easy", rows, tmp_path / "rank.json", {}, 0)
        assert report["setup"]["device"].startswith(machine.device.type)
