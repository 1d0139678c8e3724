"""One generation pass for evaluation: samples of every prompt, without touching the random state of training."""

from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True)
class Decoding:
    """How completions are sampled: ``samples`` per prompt at ``temperature`` (0 is greedy), nucleus ``top_p``."""

    samples: int
    temperature: float
    max_new_tokens: int
    top_p: float = 1.0

    def generation_flags(self) -> dict:
        """The arguments of ``generate`` that say how tokens are drawn; nothing is left to the model's own defaults."""
        if self.temperature > 0:
            sampling = {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": self.top_p}
        else:
            sampling = {"do_sample": False}
        return sampling | {"repetition_penalty": 1.0}


def sample_batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | list[dict]],
    decoding: Decoding,
    batch_size: int = 256,
    seed: int = 0,
    skip_batches: int = 0,
    progress: bool = False,
) -> Iterator[tuple[list[int], list[list[Sample]]]]:
    """Batches of (indices of prompts, their samples), of at most ``batch_size`` completions, short prompts first.

    Every batch has a seed of its own, so leaving out the first ``skip_batches`` changes nothing in the others. The
    model is left in the mode it was in, and the global random states are as before. Prompts are all conversations or
    all texts; a text gets the tokenizer's own special tokens, as in TRL's training, a rendered conversation has them.
    """
    rendered = [render(prompt, tokenizer) for prompt in prompts]
    order = sorted(range(len(rendered)), key=lambda index: len(rendered[index]))
    per_batch = max(1, batch_size // decoding.samples)
    batches = [order[start : start + per_batch] for start in range(0, len(order), per_batch)]
    eos_ids = _eos_ids(model, tokenizer)
    are_texts = bool(prompts) and isinstance(prompts[0], str)
    bar = tqdm(
        total=len(batches), initial=skip_batches, desc="evaluate", unit="batch", disable=not progress, leave=False
    )
    for number, indices in list(enumerate(batches))[skip_batches:]:
        inputs = tokenizer(
            [rendered[index] for index in indices], padding=True, return_tensors="pt", add_special_tokens=are_texts
        ).to(model.device)
        output = _generate(model, inputs, decoding, eos_ids, tokenizer.pad_token_id, seed + number)
        tokens = output[:, inputs["input_ids"].size(1) :].tolist()
        samples = [_sample(row, tokenizer, eos_ids) for row in tokens]
        count = decoding.samples
        yield indices, [samples[start : start + count] for start in range(0, len(samples), count)]
        bar.update()
    bar.close()


@torch.no_grad()
def _generate(model, inputs, decoding: Decoding, eos_ids: set[int], pad_token_id: int, seed: int) -> torch.Tensor:
    was_training = model.training
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            return model.generate(
                **inputs,
                **decoding.generation_flags(),
                num_return_sequences=decoding.samples,
                max_new_tokens=decoding.max_new_tokens,
                pad_token_id=pad_token_id,
                eos_token_id=sorted(eos_ids),
                disable_compile=True,
            )
    finally:
        model.train(was_training)


def sample_completions(model, tokenizer, prompts: Sequence, decoding: Decoding, **settings) -> list[list[Sample]]:
    """The samples of every prompt, in the order of ``prompts``; ``settings`` are those of `sample_batches`."""
    results: list[list[Sample]] = [[] for _ in prompts]
    for indices, samples in sample_batches(model, tokenizer, prompts, decoding, **settings):
        for index, found in zip(indices, samples, strict=True):
            results[index] = found
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
