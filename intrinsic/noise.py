"""Control for any bonus: GRPO plus Gaussian noise as strong as that bonus in each group (i-MENTOR's authors ran one).

Plain GRPO has no such term. The noise knows nothing of any text: it has the standard deviation of the bonus among the
group's completions that have a score of it and the mean 0, goes the way of the bonus (its place, its level, its gate)
and is new in every batch. What the bonus gains beyond it is due to which completion is paid, not to how much a group is
disturbed.
"""

from typing import Any

import torch
from torch import Tensor

from common.errors import UserError, check_number
from intrinsic.base import Bonus, Placement, present_rows
from intrinsic.parts.control import Control
from intrinsic.parts.groups import centred_sum, group_centred, group_generator
from intrinsic.rollout import Rollout


class Noise(Control):
    """``--use_ir=noise``, as strong as `rnd` with the same flags, or ``--use_ir=NAME,noise``, as strong as NAME.

    Args:
        bonus: whose strength, place and gate the noise has.
        seed: of the noise; draws from no other random state.
        learns: whether nobody else lets ``bonus`` learn.

    Raises `UserError` for a bonus with one value per token, or one that replaces or multiplies the advantage.
    """

    name = "noise"
    placement: Placement = "advantage"  # alone; beside a bonus, its own

    def __init__(self, bonus: Bonus, seed: int = 0, learns: bool = True):
        check_number("rnd_seed", seed, least=0)
        if bonus.uncontrolled:
            raise UserError(
                f"--use_ir={bonus.name},{self.name}: noise cannot be as strong as {bonus.name}: it gives "
                f"{bonus.uncontrolled}; leave one of them out."
            )
        super().__init__(bonus, learns)
        self.seed = seed

    def score(self, rollout: Rollout) -> Tensor:
        """Noise (B,) with mean 0 and the bonus's standard deviation among those of each group that have a score of it.

        0 for others (`present_rows`). In the reward all eligible completions count: one without a score is paid 0
        there, which is part of what its group is normalised by. A group of fewer than two such completions, or without
        spread, gets none.
        """
        parts = self.bonus.score_parts(rollout)
        rows = present_rows(self.bonus, parts, rollout)
        if self.placement == "reward":
            parts = {part: torch.where(scores.isfinite(), scores, 0.0) for part, scores in parts.items()}
            rows = dict.fromkeys(parts, self.eligible(rollout))
        present = list(rows.values())
        paid = centred_sum(list(parts.values()), present, rollout.num_generations)
        inside = torch.stack(present).any(dim=0).view_as(paid)
        drawn = group_centred(self._normal(rollout).view_as(paid), inside)
        strength, own = _deviation(paid, inside), _deviation(drawn, inside)
        return (drawn * (strength / own.clamp(min=torch.finfo(own.dtype).tiny))).flatten()

    def _normal(self, rollout: Rollout) -> Tensor:
        """Independent normal numbers (B,), new ones for every batch, the same however groups are ordered."""
        times: dict[str, int] = {}
        groups = []
        for question in rollout.questions[:: rollout.num_generations]:
            times[question] = times.get(question, 0) + 1
            generator = group_generator(self.seed, self.batches, question, times[question])
            groups.append(torch.randn(rollout.num_generations, generator=generator))
        return torch.cat(groups).to(rollout.device)

    def combine(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        return self.bonus.combine_noise(advantages, scores, rollout)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "seed": self.seed, "bonus": self.bonus.identity()}


def _deviation(centred: Tensor, inside: Tensor) -> Tensor:
    """Standard deviation (n, 1) of ``centred`` (n, G), 0 outside ``inside``; 0 with fewer than two rows inside."""
    count = inside.sum(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
    return torch.where(count > 1, variance.sqrt(), 0.0)
