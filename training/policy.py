"""Loading the policy and its tokenizer: the embedded one, a hub name or a local folder."""

import os
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from training.errors import UserError

EMBEDDED_NAME = "tiny"
EMBEDDED = Path(__file__).parent.parent / "assets" / "tiny_policy"


def is_embedded(model_name: str) -> bool:
    """Whether ``model_name`` is the policy that ships with the project."""
    return model_name == EMBEDDED_NAME


def resolve(model_name: str) -> str:
    """The path or hub name to load; raises `UserError`, before any weights are read, when there is nothing to load."""
    if is_embedded(model_name):
        return str(EMBEDDED)
    if os.path.isdir(model_name):
        if not (Path(model_name) / "config.json").exists():
            raise UserError(f"--model_name={model_name!r} is a folder without config.json; give a saved model.")
        return model_name
    try:
        AutoConfig.from_pretrained(model_name)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--model_name={model_name!r} is neither a local folder nor reachable on the hub "
            f"({type(error).__name__}); check the name and the connection, download it first, or use "
            f"--model_name={EMBEDDED_NAME}."
        ) from error
    return model_name


def load_tokenizer(model_name: str) -> PreTrainedTokenizerBase:
    """Left-padding tokenizer; a missing pad token becomes the EOS token."""
    tokenizer = AutoTokenizer.from_pretrained(resolve(model_name), padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(model_name: str, attn_implementation: str | None = None) -> PreTrainedModel:
    """The policy with float32 weights: updates at learning rates around 1e-6 vanish in bfloat16 ones.

    The forward pass runs in bfloat16 by autocast where the trainer's ``bf16`` is on. ``attn_implementation`` None
    leaves the choice to transformers, except for the embedded policy on CPU: there, eager attention under bfloat16
    autocast is 2.4 times faster than SDPA in float32.
    """
    if attn_implementation is None and is_embedded(model_name) and not torch.accelerator.is_available():
        attn_implementation = "eager"
    return AutoModelForCausalLM.from_pretrained(
        resolve(model_name), dtype=torch.float32, attn_implementation=attn_implementation
    )
