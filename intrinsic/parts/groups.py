"""What bonuses share about groups: random numbers of their own, centring, standardising, ranks of right and wrong."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-4  # what TRL, and INTUITOR's open-r1 program, add to the standard deviation
RESOLUTION = 1e-4  # nats; equal completions differ by up to 1e-5 with their place in a batch


def group_generator(*key) -> torch.Generator:
    """A CPU generator whose numbers depend on ``key`` alone."""
    digest = hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def group_centred(groups: Tensor, inside: Tensor) -> Tensor:
    """``groups`` (n, G) less the mean of each row over the places ``inside`` (n, G) bool; 0 at the others."""
    known = torch.where(inside, groups, 0.0)
    mean = known.sum(dim=1, keepdim=True) / inside.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(inside, known - mean, 0.0)


def centred_sum(parts: Sequence[Tensor], present: Sequence[Tensor], num_generations: int) -> Tensor:
    """Sum of the ``parts`` (B,) of a score, each `group_centred` over its ``present`` rows (B,) bool; (groups, G).

    Parts that are present in the same rows are added before they are centred, so that one mean is taken of them.
    """
    together: list[tuple[Tensor, list[Tensor]]] = []
    for values, rows in zip(parts, present, strict=True):
        alike = next((found for other, found in together if torch.equal(other, rows)), None)
        if alike is None:
            together.append((rows, [values]))
        else:
            alike.append(values)
    shape = (-1, num_generations)
    centred = [group_centred(torch.stack(found).sum(dim=0).view(shape), rows.view(shape)) for rows, found in together]
    return torch.stack(centred).sum(dim=0)


def group_standardize(values: Tensor, present: Tensor, num_generations: int) -> Tensor:
    """(values - mean) / (unbiased standard deviation + 1e-4) within each group of ``num_generations``.

    Args:
        values: (B,) float32.
        present: (B,) bool; rows that enter mean and deviation.

    Returns:
        (B,); 0 for absent rows, and in groups with fewer than two present rows or no spread beyond rounding.
    """
    groups, inside = values.view(-1, num_generations), present.view(-1, num_generations)
    known = torch.where(inside, groups, torch.zeros_like(groups))
    count = inside.sum(dim=1, keepdim=True)
    centred = torch.where(inside, known - known.sum(dim=1, keepdim=True) / count.clamp(min=1), 0.0)
    deviation = (centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    spread = centred.amax(dim=1, keepdim=True) - centred.amin(dim=1, keepdim=True)
    return torch.where(spread > RESOLUTION, centred / (deviation + EPSILON), 0.0).flatten()


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


def sequence_mean(scores: Tensor, mask: Tensor | None) -> Tensor:
    """(B,) scores as they are; (B, T) scores averaged over completion tokens."""
    if scores.dim() == 1:
        return scores
    return (scores * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
