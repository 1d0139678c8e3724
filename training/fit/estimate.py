"""How much memory a training run takes, item by item, from shapes alone: no weight is read and nothing is allocated."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from transformers import PretrainedConfig

from common.devices import GIB
from policy.growing_cache import ROOM
from policy.options import PolicyOptions
from training.fit.traced import Key, Pass, Weights, pass_of, weights_of

ADAMW_MOMENTS = 2
# Output head of TRL: tiles of so many tokens by so many ids, and bytes of one entry, temporaries included.
TILE_TOKENS, TILE_IDS = 4096, 32_768
TILE_ENTRY_BYTES = {"cuda": 2}
TILE_ENTRY_BYTES_OTHER = 26
# Sampling keeps the scores of the next token as logits, warped logits, probabilities and one temporary, in float32.
SAMPLING_COPIES = 4


@dataclass(frozen=True)
class Work:
    """The shapes of a run, and what it holds besides the policy.

    Attributes:
        micro_batch: completions per forward and backward pass.
        generation_batch: completions sampled at once, in groups of ``num_generations``.
        prompt, completion: tokens of the longest prompt and completion.
        bfloat16: whether passes run under bfloat16 autocast.
        checkpointing: whether activations are computed again in the backward pass.
        device: type of the device, "cuda" or "cpu".
        attention: implementation of transformers; None for its default.
        reference: whether TRL holds a reference model.
        initial_copy: whether bonuses hold a copy of the initial policy, see `policy.frozen`.
        encoder: bytes of a text encoder on the same device.
        memories: bytes that bonuses hold in main memory when their memories are full.
        sampling_batch: completions that one call of ``generate`` samples; 0: the whole generation batch.
        captured_states, frozen_states: how many features hold a state of width H of every token, read off the
            generation or of the initial policy.
        mean_states: how many features hold one float32 state of every completion.
        evaluation_batch: completions that held-out evaluations sample at once; 0: there are none.
        whole_groups: whether passes hold completions of a prompt together, which then share it where the policy allows.
    """

    micro_batch: int
    generation_batch: int
    num_generations: int
    prompt: int
    completion: int
    bfloat16: bool
    checkpointing: bool
    device: str
    attention: str | None
    reference: bool
    initial_copy: bool = False
    encoder: int = 0
    memories: int = 0
    sampling_batch: int = 0
    captured_states: int = 0
    frozen_states: int = 0
    mean_states: int = 0
    evaluation_batch: int = 0
    whole_groups: bool = False

    @property
    def prompts(self) -> int:
        """Most distinct prompts of a pass, where each completion does not have its own."""
        if not self.whole_groups:
            return self.micro_batch
        fits = self.micro_batch % self.num_generations == 0 or self.num_generations % self.micro_batch == 0
        return min(self.micro_batch, math.ceil(self.micro_batch / self.num_generations) + (0 if fits else 1))

    @property
    def sampled_at_once(self) -> int:
        return min(self.sampling_batch or self.generation_batch, self.generation_batch)


@dataclass(frozen=True)
class Estimate:
    """Bytes by item: what is always held, what each phase adds to it; and the policy's parameters.

    ``main_memory`` is apart from the device's where there is an accelerator.
    """

    held: dict[str, int]
    training: dict[str, int]
    generation: dict[str, int]
    main_memory: dict[str, int]
    parameters: int
    device: str
    scoring: dict[str, int] = field(default_factory=dict)
    evaluation: dict[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Most bytes of the device at once: training, generation, the bonuses' scores and evaluation take turns."""
        phases = max(sum(phase.values()) for phase in (self.training, self.generation, self.scoring, self.evaluation))
        shared = sum(self.main_memory.values()) if self.device == "cpu" else 0
        return sum(self.held.values()) + phases + shared

    def lines(self) -> Iterator[str]:
        """One line per item, then the peak."""
        phases = {"training": self.training, "generation": self.generation, "scoring": self.scoring}
        phases |= {"evaluation": self.evaluation, "main memory": self.main_memory}
        for phase, items in {"": self.held, **{f"{name}: ": items for name, items in phases.items()}}.items():
            for name, size in items.items():
                yield f"{phase + name:<44} {size / GIB:8.2f} GiB"
        yield f"{'at most at once':<44} {self.peak / GIB:8.2f} GiB"


def estimate(architecture: PretrainedConfig, policy: PolicyOptions, work: Work) -> Estimate:
    """Memory of training a policy of that ``architecture``.

    The micro-batch is taken as full: every prompt and every completion as long as they may be. The phases count their
    own temporaries; the allocator's fragmentation is not counted.
    """
    text = architecture.get_text_config()
    width, ids, layers = text.hidden_size, text.vocab_size, text.num_hidden_layers
    key = Key(architecture, policy)
    weights = weights_of(key, work.attention, work.bfloat16)
    shared = work.prompts if weights.shares_prompts and work.prompts < work.micro_batch else 0
    shape = work.micro_batch, work.prompt, work.completion, shared
    traced = pass_of(key, work.attention, work.bfloat16, work.checkpointing, *shape)
    kept = traced.kept
    if work.checkpointing:
        # At the end of the forward pass autocast holds the casts of all weights; later, while one layer is computed
        # again, its own tensors are there, casts included.
        kept = traced.recomputed + max(weights.trained_casts, traced.kept // layers)
    tile = min(TILE_TOKENS, work.micro_batch * work.completion) * min(TILE_IDS, ids)
    head_gradient = 0 if policy.lora else ids * width * torch.float32.itemsize
    state = width * (torch.bfloat16.itemsize if work.bfloat16 else policy.weight_dtype().itemsize)
    states = work.generation_batch * work.completion * state
    on_device = weights.initial_copy if work.initial_copy and work.device != "cpu" else 0
    held = {
        "weights": weights.all,
        "gradients": weights.trained,
        "AdamW": ADAMW_MOMENTS * weights.trained,
        "reference model": work.reference * weights.all,
        "text encoder": work.encoder,
    }
    sampling = partial(_sampling, text, weights, traced, work)
    generation = sampling(work.sampled_at_once, work.num_generations)
    generation["states for the bonuses"] = work.captured_states * states
    scoring = {
        # What was read off the generation is put together from single steps: twice.
        "states for the bonuses": (2 * work.captured_states + work.frozen_states) * states
        + work.mean_states * work.generation_batch * width * torch.float32.itemsize,
        "copy of the initial policy": on_device,
    }
    main_memory = {
        "memories of the bonuses, when full": work.memories,
        "copy of the initial policy": weights.initial_copy if work.initial_copy else 0,
    }
    return Estimate(
        held=_present(held),
        training={
            f"activations of {_pass_size(work, shared)} tokens": kept,
            "tiles of the output head": tile * TILE_ENTRY_BYTES.get(work.device, TILE_ENTRY_BYTES_OTHER)
            + head_gradient,
        },
        generation=_present(generation),
        main_memory=_present(main_memory),
        parameters=weights.parameters,
        device=work.device,
        scoring=_present(scoring),
        evaluation=_present(sampling(work.evaluation_batch, 1)) if work.evaluation_batch else {},
    )


def _sampling(
    text: PretrainedConfig, weights: Weights, traced: Pass, work: Work, rows: int, completions: int
) -> dict[str, int]:
    """What ``generate`` holds, in bytes by item, while it samples ``rows`` completions, ``completions`` of a prompt."""
    tokens = work.prompt + work.completion
    prompts = math.ceil(rows / completions) if weights.shares_prefill else rows
    return {
        f"keys and values of {rows} x {tokens} tokens": math.ceil(
            rows * (tokens + ROOM) * traced.cache * (1 + 1 / text.num_hidden_layers)
        ),
        "prompts": prompts * work.prompt * traced.prefill,
        "scores of the next token": rows * text.vocab_size * SAMPLING_COPIES * torch.float32.itemsize,
        "weights in the compute type": weights.casts,
    }


def _pass_size(work: Work, shared: int) -> str:
    """Rows and tokens of a pass, with ``shared`` prompts of their own or 0."""
    if shared:
        return f"{shared} x {work.prompt} and {work.micro_batch} x {work.completion}"
    return f"{work.micro_batch} x {work.prompt + work.completion}"


def _present(items: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in items.items() if size}
