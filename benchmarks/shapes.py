"""Policies of the benchmarks: the published sizes of Qwen2.5 with random weights, so that nothing is downloaded."""

from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM


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
