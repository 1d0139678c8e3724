"""One generation pass for evaluation: samples of every prompt, without touching the random state of training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.chat import render


@dataclass(frozen=True)
class Sample:
    """One completion: its text, its number of tokens, and whether it ran into the token limit."""

    text: str
    length: int
    truncated: bool


@torch.no_grad()
def sample_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | list[dict]],
    samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 256,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = False,
) -> list[list[Sample]]:
    """``samples`` completions of each prompt, in the order of ``prompts``.

    Temperature 0 is greedy. Prompts of similar length are batched together, at most ``batch_size`` completions at
    once. The model is left in the mode it was in, and the global random states are as before.
    """
    rendered = [render(prompt, tokenizer) for prompt in prompts]
    order = sorted(range(len(rendered)), key=lambda index: len(rendered[index]))
    per_batch = max(1, batch_size // samples)
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": top_p}
        if temperature > 0
        else {"do_sample": False}
    )
    results: list[list[Sample]] = [[] for _ in rendered]
    eos_ids = _eos_ids(model, tokenizer)
    was_training = model.training
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for start in tqdm(range(0, len(order), per_batch), desc="evaluate", disable=not progress, leave=False):
            indices = order[start : start + per_batch]
            inputs = tokenizer(
                [rendered[index] for index in indices], padding=True, return_tensors="pt", add_special_tokens=False
            ).to(model.device)
            output = model.generate(
                **inputs,
                **sampling,
                num_return_sequences=samples,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=sorted(eos_ids),
                disable_compile=True,
            )
            new_tokens = output[:, inputs["input_ids"].size(1) :].tolist()
            for row, tokens in enumerate(new_tokens):
                results[indices[row // samples]].append(_sample(tokens, tokenizer, eos_ids))
    model.train(was_training)
    return results


def _sample(tokens: list[int], tokenizer: PreTrainedTokenizerBase, eos_ids: set[int]) -> Sample:
    ends = [index for index, token in enumerate(tokens) if token in eos_ids]
    length = ends[0] + 1 if ends else len(tokens)
    return Sample(tokenizer.decode(tokens[:length], skip_special_tokens=True), length, truncated=not ends)


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Every token that ends a completion: chat models may have one beside the tokenizer's own."""
    configured = model.generation_config.eos_token_id
    configured = configured if isinstance(configured, list) else [configured]
    return {token for token in [*configured, tokenizer.eos_token_id] if token is not None}
