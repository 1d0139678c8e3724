"""The settings that a resumed run must share with its checkpoint: every flag, but those that are listed here."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from datasets import Dataset
from transformers import TrainingArguments

from intrinsic.base import Bonus
from intrinsic.options import IntrinsicOptions
from policy.packaged import SOURCE, uses_package
from training.run_folder import plain

# Flags that a resumed run may set anew, by why they leave every update as it is.
FREE_BY_REASON = {
    "where the run lives, and what it is asked to do": "output_dir run_name name_parts project resume "
    "resume_from_checkpoint dry_run config_file do_train do_predict",
    "evaluation; the problems that it takes out of training show in the training problems": "do_eval eval_data "
    "eval_split eval_problems eval_batch_size eval_samples eval_temperature eval_greedy reuse_before "
    "eval_strategy eval_steps eval_delay eval_on_start eval_do_concat_batches eval_use_gather_object "
    "eval_accumulation_steps eval_packing "
    "per_device_eval_batch_size num_generations_eval prediction_loss_only include_for_metrics batch_eval_metrics "
    "bf16_full_eval fp16_full_eval load_best_model_at_end metric_for_best_model greater_is_better stop_on_collapse",
    "logging": "logging_strategy logging_steps logging_first_step logging_nan_inf_filter log_on_each_node log_level "
    "log_level_replica log_completions log_multimodal log_unique_prompts log_completions_hub_repo "
    "num_completions_to_print include_num_input_tokens_seen skip_memory_metrics disable_tqdm report_to "
    "trackio_space_id trackio_bucket_id trackio_static_space_id debug",
    "saving": "save_strategy save_steps save_total_limit save_only_model save_on_each_node keep_checkpoints "
    "enable_jit_checkpoint restore_callback_states_from_checkpoint push_to_hub hub_token hub_private_repo "
    "hub_model_id hub_strategy hub_always_push hub_revision",
    "device and layout: the same numbers but for rounding": "use_cpu local_rank activation_checkpointing "
    "activation_checkpointing_kwargs activation_offloading gradient_checkpointing gradient_checkpointing_kwargs "
    "attn_implementation torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps use_cache "
    "cache_implementation pad_to_multiple_of dataloader_num_workers dataloader_pin_memory "
    "dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context dataset_num_proc "
    "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp "
    "fsdp_config deepspeed parallelism_config ds3_gather_for_generation vllm_mode vllm_enable_sleep_mode "
    "vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port "
    "vllm_gpu_memory_utilization vllm_tensor_parallel_size",
}
FREE = frozenset(" ".join(FREE_BY_REASON.values()).split())
# Flags that are compared by what they amount to.
DERIVED_BY_RESULT = {
    "the batch of an update": "bs gc micro_batch per_device_train_batch_size gradient_accumulation_steps "
    "steps_per_generation",
    "L": "max_completion_length",
    "length": "max_steps nepochs num_train_epochs",
    "names and weights of the bonuses": "use_ir ir_weight",
}
DERIVED = frozenset(" ".join(DERIVED_BY_RESULT.values()).split())
PLACES = ("databases",)  # columns of rows that say where files are on this machine
# Learning rate schedules whose rate at a step is the same however long the run is.
ENDLESS_SCHEDULES = ("constant", "constant_with_warmup", "inverse_sqrt")


def grpo_settings(task, intrinsic: IntrinsicOptions, options, config, bonuses: Iterable[Bonus], rows: Dataset) -> dict:
    """The settings of a GRPO run as nested plain JSON: each field of the four options but those of `FREE`.

    Args:
        task, intrinsic, options, config: the options that the script has parsed.
        bonuses: those of ``--use_ir``.
        rows: the training problems with their prompts.
    """
    fades = intrinsic.ir_schedule != "constant" or any(bonus.depends_on_length for bonus in bonuses)
    weights = dict(zip(intrinsic.bonus_names, intrinsic.weights, strict=True)) | intrinsic.reward_weights
    return {
        "data": _data(rows),
        "batch": _batch(config),
        "bonuses": weights,
        "task": _compared(task),
        "intrinsic": _compared(intrinsic),
        "run": _compared(options) | _weights(options.model_name),
        "grpo": _compared(config) | _length(config, fades),
    }


def sft_settings(options, config: TrainingArguments, rows: Dataset) -> dict:
    """The settings of a supervised run as nested plain JSON: each field of both options but those of `FREE`."""
    traces = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
    return {
        "data": _data(rows),
        "batch": {"traces": traces},
        "run": _compared(options) | _weights(options.model_name),
        "sft": _compared(config) | _length(config, False),
    }


def _compared(options) -> dict[str, Any]:
    names = [item.name for item in fields(options) if item.name not in FREE | DERIVED]
    return {name: _whole(plain(getattr(options, name))) for name in names}


def _weights(model_name: str) -> dict[str, str]:
    """Where the weights are from, of the policy that may come from the hub or from a package."""
    return {"weights": SOURCE} if uses_package(model_name) else {}


def _whole(value):
    """``value`` with whole floats as integers: a file of flags says 5 where the command line gives 5.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _data(rows: Dataset) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=8)
    for row in rows.remove_columns([name for name in PLACES if name in rows.column_names]):
        digest.update(json.dumps(row, sort_keys=True, default=str).encode("ascii"))
    return {"rows": len(rows), "digest": digest.hexdigest()}


def _batch(config) -> dict[str, int]:
    """What an update is made of, however it is cut into micro-batches and processes."""
    batch = {"prompts": config.bs * config.gc * config.world_size}
    if config.loss_type == "bnpo" or config.top_entropy_quantile < 1:
        # Normalised, or cut off, by the tokens of one forward pass.
        batch["completions per pass"] = config.per_device_train_batch_size * config.world_size
    return batch


def _length(config: TrainingArguments, fades: bool) -> dict[str, float]:
    """The length of the run, where the learning rate or a bonus (``fades``) at a step depends on it."""
    schedule = plain(config.lr_scheduler_type)
    warms_up_by_share = 0 < config.warmup_steps < 1 and schedule != "constant"
    if schedule in ENDLESS_SCHEDULES and not warms_up_by_share and not fades:
        return {}
    if config.max_steps > 0:
        return {"max_steps": config.max_steps}
    return {"num_train_epochs": _whole(config.num_train_epochs)}
