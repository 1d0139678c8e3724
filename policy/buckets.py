"""Log-probabilities of completions of similar length at a time, so that short ones are not padded to the longest.

Padding on the right cannot reach the tokens before it in a causal model, so values and gradients are those of one
padded batch, up to the order of floating-point sums. Rows whose gradient is zero take no backward pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

# Tokens that a forward pass should hold at least: smaller ones leave the device idle.
MIN_TOKENS = {"cpu": 1024}
MIN_TOKENS_ACCELERATOR = 16_384


def length_buckets(lengths: list[int], others: int, min_tokens: int) -> list[list[int]]:
    """Row indices by rising length, cut into runs of at least ``min_tokens`` tokens, padding included.

    Args:
        lengths: tokens of each row's completion.
        others: tokens that every row has besides (its prompt).
    """
    buckets: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        buckets[-1].append(row)
        if len(buckets[-1]) * (others + lengths[row]) >= min_tokens:
            buckets.append([])
    if len(buckets) > 1:
        rest = buckets.pop()
        buckets[-1].extend(rest)
    return buckets


def buckets_of(completion_mask: Tensor, prompt_length: int, idle: Tensor | None = None) -> list[tuple[list[int], int]]:
    """(rows, longest completion) of each bucket for the (B, T) mask, of the size that its device needs.

    With ``idle``, a (B,) mask, no bucket mixes idle rows with others.
    """
    lengths = completion_lengths(completion_mask)
    least = MIN_TOKENS.get(completion_mask.device.type, MIN_TOKENS_ACCELERATOR)
    flags = idle.tolist() if idle is not None else [False] * len(lengths)
    found = []
    for kind in sorted(set(flags)):
        members = [row for row, flag in enumerate(flags) if flag == kind]
        for bucket in length_buckets([lengths[row] for row in members], prompt_length, least):
            rows = [members[index] for index in bucket]
            found.append((rows, max(lengths[row] for row in rows)))
    return found


def in_order(parts: list[Tensor], buckets: list[tuple[list[int], int]], length: int) -> Tensor:
    """(B, length, ...) in the order of the rows from each bucket's (b, t, ...), zero behind a bucket."""
    whole = [pad(part, (0, 0) * (part.dim() - 2) + (0, length - part.size(1))) for part in parts]
    order = torch.tensor([row for rows, _ in buckets for row in rows], device=parts[0].device)
    return torch.cat(whole)[order.argsort()]


def completion_lengths(completion_mask: Tensor) -> list[int]:
    """Position of the last true of each row of a (B, T) mask, plus one; at least 1."""
    positions = torch.arange(1, completion_mask.size(1) + 1, device=completion_mask.device)
    return (completion_mask.bool() * positions).amax(dim=1).clamp(min=1).tolist()


def idle_rows(advantages: Tensor, completion_mask: Tensor) -> Tensor:
    """(B,) mask of rows whose ``advantages``, (B,) or (B, T), are all zero; never all rows: a loss needs a graph."""
    idle = (advantages.view(len(advantages), -1) == 0).all(dim=1)
    if idle.all():
        idle[completion_mask.sum(dim=1).argmin()] = False
    return idle


def by_length(
    compute: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor | None]],
    input_ids: Tensor,
    attention_mask: Tensor,
    logits_to_keep: int,
    idle: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """What ``compute`` gives for the whole batch, from calls on buckets trimmed to their longest completion.

    Args:
        compute: (ids, mask, number of completion tokens) -> (log-probabilities, entropies or None), each (b, t).
        input_ids, attention_mask: (B, P + T) prompts, left padded, and completions, right padded.
        logits_to_keep: T.
        idle: (B,) rows that are computed without a graph; None for none.

    Returns:
        (log-probabilities, entropies or None), each (B, T); 0 behind a row's bucket.
    """
    prompt = input_ids.size(1) - logits_to_keep

    def compute_rows(rows: list[int], longest: int) -> tuple[Tensor, Tensor | None]:
        return compute(input_ids[rows, : prompt + longest], attention_mask[rows, : prompt + longest], longest)

    buckets = buckets_of(attention_mask[:, -logits_to_keep:], prompt, idle)
    return in_buckets(compute_rows, buckets, logits_to_keep, idle)


def in_buckets(
    compute: Callable[[list[int], int], tuple[Tensor, Tensor | None]],
    buckets: list[tuple[list[int], int]],
    width: int,
    idle: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """What ``compute`` gives for ``buckets`` of the rows of a batch and their longest completions, put together.

    Args:
        compute: (rows, tokens of their longest completion) -> (log-probabilities, entropies or None), each (b, t).
        width: T, the width of the batch.
        idle: (B,) rows that are computed without a graph; None for none. A bucket holds idle rows or others alone.

    Returns:
        (log-probabilities, entropies or None), each (B, T); 0 behind a row's bucket.
    """
    found = []
    for rows, longest in buckets:
        with_graph = torch.is_grad_enabled() and not (idle is not None and idle[rows[0]])
        with torch.set_grad_enabled(with_graph):
            found.append(compute(rows, longest))
    logps = in_order([part for part, _ in found], buckets, width)
    if found[0][1] is None:
        return logps, None
    return logps, in_order([part for _, part in found], buckets, width)
