"""Policies of the benchmarks: the published sizes of Qwen2.5 with random weights, so that nothing is downloaded.

python -m benchmarks.shapes qwen2.5-0.5b policies/qwen2.5-0.5b    # a folder that every script takes as --model_name
"""

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    set_seed,
)

from common.errors import UserError, run_cli
from policy.load import load_tokenizer
from policy.options import EMBEDDED_NAME


class Shape(NamedTuple):
    """The sizes of a Qwen2 by their names in its configuration."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    tie_word_embeddings: bool = True


SHAPES = {
    "toy": Shape(1024, 64, 128, 2, 4, 2),
    "qwen2.5-0.5b": Shape(151_936, 896, 4864, 24, 14, 2),
    "qwen2.5-1.5b": Shape(151_936, 1536, 8960, 28, 12, 2),
    "qwen2.5-3b": Shape(151_936, 2048, 11_008, 36, 16, 2),
    "qwen2.5-7b": Shape(152_064, 3584, 18_944, 28, 28, 4, tie_word_embeddings=False),
    "qwen2.5-14b": Shape(152_064, 5120, 13_824, 48, 40, 8, tie_word_embeddings=False),
}


def architecture(name: str, **settings) -> Qwen2Config:
    """The configuration of that entry of `SHAPES`; ``settings`` are further entries of it."""
    return Qwen2Config(**SHAPES[name]._asdict(), max_position_embeddings=32_768, **settings)


def random_policy(
    name: str, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype = torch.float32
) -> Qwen2ForCausalLM:
    """A policy of that shape with random weights, for the ids of ``tokenizer``."""
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    return Qwen2ForCausalLM(architecture(name, attn_implementation="sdpa", **ids)).to(dtype)


def save_llama(shape: Shape, folder: Path) -> None:
    """A Llama of that shape with random weights of seed 0, and the embedded policy's tokenizer, in ``folder``.

    Token ids beyond the tokenizer's have no text. A Llama, because a Qwen2 configuration makes AutoTokenizer ignore the
    tokenizer beside it.
    """
    tokenizer = load_tokenizer(EMBEDDED_NAME)
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    set_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        policy = LlamaForCausalLM(LlamaConfig(**shape._asdict(), **ids, max_position_embeddings=4096))
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        raise UserError(f"give one of {', '.join(SHAPES)}, and a folder; found {' '.join(sys.argv[1:]) or 'nothing'}.")
    save_llama(SHAPES[sys.argv[1]], Path(sys.argv[2]))


if __name__ == "__main__":
    run_cli(main)
