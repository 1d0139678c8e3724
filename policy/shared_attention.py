"""Attention over one row that holds prompts and, behind them, their completions: each sees its prompt and itself.

The linear layers of a policy take a row as it is, whatever stands in it. In attention alone the row is taken apart:
prompts attend to themselves, and the completions, in blocks of similar length, to keys and values of their prompt and
to their own. So nothing is computed between completions, as it would be under a mask over the whole row. The function
is registered under names of its own; without a `SharedRow` it is the usual one of the policy.
"""

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

# Attention of transformers -> the same that can take a `SharedRow`.
SHARED = {"eager": "eager_shared_prompts", "sdpa": "sdpa_shared_prompts"}


@dataclass(frozen=True)
class Block:
    """Completions that stand side by side in a row, each padded to the longest.

    Attributes:
        rows: their numbers in the batch, b of them.
        length: tokens of the longest, t.
        owner: (b,) which prompt each goes on from.
        mask: (b, 1, t, P + t) added to a token's scores of its prompt and its completion: 0, or -inf where it must not
            look.
    """

    rows: list[int]
    length: int
    owner: Tensor
    mask: Tensor

    @property
    def tokens(self) -> int:
        return len(self.rows) * self.length


@dataclass(frozen=True)
class SharedRow:
    """n distinct prompts, right padded to P tokens, then blocks of their completions, all in one row of S tokens.

    Attributes:
        input_ids, position_ids: (1, S); positions of a completion go on from its prompt's.
        labels: (1, N) the completions' tokens, -100 on padding.
        last: (n,) place of each prompt's last token.
        width: P.
        blocks: the completions, shortest first.
    """

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    last: Tensor
    width: int
    blocks: list[Block]

    def parts(self, row: Tensor) -> list[Tensor]:
        """(1, S, ...) as the prompts (n, P, ...) and each block's (b, t, ...), which share its memory."""
        sizes = [(len(self.last), self.width), *((len(block.rows), block.length) for block in self.blocks)]
        parts = row[0].split([count * length for count, length in sizes])
        return [part.unflatten(0, size) for part, size in zip(parts, sizes, strict=True)]


def attend(module, query, key, value, attention_mask, shared: SharedRow, **kwargs):
    """Scaled dot-product attention of one `SharedRow`, as transformers calls it in a layer.

    Args:
        query: (1, heads, S, d); ``key`` and ``value`` (1, key heads, S, d).
        attention_mask: not looked at.
        kwargs: ``scaling`` of the scores; policies with dropout have no `SharedRow`.

    Returns:
        ((1, S, heads, d), None).
    """
    scaling = kwargs.get("scaling")
    queries, keys, values = (shared.parts(states.transpose(1, 2)) for states in (query, key, value))

    def among(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        heads_first = (states.transpose(1, 2) for states in (q, k, v))  # (b, t, heads, d) -> (b, heads, t, d)
        found, _ = sdpa_attention_forward(module, *heads_first, mask, scaling=scaling)
        return found.flatten(0, 1)  # (b, t, heads, d) -> (b * t, heads, d)

    found = [among(queries[0], keys[0], values[0], None)]
    for block, own_query, own_key, own_value in zip(shared.blocks, queries[1:], keys[1:], values[1:], strict=True):
        seen_key, seen_value = (
            torch.cat([prompt.index_select(0, block.owner), own], dim=1)  # (b, P + t, key heads, d)
            for prompt, own in ((keys[0], own_key), (values[0], own_value))
        )
        found.append(among(own_query, seen_key, seen_value, block.mask))
    return torch.cat(found)[None], None


def _eager(module, query, key, value, attention_mask, shared: SharedRow | None = None, **kwargs):
    if shared is not None:
        return attend(module, query, key, value, attention_mask, shared, **kwargs)
    usual = inspect.getmodule(type(module)).eager_attention_forward
    return usual(module, query, key, value, attention_mask, **kwargs)


def _sdpa(module, query, key, value, attention_mask, shared: SharedRow | None = None, **kwargs):
    if shared is not None:
        return attend(module, query, key, value, attention_mask, shared, **kwargs)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(SHARED["eager"], _eager)
AttentionInterface.register(SHARED["sdpa"], _sdpa)
AttentionMaskInterface.register(SHARED["eager"], eager_mask)
AttentionMaskInterface.register(SHARED["sdpa"], sdpa_mask)
