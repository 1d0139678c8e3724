"""Which completions a bonus may pay, where several bonuses answer alike."""

import torch
from torch import Tensor

from common.errors import UserError
from intrinsic.rollout import Rollout

TRUNCATED = ("pay", "skip")  # completions cut off at the length limit: a loop that never ends is certain too


def with_tokens(rollout: Rollout, truncated: str) -> Tensor:
    """(B,) bool: completions with tokens; where ``truncated`` is "skip", those that were not cut off.

    Raises `UserError` where "skip" needs to know what was cut off and the rollout does not say.
    """
    has_tokens = rollout.completion_mask.any(dim=1)
    if truncated == "pay":
        return has_tokens
    if rollout.truncated is None:
        raise UserError(
            f"--sc_truncated={truncated} needs to know which completions were cut off, which nothing says here; use "
            "--sc_truncated=pay."
        )
    return has_tokens & ~rollout.truncated


def with_reasoning(rollout: Rollout) -> Tensor:
    """(B,) bool: responses that are not empty (`Rollout.reasonings`)."""
    return torch.tensor([bool(text) for text in rollout.reasonings], device=rollout.device)
