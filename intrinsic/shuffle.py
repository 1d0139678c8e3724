"""Control for any bonus: GRPO plus the true bonus of NAME, handed out to the wrong completions by lot.

``--use_ir=shuffle:NAME`` keeps everything of NAME (its values, their spread over training, who is eligible, its place
in the advantage) but for the tie between a value and the text that earned it. What NAME gains beyond it is due to that
tie; what both gain is due to the noise that any bonus puts into the advantages.
"""

from typing import Any

import torch
from torch import Tensor

from intrinsic.base import Bonus
from intrinsic.noise import group_generator
from training.errors import UserError
from training.rollout import Rollout

PREFIX = "shuffle:"


class Shuffle(Bonus):
    """The scores of ``bonus``, permuted among its eligible completions of the batch by a new lot each batch.

    Args:
        bonus: the wrapped bonus; it scores and learns as if it were not wrapped.
        seed: of the permutations; draws from no other random state.

    Raises `UserError` for a bonus with one value per token, or one that replaces the advantage.
    """

    def __init__(self, bonus: Bonus, seed: int = 0):
        if bonus.placement == "token" or bonus.replaces:
            kind = "one value per token" if bonus.placement == "token" else "an advantage in place of GRPO's"
            raise UserError(f"--use_ir={PREFIX}{bonus.name} cannot be shuffled: {bonus.name} gives {kind}.")
        self.bonus = bonus
        self.seed = seed
        self.batches = 0
        self.name = f"{PREFIX}{bonus.name}"
        self.placement = bonus.placement
        self.needs = bonus.needs
        self.part_names = bonus.part_names

    @property
    def pretrain_batches(self) -> int:
        return self.bonus.pretrain_batches

    def check(self, num_generations: int, max_completion_length: int) -> None:
        self.bonus.check(num_generations, max_completion_length)

    def eligible(self, rollout: Rollout) -> Tensor:
        return self.bonus.eligible(rollout)

    def score(self, rollout: Rollout) -> Tensor:
        """The permuted scores (B,)."""
        return torch.stack(list(self.score_parts(rollout).values())).sum(dim=0)

    def score_parts(self, rollout: Rollout) -> dict[str, Tensor]:
        """The permuted parts; all parts of a completion go to the same other one."""
        parts = self.bonus.score_parts(rollout)
        order = self._order(rollout)
        names = self.part_names or (self.name,)
        return {name: scores[order] for name, scores in zip(names, parts.values(), strict=True)}

    @property
    def batches_before_bonus(self) -> int:
        return self.bonus.batches_before_bonus

    @property
    def depends_on_length(self) -> bool:
        return self.bonus.depends_on_length

    def _order(self, rollout: Rollout) -> Tensor:
        chosen = self.eligible(rollout).nonzero().squeeze(1)
        lot = torch.randperm(len(chosen), generator=group_generator(self.seed, self.batches))
        order = torch.arange(len(rollout), device=rollout.device)
        order[chosen] = chosen[lot.to(chosen.device)]
        return order

    def update(self, rollout: Rollout) -> dict[str, float]:
        """What the wrapped bonus learns and logs."""
        self.batches += 1
        return self.bonus.update(rollout)

    def combine(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        return self.bonus.combine(advantages, scores, rollout)

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "bonus": self.bonus.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches = state["batches"]
        self.bonus.load_state_dict(state["bonus"])

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "seed": self.seed, "bonus": self.bonus.identity()}
