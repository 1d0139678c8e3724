"""``--match_mass``: the advantages of a batch at the total size that plain GRPO's have on it.

Objectives and bonuses differ in how much they push, not only in where: (r - m) / m is up to n - 1 where GRPO's z is at
most sqrt(n), so that a comparison at one learning rate compares two lengths of step. Here one factor per generation
batch makes the sum of absolute advantages that of plain GRPO; what is left of a difference is where the mass lies.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from intrinsic.pipeline import ScoredBonus, reward_advantages
from intrinsic.rollout import Rollout

# A sum below this share of plain GRPO's is rounding; a factor would make it the size of a signal.
LEAST_SHARE = 1e-6


def plain_advantages(
    rewards: Tensor, num_extrinsic: int, scored: Sequence[ScoredBonus], settings: tuple
) -> Tensor | None:
    """Plain GRPO's advantages (B,) where a bonus is paid in the reward; None where TRL's own are plain GRPO's.

    Args:
        rewards: (B, K) columns, those of the script first, then those of the bonuses.
        num_extrinsic: how many are the script's.
        settings: the other arguments of `reward_advantages`.
    """
    if not any(item.bonus.placement == "reward" and item.weight != 0.0 for item in scored):
        return None
    extrinsic = rewards.clone()
    extrinsic[:, num_extrinsic:] = 0.0
    return reward_advantages(extrinsic, *settings)


def trained_tokens(rollout: Rollout, masks_truncated: bool) -> Tensor:
    """(B, T) bool: the completion tokens that the loss counts; one column of ones for a rollout without tokens.

    ``masks_truncated``: whether completions cut off at the length limit are left out of the loss.
    """
    mask = rollout.completion_mask
    if mask is None:
        return torch.ones(len(rollout), 1, dtype=torch.bool, device=rollout.device)
    return mask & ~rollout.truncated[:, None] if masks_truncated else mask


def mass(advantages: Tensor, tokens: Tensor) -> float:
    """Sum of |A|, float64: of (B,) over the completions that have trained ``tokens`` (B, T), of (B, T) over the tokens.

    float64 on the CPU, as not every device has it.
    """
    counted = tokens if advantages.dim() == 2 else tokens.any(dim=1)
    return (advantages.abs() * counted).cpu().double().sum().item()


def match_mass(joined: Tensor, plain: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, float]]:
    """``joined`` (B,) or (B, T) times the factor that gives it the `mass` of ``plain`` (B,), both over ``tokens``.

    With a value per token, each token of a completion counts once on both sides. Where ``plain`` has no mass (no group
    with a difference) or ``joined`` has none, no factor can match them, and ``joined`` is left as it is.

    Returns the advantages, and to log "match_mass/factor" and "match_mass/left_as_is" (1 where it is, else 0).
    """
    if joined.dim() == 2:
        plain = plain[:, None].expand_as(joined)  # (B,) -> (B, T)
    wanted, found = mass(plain, tokens), mass(joined, tokens)
    if wanted == 0.0 or found <= LEAST_SHARE * wanted:
        return joined, {"match_mass/factor": 1.0, "match_mass/left_as_is": 1.0}
    factor = wanted / found
    return joined if factor == 1.0 else joined * factor, {"match_mass/factor": factor, "match_mass/left_as_is": 0.0}
