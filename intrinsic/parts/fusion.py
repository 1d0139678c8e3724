"""MERCI from token variances to advantages: one root over summed variances, positive group z-score, clipped fusion."""

import torch
from torch import Tensor

MIN_STD = 1e-6  # below it a group's values are the same but for rounding
STD_EPS = 1e-4  # TRL's


def trajectory_uncertainty(variance: Tensor, kept: Tensor, mask: Tensor | None = None) -> Tensor:
    """B = sqrt(sum of ``variance`` (B, T) over ``kept`` (B, T) tokens / l), (B,): variances are summed, then one root.

    l is the number of kept tokens, or of all tokens of ``mask`` (B, T) if given; 0 where nothing is kept.
    """
    length = (kept if mask is None else mask).sum(dim=1).clamp(min=1)
    return (variance.where(kept, 0.0).sum(dim=1) / length).sqrt()


def positive_zscore(values: Tensor, present: Tensor) -> Tensor:
    """max(0, (value - mean) / (std + `STD_EPS`)) over the ``present`` entries of each row of ``values`` (rows, n).

    The deviation is the unbiased one. A row of one entry, or of equal ones, yields zeros, and so do absent entries.
    """
    count = present.sum(dim=1, keepdim=True)
    mean = values.where(present, 0.0).sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = (values - mean).where(present, 0.0)
    std = (centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return (centred / (std + STD_EPS)).clamp(min=0.0).where(std >= MIN_STD, 0.0)


def clipped_advantage(advantages: Tensor, bonus: Tensor, alpha: float) -> Tensor:
    """min(A + bonus, (1 + alpha) A) where A >= 0, min(A + bonus, (1 - alpha) A) where A < 0, of a bonus >= 0.

    That bonus never lowers an advantage, never flips its sign, and leaves 0 at 0. One below 0, which a negative weight
    makes, is bounded below as the other is above: A moves by alpha |A| at most.
    """
    bound = alpha * advantages.abs()
    return advantages + torch.clamp(bonus, min=-bound, max=bound)
