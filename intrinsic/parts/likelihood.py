"""How likely the policy finds what it wrote: the mean log-probability of a completion's tokens."""

from torch import Tensor

from intrinsic.parts.groups import sequence_mean
from intrinsic.rollout import Rollout


def mean_logp(rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Mean log-probability (B,) in nats per token, detached, and (B,) bool of the rows with tokens and a finite mean.

    Needs the feature "logps".
    """
    logps = sequence_mean(rollout.features["logps"].detach().float(), rollout.completion_mask)
    return logps, rollout.completion_mask.any(dim=1) & logps.isfinite()
