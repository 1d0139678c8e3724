"""The embedded policy: a Llama-type model of 1.1 million parameters, its tokenizer, and its supervised warm start.

It exists so that every experiment runs on two CPU cores in minutes. The warm start teaches skills, not a search
habit (see tasks/countdown/warm_start.py), so reinforcement learning has something to find. ``python -m
training.tiny_policy`` trains it again from nothing; same data, steps and seed give the same bits on one machine.
"""

import hashlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import SFTConfig, SFTTrainer

from common.errors import run_cli
from common.files import write_json
from common.flags import flag, parse_one
from policy.load import EMBEDDED
from tasks.countdown.problems import SYSTEM_PROMPT, ProblemSpace
from tasks.countdown.warm_start import traces
from training.byte_bpe import byte_bpe
from training.folder_swap import replacing

SPACE = ProblemSpace(min_numbers=3, max_numbers=3, max_number=15, min_target=10, max_target=99, max_value=99)
TAGS = ("<think>", "</think>", "<reasoning>", "</reasoning>", "<answer>", "</answer>")
VOCABULARY = 512
PIECES = r"\d{1,2}| ?\p{L}+|\s|[^\d\p{L}\s]"  # numbers of up to two digits, words, and every other sign alone


@dataclass
class WarmStart:
    """Settings of the supervised warm start."""

    output_dir: str = flag(str(EMBEDDED), "Folder that gets the policy.")
    steps: int = flag(3000, "Optimiser steps.")
    batch_size: int = flag(128, "Traces per optimiser step.")
    learning_rate: float = flag(2e-3, "Peak learning rate of the cosine schedule.")
    seed: int = flag(0, "Seed of weights, traces and their order.")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE in which the numbers 0 to 99 and the tags are single tokens; any text survives a round trip."""
    numbers = " ".join(map(str, range(100)))
    words = "Numbers: Target: low high hit The answer is User: Assistant:"
    corpus = [numbers] * 100 + [SYSTEM_PROMPT] * 5 + [words] * 50
    return byte_bpe(PIECES, corpus, VOCABULARY, TAGS)


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained policy. Llama, because a Qwen2 config makes AutoTokenizer ignore the tokenizer beside it."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            attn_implementation="eager",
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def trace_dataset(count: int, seed: int, tokenizer: PreTrainedTokenizerFast) -> Dataset:
    """``count`` tokenised traces with columns input_ids, completion_mask (1 on the completion) and length."""
    pairs = list(islice(traces(SPACE, seed), count))
    prompts = tokenizer([f"<|user|>{question}<|assistant|>" for question, _ in pairs])["input_ids"]
    completions = tokenizer([f"{completion}<|end|>" for _, completion in pairs])["input_ids"]
    return Dataset.from_dict(
        {
            "input_ids": [p + c for p, c in zip(prompts, completions, strict=True)],
            "completion_mask": [[0] * len(p) + [1] * len(c) for p, c in zip(prompts, completions, strict=True)],
            "length": [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)],
        }
    )


def warm_start(settings: WarmStart) -> Path:
    """Train the embedded policy from nothing; model, tokenizer and card replace ``settings.output_dir`` as a whole."""
    set_seed(settings.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    dataset = trace_dataset(settings.steps * settings.batch_size, settings.seed, tokenizer)
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=dataset,
        args=SFTConfig(
            output_dir=settings.output_dir,
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=100,
            weight_decay=0.01,
            train_sampling_strategy="group_by_length",
            length_column_name="length",
            completion_only_loss=True,
            max_length=None,
            bf16=True,
            activation_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            logging_steps=100,
            report_to=[],
            seed=settings.seed,
        ),
    )
    trainer.train()
    folder = Path(settings.output_dir)
    with replacing(folder) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        write_card(new, settings, trainer.state.log_history)
    return folder


def write_card(folder: Path, settings: WarmStart, history: list[dict]) -> None:
    """Record how the policy was made and the hash of its weights in ``warm_start.json``."""
    weights = (folder / "model.safetensors").read_bytes()
    losses = [entry["loss"] for entry in history if "loss" in entry]
    card = {
        "settings": {name: value for name, value in vars(settings).items() if name != "output_dir"},
        "problems": vars(SPACE),
        "final_loss": losses[-1] if losses else None,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "torch": torch.__version__,
    }
    write_json(folder / "warm_start.json", card)


def main() -> None:
    print(f"policy saved to {warm_start(parse_one(WarmStart))}")


if __name__ == "__main__":
    run_cli(main)
