"""One generation pass for evaluation: samples of every prompt, without touching the random state of training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.thinking import opened_thinking
from policy.chat import render
from policy.decoding import cast_once
from policy.end_tokens import end_token_ids
from policy.padding import pad_tokens
from policy.slices import in_slices
from policy.stages import StageCache, allows_stages, in_stages


@dataclass(frozen=True)
class Sample:
    """One completion: its text, its number of tokens, and whether it ran into the token limit.

    ``prefill``: the opening thinking tag that its prompt ends in (`common.thinking.opened_thinking`), which graders
    read before the text.
    """

    text: str
    length: int
    truncated: bool
    prefill: str = ""


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
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[tuple[list[int], list[list[Sample]]]]:
    """Batches of (indices of prompts, their samples), of at most ``batch_size`` completions, short prompts first.

    Every batch has a seed of its own, so leaving out the first ``skip_batches`` changes nothing in the others. The
    model is left in the mode it was in, and the global random states are as before. Prompts are all conversations or
    all texts; a text gets the tokenizer's own special tokens, as in TRL's training, a rendered conversation has them.
    The policy runs under ``autocast``.
    """
    rendered = [render(prompt, tokenizer) for prompt in prompts]
    order = sorted(range(len(rendered)), key=lambda index: len(rendered[index]))
    per_batch = max(1, batch_size // decoding.samples)
    batches = [order[start : start + per_batch] for start in range(0, len(order), per_batch)]
    eos_ids = set(end_token_ids(tokenizer, model.generation_config))
    are_texts = bool(prompts) and isinstance(prompts[0], str)
    bar = tqdm(
        total=len(batches), initial=skip_batches, desc="evaluate", unit="batch", disable=not progress, leave=False
    )
    for number, indices in list(enumerate(batches))[skip_batches:]:
        prompt_ids = tokenizer([rendered[index] for index in indices], add_special_tokens=are_texts)["input_ids"]
        prompt_ids = [ids for ids in prompt_ids for _ in range(decoding.samples)]
        padding, own_seed = tokenizer.pad_token_id, seed + number
        tokens = _completions(model, prompt_ids, decoding, eos_ids, padding, own_seed, batch_size, autocast)
        opened = [opened_thinking(rendered[index]) for index in indices for _ in range(decoding.samples)]
        samples = [_sample(row, tokenizer, eos_ids, prefill) for row, prefill in zip(tokens, opened, strict=True)]
        count = decoding.samples
        yield indices, [samples[start : start + count] for start in range(0, len(samples), count)]
        bar.update()
    bar.close()


@torch.no_grad()
def _completions(
    model,
    prompt_ids: list[list[int]],
    decoding: Decoding,
    eos_ids: set[int],
    pad_token_id: int,
    seed: int,
    size: int,
    autocast: Callable[[], AbstractContextManager],
) -> list[list[int]]:
    """A completion of each prompt, up to its end token; ``size`` at once, which one problem's samples may exceed."""

    def generate(rows: Sequence[int], ids: list[list[int]], most: int) -> list[list[int]]:
        input_ids, mask = pad_tokens(ids, "left", pad_token_id, model.device)
        output = model.generate(
            input_ids=input_ids,
            attention_mask=mask.long(),
            **decoding.generation_flags(),
            max_new_tokens=most,
            pad_token_id=pad_token_id,
            eos_token_id=sorted(eos_ids),
            disable_compile=True,
        )
        return [_until_end(row, eos_ids) for row in output[:, input_ids.size(1) :].tolist()]

    left = StageCache()
    if model.device.type == "cpu" and allows_stages(model.generation_config):
        generate = in_stages(generate, eos_ids, left)
    was_training = model.training
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with cast_once(model, autocast, left), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            return in_slices(generate, size)(range(len(prompt_ids)), prompt_ids, decoding.max_new_tokens)
    finally:
        model.train(was_training)


def sample_completions(model, tokenizer, prompts: Sequence, decoding: Decoding, **settings) -> list[list[Sample]]:
    """The samples of every prompt, in the order of ``prompts``; ``settings`` are those of `sample_batches`."""
    results: list[list[Sample]] = [[] for _ in prompts]
    for indices, samples in sample_batches(model, tokenizer, prompts, decoding, **settings):
        for index, found in zip(indices, samples, strict=True):
            results[index] = found
    return results


def _until_end(tokens: list[int], eos_ids: set[int]) -> list[int]:
    ends = (index for index, token in enumerate(tokens) if token in eos_ids)
    return tokens[: next(ends, len(tokens)) + 1]


def _sample(tokens: list[int], tokenizer: PreTrainedTokenizerBase, eos_ids: set[int], prefill: str) -> Sample:
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return Sample(text, len(tokens), truncated=tokens[-1] not in eos_ids, prefill=prefill)
