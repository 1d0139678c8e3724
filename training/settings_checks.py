"""Settings that transformers takes unseen and stumbles over once a policy is loaded: tried here on one weight."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, Trainer, get_scheduler

from common.config_file import did_you_mean
from common.errors import UserError

# Flags whose text or JSON transformers reads while the settings are made.
READ_AT_ONCE = ("deepspeed", "accelerator_config", "fsdp", "fsdp_config", "parallelism_config")
_REFUSALS = (ImportError, OSError, TypeError, ValueError, KeyError)


@contextmanager
def one_sentence(config: Any) -> Iterator[None]:
    """Turn what transformers raises while it makes ``config`` into a `UserError` that names the flags."""
    asked = [f"--{name}={getattr(config, name)!r}" for name in READ_AT_ONCE if getattr(config, name, None)]
    try:
        yield
    except UserError:
        raise
    except _REFUSALS as error:
        if not asked:
            raise
        raise UserError(f"{' or '.join(asked)} cannot be used ({_words(error)}).") from error


def check_optimizer(config: Any) -> None:
    """Raise `UserError` where optimiser or schedule of the settings ``config`` cannot be made."""
    if config.model_init_kwargs:
        raise UserError(
            f"--model_init_kwargs={config.model_init_kwargs!r} would not reach the policy; use --dtype, "
            "--attn_implementation or --load_in_4bit."
        )
    weight = torch.nn.Linear(1, 1)
    if not config.optim_target_modules:  # else modules of the policy are looked for
        try:
            Trainer.get_optimizer_cls_and_kwargs(config, weight)
        except _REFUSALS as error:
            given = f" with --optim_args={config.optim_args!r}" if config.optim_args else ""
            raise UserError(f"--optim={config.optim}{given} cannot be made ({_words(error)}); take another.") from error
    try:
        get_scheduler(
            config.lr_scheduler_type,
            optimizer=torch.optim.SGD(weight.parameters()),
            num_warmup_steps=1,
            num_training_steps=2,
            scheduler_specific_kwargs=config.lr_scheduler_kwargs,
        )
    except _REFUSALS as error:
        raise UserError(
            f"--lr_scheduler_type={config.lr_scheduler_type} with --lr_scheduler_kwargs="
            f"{config.lr_scheduler_kwargs!r} cannot be made ({_words(error)}); name what it needs there as JSON."
        ) from error


def check_generation(config: Any) -> None:
    """Raise `UserError` for a name in ``--generation_kwargs`` that Hugging Face's ``generate`` would pass over."""
    known = vars(GenerationConfig())
    for name in () if config.use_vllm else config.generation_kwargs or ():
        if name not in known:
            meant = did_you_mean(name, known)
            raise UserError(f"--generation_kwargs has {name!r}, which is no setting of generate{meant}.")


def _words(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
