"""What is wrong with the way a run was started, said before anything is loaded."""

import os
from collections.abc import Iterable

import torch
from accelerate import FullyShardedDataParallelPlugin
from torch.distributed.fsdp import CPUOffloadPolicy, StateDictType
from transformers import TrainingArguments

from common.errors import UserError
from intrinsic.base import Bonus
from policy.features import FROZEN_FEATURES, TOKEN_FEATURES

FSDP_FILE = "configs/accelerate/fsdp.yaml"


def check_gpus(use_cpu: bool) -> None:
    """Raise `UserError` where one process sees several GPUs, of which it would train on one."""
    gpus = 0 if use_cpu or "LOCAL_RANK" in os.environ else torch.cuda.device_count()
    if gpus > 1:
        raise UserError(
            f"{gpus} GPUs are visible to one process, which trains on one; hide the others with "
            "CUDA_VISIBLE_DEVICES=0, or start one process for each with accelerate launch --config_file "
            "configs/accelerate/ddp.yaml."
        )


def refuse_token_features(bonuses: Iterable[Bonus]) -> None:
    """Raise `UserError` for a bonus that needs token features, where something else than FSDP 2 shards the policy."""
    names = [bonus.name for bonus in bonuses if bonus.needs & (TOKEN_FEATURES | FROZEN_FEATURES.keys())]
    if names:
        raise UserError(
            f"--use_ir={','.join(names)} reads hidden states or probabilities, which ZeRO-3 and FSDP 1 do not give; "
            f"launch with FSDP 2 ({FSDP_FILE}), which shards as much, or use a bonus on texts and verdicts."
        )


def check_fsdp(config: TrainingArguments, lora: bool) -> None:
    """Raise `UserError` for settings of FSDP under which a run would fail, or keep nothing that can be loaded.

    They come from the environment, where ``accelerate launch`` puts its file, or from ``--fsdp``.
    """
    launched = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not launched and config.fsdp_plugin_args is None:
        return
    plugin = FullyShardedDataParallelPlugin(**(config.fsdp_plugin_args or {}))
    if plugin.fsdp_version != 2:
        raise UserError(f"fsdp_version={plugin.fsdp_version} is not supported; use 2, as in {FSDP_FILE}.")
    if plugin.cpu_ram_efficient_loading:
        raise UserError(
            "fsdp_cpu_ram_efficient_loading=true loads weights on the first process alone, while every process copies "
            f"the initial policy and the reference model from its own; use false, as in {FSDP_FILE}."
        )
    if plugin.state_dict_type != StateDictType.FULL_STATE_DICT:
        raise UserError(
            f"fsdp_state_dict_type={plugin.state_dict_type.name} would leave no policy that can be loaded in final/; "
            f"use FULL_STATE_DICT, as in {FSDP_FILE}."
        )
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise UserError(
            "fsdp_offload_params=true keeps weights on the CPU, from where the policy cannot be sampled; use false, as "
            f"in {FSDP_FILE}."
        )
    if lora:
        raise UserError("--lora does not go with FSDP; launch with configs/accelerate/ddp.yaml, or leave --lora out.")
