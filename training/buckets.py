"""Log-probabilities of completions of similar length at a time, so that short ones are not padded to the longest.

Padding on the right cannot reach the tokens before it in a causal model, so values and gradients are those of one
padded batch, up to the order of floating-point sums.
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


def buckets_of(completion_mask: Tensor, prompt_length: int) -> list[tuple[list[int], int]]:
    """(rows, longest completion) of each bucket for the (B, T) mask, of the size that its device needs."""
    lengths = completion_lengths(completion_mask)
    least = MIN_TOKENS.get(completion_mask.device.type, MIN_TOKENS_ACCELERATOR)
    return [(rows, max(lengths[row] for row in rows)) for rows in length_buckets(lengths, prompt_length, least)]


def in_order(parts: list[Tensor], buckets: list[tuple[list[int], int]], length: int) -> Tensor:
    """(B, length, ...) in the order of the rows from each bucket's (b, t, ...), zero behind a bucket."""
    whole = [pad(part, (0, 0) * (part.dim() - 2) + (0, length - part.size(1))) for part in parts]
    order = torch.tensor([row for rows, _ in buckets for row in rows], device=parts[0].device)
    return torch.cat(whole)[order.argsort()]


def completion_lengths(completion_mask: Tensor) -> list[int]:
    """Position of the last true of each row of a (B, T) mask, plus one; at least 1."""
    positions = torch.arange(1, completion_mask.size(1) + 1, device=completion_mask.device)
    return (completion_mask.bool() * positions).amax(dim=1).clamp(min=1).tolist()


def by_length(
    compute: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor | None]],
    input_ids: Tensor,
    attention_mask: Tensor,
    logits_to_keep: int,
) -> tuple[Tensor, Tensor | None]:
    """What ``compute`` gives for the whole batch, from calls on buckets trimmed to their longest completion.

    Args:
        compute: (ids, mask, number of completion tokens) -> (log-probabilities, entropies or None), each (b, t).
        input_ids, attention_mask: (B, P + T) prompts, left padded, and completions, right padded.
        logits_to_keep: T.

    Returns:
        (log-probabilities, entropies or None), each (B, T); 0 behind a row's bucket.
    """
    prompt = input_ids.size(1) - logits_to_keep
    buckets = buckets_of(attention_mask[:, -logits_to_keep:], prompt)
    found = [
        compute(input_ids[rows, : prompt + longest], attention_mask[rows, : prompt + longest], longest)
        for rows, longest in buckets
    ]
    logps = in_order([part for part, _ in found], buckets, logits_to_keep)
    if found[0][1] is None:
        return logps, None
    return logps, in_order([part for _, part in found], buckets, logits_to_keep)
