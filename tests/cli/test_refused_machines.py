"""What this machine cannot run is said by the script in one sentence, with exit code 2, before a policy is loaded."""

import re
import sys
from types import SimpleNamespace

import accelerate
import pytest
import torch
import transformers

import run_countdown
from common.config_file import PRESETS
from common.errors import UserError, run_cli
from tests.device_tags import CUDA

TOY = ["--model_name=tiny", "--train_problems=64", "--min_numbers=3", "--max_numbers=3", "--encoder=policy", "--bs=2"]


def a_gpu(monkeypatch, gib: float) -> None:
    """A run takes cuda:0, of that memory, for its device."""
    monkeypatch.setattr(transformers.TrainingArguments, "device", property(lambda self: self._setup_devices and CUDA))
    monkeypatch.setattr(accelerate.Accelerator, "device", property(lambda self: CUDA))
    card = SimpleNamespace(name="Card", total_memory=int(gib * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)


def two_gpus(monkeypatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def fsdp_1(monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """``refused(*flags)``: run_countdown.py ends at once; its (standard output, error)."""

    def run(*flags):
        load = "policy.load.AutoModelForCausalLM.from_pretrained"
        monkeypatch.setattr(load, lambda *args, **settings: pytest.fail("weights were loaded"))
        monkeypatch.setattr(sys, "argv", ["run_countdown.py", *flags, "--output_dir", str(tmp_path / "run")])
        with pytest.raises(SystemExit) as end:
            run_cli(run_countdown.main)
        printed = capsys.readouterr()
        assert end.value.code == 2 and not (tmp_path / "run").exists()
        return printed.out, printed.err

    return run


@pytest.mark.parametrize(
    ("machine", "flags", "said"),
    [
        (lambda patch: None, ["--use_vllm", "true"], "pip install -r requirements-vllm.txt takes vllm 0.30.0"),
        (two_gpus, [], "2 GPUs are visible to one process, which trains on one; hide the others"),
        (fsdp_1, [], "fsdp_version=1 is not supported; use 2"),
        (
            lambda patch: None,
            ["--use_ir=cfn", "--beta=0.1", "--sync_ref_model", "true"],
            "--sync_ref_model moves the reference model, on which --use_ir=cfn",
        ),
    ],
    ids=["no vLLM", "two GPUs", "FSDP 1", "moving reference"],
)
def test_what_cannot_run_here_ends_before_a_policy_is_loaded(machine, flags, said, refused, monkeypatch):
    if "--use_vllm" in flags:
        monkeypatch.setattr("training.vllm_checks.version", no_vllm)
    machine(monkeypatch)
    _, error = refused(*TOY, *flags)
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def no_vllm(name):
    from importlib.metadata import PackageNotFoundError, version

    if name == "vllm":
        raise PackageNotFoundError(name)
    return version(name)


def test_a_preset_on_a_gpu_that_is_too_small_ends_with_estimate_and_advice(refused, monkeypatch, tmp_path):
    a_gpu(monkeypatch, gib=0.1)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"nums": [{n}, {n + 1}, 3], "target": {2 * n + 4}}}\n' for n in range(1, 99)))
    _, error = refused("--config", str(PRESETS / "memory_r_countdown.yaml"), *TOY, "--data", str(rows))
    assert error.startswith("error: tiny is estimated to take up to 0.6 GiB under these flags, and Card has 0.1 GiB; ")
    assert "--micro_batch" in error and error.count("\n") == 1
    assert float(re.search(r"\(about (\S+) GiB\)\.$", error)[1]) <= 0.1


def test_a_gpu_that_torch_does_not_see_is_warned_of_before_a_policy_is_loaded(refused, monkeypatch):
    def no_room(*run):
        raise UserError("no room")

    monkeypatch.setattr("training.run.room_warning", no_room)
    monkeypatch.setattr("training.run.unseen_gpu", lambda: "warning: this machine has an NVIDIA GPU")
    printed, _ = refused(*TOY)
    assert printed.count("warning: this machine has an NVIDIA GPU") == 1
