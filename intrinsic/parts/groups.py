"""What bonuses share about groups: random numbers of their own, centring, and how values rank right above wrong."""

import hashlib

import torch
from torch import Tensor


def group_generator(*key) -> torch.Generator:
    """A CPU generator whose numbers depend on ``key`` alone."""
    digest = hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def group_centred(groups: Tensor, inside: Tensor) -> Tensor:
    """``groups`` (n, G) less the mean of each row over the places ``inside`` (n, G) bool; 0 at the others."""
    known = torch.where(inside, groups, 0.0)
    mean = known.sum(dim=1, keepdim=True) / inside.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(inside, known - mean, 0.0)


def right_above_wrong(values: Tensor, correct: Tensor, present: Tensor, num_generations: int) -> float:
    """Share of the (right, wrong) pairs of one group in which the right completion has the higher value.

    The area under the ROC curve within groups: ties count one half, 0.5 means that values do not tell right from
    wrong. NaN where no group has both. ``values``, ``correct``, ``present``: (B,).
    """
    groups = values.view(-1, num_generations)
    right = ((correct > 0.5) & present).view_as(groups)
    wrong = ((correct <= 0.5) & present).view_as(groups)
    pairs = right[:, :, None] & wrong[:, None, :]
    difference = (groups[:, :, None] - groups[:, None, :])[pairs]
    return ((difference > 0).float() + 0.5 * (difference == 0).float()).mean().item()
