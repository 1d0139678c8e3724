"""A run that is started in a way that cannot train ends with one sentence before anything is loaded."""

import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from cli.parse import parse_options
from common.errors import UserError
from tasks.countdown.options import CountdownOptions
from tests.processes import ROOT
from training.launch import check_fsdp, check_gpus
from training.sft import SFTRunConfig

NEITHER = SimpleNamespace(fsdp_plugin_args=None)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def test_two_gpus_without_a_launcher_are_refused_with_both_ways_out(two_gpus, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run_countdown.py"])
    fix = r"2 GPUs are visible .* CUDA_VISIBLE_DEVICES=0, .* accelerate launch --config_file configs/accelerate/ddp"
    with pytest.raises(UserError, match=fix):
        parse_options("countdown", CountdownOptions)
    with pytest.raises(UserError, match=fix):
        SFTRunConfig()


def test_two_gpus_under_a_launcher_or_on_the_cpu_are_not(two_gpus, monkeypatch):
    check_gpus(use_cpu=True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_gpus(use_cpu=False)


def launch(monkeypatch, **changes):
    """The environment that accelerate makes of fsdp.yaml, with ``changes``."""
    settings = yaml.safe_load((ROOT / "configs" / "accelerate" / "fsdp.yaml").read_text())["fsdp_config"] | changes
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    for name, value in settings.items():
        monkeypatch.setenv(name.upper(), str(value).lower() if isinstance(value, bool) else str(value))


def test_the_launch_file_is_taken(monkeypatch):
    launch(monkeypatch)
    check_fsdp(NEITHER, lora=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fsdp_version": 1, "fsdp_reshard_after_forward": "FULL_SHARD"}, "fsdp_version=1 is not supported; use 2"),
        ({"fsdp_cpu_ram_efficient_loading": True}, "fsdp_cpu_ram_efficient_loading=true .* use false"),
        ({"fsdp_state_dict_type": "SHARDED_STATE_DICT"}, "SHARDED_STATE_DICT .* use FULL_STATE_DICT"),
        ({"fsdp_offload_params": True}, "fsdp_offload_params=true .* use false"),
    ],
)
def test_other_settings_of_fsdp_are_refused(changes, message, monkeypatch):
    launch(monkeypatch, **changes)
    with pytest.raises(UserError, match=f"{message}, as in configs/accelerate/fsdp.yaml"):
        check_fsdp(NEITHER, lora=False)


def test_an_adapter_is_refused_under_fsdp_and_nowhere_else(monkeypatch):
    check_fsdp(NEITHER, lora=True)
    launch(monkeypatch)
    with pytest.raises(UserError, match="--lora .* configs/accelerate/ddp.yaml"):
        check_fsdp(NEITHER, lora=True)
