"""Means of token features over a completion, standardised in the group and split by verdict: for bonuses that are paid
for how likely, or how certain, the policy is of what it wrote."""

import torch
from torch import Tensor

from intrinsic.parts.groups import group_standardize, sequence_mean
from intrinsic.rollout import Rollout


def mean_feature(rollout: Rollout, name: str) -> tuple[Tensor, Tensor]:
    """Mean (B,) of the token feature ``name`` over each completion, detached, in nats per token, and (B,) bool of the
    rows with tokens and a finite mean."""
    # (B, T) to (B,)
    mean = sequence_mean(rollout.features[name].detach().float(), rollout.completion_mask)
    return mean, rollout.completion_mask.any(dim=1) & mean.isfinite()


def standardized(values: Tensor, present: Tensor, num_generations: int) -> Tensor:
    """`group_standardize`, (B,), with what is not finite left as it is, for the finite guard to see."""
    return torch.where(values.isfinite(), group_standardize(values, present, num_generations), values)


def means_by_verdict(name: str, values: Tensor, present: Tensor, correct: Tensor) -> dict[str, float]:
    """Mean of ``values`` (B,) over the ``present`` rows, and over the right and the wrong ones among them, each where
    there is any: metrics ``name``, ``name_right`` and ``name_wrong``."""
    rows = {"": present, "_right": present & (correct > 0.5), "_wrong": present & (correct <= 0.5)}
    return {f"{name}{side}": values[chosen].mean().item() for side, chosen in rows.items() if chosen.any()}


def mean_of_cut_off(name: str, values: Tensor, rollout: Rollout) -> dict[str, float]:
    """Mean of the finite ``values`` (B,) of completions that were cut off at the length limit, paid or not, where there
    are any: metric ``name_truncated``."""
    if rollout.truncated is None or not (cut_off := rollout.truncated & values.isfinite()).any():
        return {}
    return {f"{name}_truncated": values[cut_off].mean().item()}
