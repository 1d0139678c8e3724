"""One prefill for rows that begin alike: the completions of a group share the keys and values of their prompt.

``generate`` reads every row from its first token. Rows that begin with the same tokens, padding included, are read once
up to where they part; each gets a copy of the keys and values and reads on from there. Tokens come from the same
distributions: only the order of floating-point sums may differ.
"""

import inspect

import torch
from torch import Tensor
from transformers import Cache

from policy.padding import distinct_rows

# Share of the tokens that reading common beginnings once has to save, to be worth a pass of its own.
LEAST_SAVED = 0.25


def shared_columns(tokens: Tensor) -> int:
    """How many columns of ``tokens`` (B, L) to read once for all rows that agree on them; 0 where it saves too little.

    The last column is never one of them: ``generate`` needs the logits of every row's last token.
    """
    size, length = tokens.shape
    ordered = torch.unique(tokens[:, :-1], dim=0)  # sorted, so that rows that begin alike are neighbours
    common = (ordered[1:] == ordered[:-1]).long().cumprod(dim=1).sum(dim=1)
    best, least = 0, size * length * (1 - LEAST_SAVED)
    for columns in {length - 1, *common.tolist()}:
        distinct = 1 + int((common < columns).sum())
        read = distinct * columns + size * (length - columns)
        if columns and read <= least:
            best, least = columns, read
    return best


def takes_shared_prefill(policy, asked: dict) -> bool:
    """Whether a call ``policy.generate(**asked)`` reads text alone, by positions that can be said."""
    tensors = {name for name, value in asked.items() if isinstance(value, Tensor)}
    takes_positions = "position_ids" in inspect.signature(type(policy.base_model).forward).parameters
    return tensors == {"input_ids", "attention_mask"} and takes_positions and not policy.config.is_encoder_decoder


@torch.no_grad()
def fill(cache: Cache, policy, input_ids: Tensor, attention_mask: Tensor, columns: int) -> None:
    """Put keys and values of the first ``columns`` tokens of each row (B, L) into the empty ``cache``.

    Each distinct beginning takes one row of the forward pass of ``policy``, a causal language model.
    """
    ids, mask = input_ids[:, :columns], attention_mask[:, :columns].long()
    rows, owner = distinct_rows(ids.masked_fill(mask == 0, -1))
    ids, mask = ids[rows], mask[rows]  # (B, columns) -> (n, columns)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    policy.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
    cache.batch_select_indices(owner)  # (n, heads, columns, width) -> (B, heads, columns, width)
