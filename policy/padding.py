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


def distinct_rows(tokens: Tensor) -> tuple[list[int], Tensor]:
    """(number of the first row of each of the n distinct rows of ``tokens`` (B, L), which of them each row is (B,))."""
    _, owner = torch.unique(tokens, dim=0, return_inverse=True)
    first = {group: row for row, group in reversed(list(enumerate(owner.tolist())))}
    return [first[group] for group in range(len(first))], owner
