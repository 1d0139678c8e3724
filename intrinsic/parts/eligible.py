"""Which completions a bonus may pay, where several bonuses answer alike."""

import torch
from torch import Tensor

from intrinsic.rollout import Rollout


def with_reasoning(rollout: Rollout) -> Tensor:
    """(B,) bool: responses that are not empty (`Rollout.reasonings`)."""
    return torch.tensor([bool(text) for text in rollout.reasonings], device=rollout.device)
