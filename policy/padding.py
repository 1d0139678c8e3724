"""Token lists of different lengths as one batch."""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def pad_tokens(sequences: list[list[int]], side: str, padding_value: int, device) -> tuple[Tensor, Tensor]:
    """Token lists to (B, L) ids and bool mask, padded on ``side`` ("left" or "right")."""

    def padded(rows: list[Tensor], value: int) -> Tensor:
        return pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side).to(device)

    ids = [torch.tensor(sequence, dtype=torch.long) for sequence in sequences]
    return padded(ids, padding_value), padded([torch.ones_like(row, dtype=torch.bool) for row in ids], 0)
