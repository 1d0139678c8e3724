"""Keys and values with room behind them: a decoded token is written there, instead of copying all that came before it.

`transformers.DynamicCache` joins what it holds with each new token, so a completion of L tokens copies its keys and
values L times; `transformers.StaticCache` attends to its full length from the first token on. Here buffers grow by
`ROOM` tokens at a time, and attention reads the filled part of them. Tokens and logits stay as they are.
"""

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 32  # tokens that a buffer has room for when it is made


class GrowingLayer(DynamicLayer):
    """Keys and values (B, heads, tokens, width) of one layer, in the type ``kept``; None keeps the type they come in.

    For sampling alone: what is held is overwritten in place, which no backward pass may read.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, kept: torch.dtype | None):
        super().__init__()
        self.kept = kept
        self.buffers: dict[str, tuple[Tensor, Tensor]] = {}  # buffer, and its filled part as handed out last

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Append (B, heads, new tokens, width); returns all that the layer holds."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._append("keys", self.keys, key_states)
        self.values = self._append("values", self.values, value_states)
        return self.keys, self.values

    def _append(self, name: str, held: Tensor, new: Tensor) -> Tensor:
        before = held.shape[-2] if held.numel() else 0
        after = before + new.shape[-2]
        buffer, filled = self.buffers.get(name, (held, None))
        # Rows that were chosen, reordered or cut are no longer the filled part of the buffer.
        if filled is not held or after > buffer.shape[-2]:
            shape = (*new.shape[:-2], after + ROOM, new.shape[-1])
            buffer = torch.empty(shape, dtype=self.kept or new.dtype, device=new.device)
            if before:
                buffer[..., :before, :] = held
        buffer[..., before:after, :] = new
        filled = buffer[..., :after, :]
        self.buffers[name] = buffer, filled
        return filled

    def go_on_with(self, rows: Tensor, dropped: int) -> None:
        """Hold what is held of ``rows`` (b,), without its first ``dropped`` tokens, with room behind it."""
        self.keys = self._chosen("keys", self.keys[..., dropped:, :], rows)
        self.values = self._chosen("values", self.values[..., dropped:, :], rows)

    def _chosen(self, name: str, held: Tensor, rows: Tensor) -> Tensor:
        """``held`` (B, heads, tokens, width) of ``rows`` (b,), copied once into a buffer of its own."""
        tokens = held.shape[-2]
        buffer = held.new_empty(len(rows), held.shape[1], tokens + ROOM, held.shape[-1])
        filled = torch.index_select(held, 0, rows, out=buffer[..., :tokens, :])
        self.buffers[name] = buffer, filled
        return filled

    def reset(self) -> None:
        """Drop what is held."""
        self.buffers.clear()
        super().reset()


class GrowingCache(DynamicCache):
    """`transformers.DynamicCache` whose layers, each with full attention, are of `GrowingLayer`."""

    def __init__(self, config, kept: torch.dtype | None = None):
        super().__init__(config=config)
        self.layers: list = [GrowingLayer(kept) for _ in DynamicCache(config=config).layers]

    def go_on_with(self, rows: Tensor, dropped: int) -> None:
        """Keep ``rows`` (b,) of all layers, without their first ``dropped`` tokens."""
        for layer in self.layers:
            layer.go_on_with(rows, dropped)
