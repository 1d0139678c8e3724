"""One forward pass over distinct prompts and all their completions: what is computed on a prompt is computed once.

Log-probabilities, entropies and states of completions are those of rows that each hold prompt and completion, up to the
order of floating-point sums, and so are gradients. It takes full causal attention with rotary positions, where a token
is the same wherever it stands in a row; other policies keep their rows.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policy.buckets import (
    MIN_TOKENS,
    MIN_TOKENS_ACCELERATOR,
    completion_lengths,
    in_buckets,
    in_order,
    length_buckets,
)
from policy.load import base_of
from policy.padding import distinct_rows
from policy.precision import compute_dtype
from policy.shared_attention import SHARED, Block, SharedRow

# Architectures whose layers give keywords on to their attention, and whose tokens know their place by it alone.
FAMILIES = frozenset({"llama", "qwen2", "qwen3", "gemma"})
# Rotary positions whose frequencies do not depend on the length of what is read.
ROTARY = frozenset({"default", "linear", "llama3", "yarn"})


def reason_for_rows(model, adapter_dropout: float = 0.0) -> str | None:
    """Why each completion of this policy is passed with a prompt of its own; None where a prompt can be shared.

    ``adapter_dropout`` is that of an adapter which ``model`` will get.
    """
    config = base_of(model).config
    rotary = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    attention = config._attn_implementation
    if config.model_type not in FAMILIES:
        return f"architecture {config.model_type}"
    if set(getattr(config, "layer_types", None) or []) - {"full_attention"}:
        return "sliding windows"
    if rotary not in ROTARY:
        return f"rotary positions {rotary}"
    if attention not in (*SHARED, *SHARED.values()):
        return f"attention {attention}"
    layers = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    if any((adapter_dropout, getattr(config, "attention_dropout", 0.0), *layers)):
        return "dropout"  # of which every completion's prompt would get the same
    return None


def share_prompts(model) -> None:
    """Let forward passes of ``model`` take a `SharedRow`; everything else that it does stays as it is."""
    config = base_of(model).config
    config._attn_implementation = SHARED.get(config._attn_implementation, config._attn_implementation)


def shares_prompts(model) -> bool:
    """Whether `share_prompts` was called on ``model``."""
    return base_of(model).config._attn_implementation in SHARED.values()


def shared_passes(
    prompt_ids: Tensor, prompt_mask: Tensor, batch_size: int, idle: Tensor | None = None
) -> list[list[int]] | None:
    """Row numbers of each pass, at most ``batch_size``, completions of a prompt together; None where none has two.

    Args:
        prompt_ids, prompt_mask: (B, P), left padded.
        idle: (B,) rows without a gradient, which no pass mixes with others.
    """
    owner = distinct_rows(prompt_ids.masked_fill(prompt_mask == 0, -1))[1].tolist()
    flags = idle.tolist() if idle is not None else [False] * len(owner)
    if len({*zip(owner, flags, strict=True)}) == len(owner):
        return None
    passes = []
    for flag in sorted(set(flags)):
        members = sorted((row for row, kind in enumerate(flags) if kind == flag), key=owner.__getitem__)
        passes += [members[start : start + batch_size] for start in range(0, len(members), batch_size)]
    return passes


def shared_row(
    prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Tensor, dtype: torch.dtype
) -> SharedRow:
    """The row of prompts (B, P), left padded, and completions (B, T), right padded; masks are bool or 0 and 1.

    ``dtype``: the type in which attention is computed.
    """
    first, owner = distinct_rows(prompt_ids.masked_fill(prompt_mask == 0, -1))
    lengths = prompt_mask[first].sum(dim=1)
    width = int(lengths.max())
    places = torch.arange(prompt_ids.size(1), device=prompt_ids.device)
    padding = prompt_ids.size(1) - lengths
    turned = (places + padding[:, None]) % prompt_ids.size(1)  # left padding goes to the right
    prompts = prompt_ids[first].gather(1, turned)[:, :width]
    is_prompt = places[:width] < lengths[:, None]  # (n, P)

    counts = completion_lengths(completion_mask)
    least = MIN_TOKENS.get(completion_mask.device.type, MIN_TOKENS_ACCELERATOR)
    ids, positions, labels, blocks = [prompts.flatten()], [places[:width].repeat(len(first))], [], []
    for rows in length_buckets(counts, 0, least):
        block = _block(rows, max(counts[row] for row in rows), owner, is_prompt, dtype)
        own = completion_ids[rows, : block.length]
        ids.append(own.flatten())
        labels.append(own.masked_fill(completion_mask[rows, : block.length] == 0, -100).flatten())
        steps = torch.arange(block.length, device=own.device)
        positions.append((lengths[block.owner][:, None] + steps).flatten())
        blocks.append(block)
    row_ids, row_positions, row_labels = (torch.cat(parts)[None] for parts in (ids, positions, labels))
    return SharedRow(row_ids, row_positions, row_labels, last=lengths - 1, width=width, blocks=blocks)


def _block(rows: list[int], length: int, owner: Tensor, is_prompt: Tensor, dtype: torch.dtype) -> Block:
    """The `Block` of ``rows``, given each row's prompt (B,) and the prompts' mask (n, P)."""
    to_prompt = is_prompt[owner[rows]][:, None, :].expand(-1, length, -1)  # (b, t, P)
    # Padding stands behind a completion, where none of its tokens looks.
    before = torch.ones(length, length, dtype=torch.bool, device=is_prompt.device).tril()
    seen = torch.cat([to_prompt, before.expand(len(rows), -1, -1)], dim=2)[:, None]
    mask = torch.zeros(seen.shape, dtype=dtype, device=is_prompt.device).masked_fill(~seen, -torch.inf)
    return Block(rows, length, owner[rows], mask)


@dataclass(frozen=True)
class Scores:
    """Of completion tokens: log-probabilities and entropies (B, T), None where not asked for, and the states (B, T, H)
    that predict them, with zeros or whatever stands there on padding."""

    logps: Tensor | None
    entropy: Tensor | None
    states: Tensor | None


def score_in_passes(
    model,
    passes: list[list[int]],
    parts: tuple[Tensor, Tensor, Tensor, Tensor],
    autocast: Callable[[], AbstractContextManager],
    idle: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """(log-probabilities, entropies or None) of completions, each (B, T), from ``passes`` (`shared_passes`) over them.

    Args:
        parts: prompts and their mask (B, P), completions and their mask (B, T).
        autocast: the context manager factory under which ``model`` runs.
        idle: (B,) rows that are computed without a graph; None for none.
    """
    prompt_ids, prompt_mask, completion_ids, completion_mask = parts
    lengths = completion_lengths(completion_mask)

    def compute(rows: list[int], longest: int) -> tuple[Tensor, Tensor | None]:
        own = completion_ids[rows, :longest], completion_mask[rows, :longest]
        with autocast():
            scores = score_shared(model, prompt_ids[rows], prompt_mask[rows], *own)
        return scores.logps, scores.entropy

    buckets = [(rows, max(lengths[row] for row in rows)) for rows in passes]
    return in_buckets(compute, buckets, completion_ids.size(1), idle)


def score_shared(
    model,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    head: bool = True,
    states: bool = False,
) -> Scores:
    """One pass, under the autocast that is on, over completions and their distinct prompts.

    Args:
        model: the policy, with TRL's fused head on it, which `share_prompts` was called on.
        prompt_ids, prompt_mask, completion_ids, completion_mask: as in `shared_row`.
        head: whether log-probabilities and entropies are wanted; else the head is left out.
        states: whether the states are wanted.
    """
    base = base_of(model)
    row = shared_row(prompt_ids, prompt_mask, completion_ids, completion_mask, compute_dtype(base))
    inputs = inputs_of(row)
    with _predicting(base.base_model, row) as kept:
        output = model(**inputs, shift_labels=row.labels, fused_lm_head=True) if head else base.base_model(**inputs)
    width = completion_ids.size(1)
    return Scores(
        logps=_by_row(row, output.log_probs, width) if head else None,
        entropy=_by_row(row, output.entropy, width) if head and output.entropy is not None else None,
        states=_by_row(row, kept[0], width) if states else None,
    )


def inputs_of(row: SharedRow) -> dict:
    """The keywords of a forward pass over ``row``."""
    # A mask of four dimensions goes to the layers as it is; attention of a `SharedRow` does not look at it.
    unseen = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=row.input_ids.device)
    places = {"input_ids": row.input_ids, "position_ids": row.position_ids}
    return places | {"attention_mask": unseen, "shared": row, "use_cache": False}


@contextmanager
def _predicting(backbone: nn.Module, row: SharedRow) -> Iterator[list[Tensor]]:
    """While open, the final states of ``backbone`` are (1, N, H), those that predict a completion token, also yielded.

    So the head, often a third of the work, sees no prompt.
    """
    kept = []

    def pick(module, args, output):
        prompts, *blocks = row.parts(output.last_hidden_state)
        ends = prompts[torch.arange(len(prompts), device=prompts.device), row.last]  # (n, P, H) -> (n, H)
        before = (
            torch.cat([ends[block.owner][:, None], own[:, :-1]], dim=1).flatten(0, 1)  # (b, t, H) -> (b * t, H)
            for block, own in zip(row.blocks, blocks, strict=True)
        )
        output.last_hidden_state = torch.cat(list(before))[None]
        kept.append(output.last_hidden_state)
        return output

    hook = backbone.register_forward_hook(pick)
    try:
        yield kept
    finally:
        hook.remove()


def _by_row(row: SharedRow, flat: Tensor, width: int) -> Tensor:
    """(1, N, ...) in the order of the blocks as (B, width, ...) in the order of the batch."""
    parts = flat[0].split([block.tokens for block in row.blocks])
    shaped = [part.unflatten(0, (len(block.rows), block.length)) for part, block in zip(parts, row.blocks, strict=True)]
    return in_order(shaped, [(block.rows, block.length) for block in row.blocks], width)
