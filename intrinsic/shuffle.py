"""Control for any bonus: GRPO plus the true bonus of NAME, permuted among completions of equal verdict.

``--use_ir=shuffle:NAME`` keeps everything of NAME (its values, their spread in each group, how they differ between
verdicts, who is eligible, its place in the advantage) but for the tie between a value and the text that earned it. What
NAME gains beyond it is due to that tie; what both gain is due to the noise that any bonus puts into the advantages, and
to what the bonus says of the verdict.
"""

from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from intrinsic import SHUFFLE
from intrinsic.base import SHUFFLE_WITHIN, Bonus
from intrinsic.parts.control import Control
from intrinsic.parts.groups import group_generator
from intrinsic.rollout import KINDS, Rollout


class Shuffle(Control):
    """The scores of ``bonus``, permuted among its eligible completions by new permutations each batch.

    Args:
        bonus: the wrapped bonus; it scores and learns as if it were not wrapped.
        seed: of the permutations; draws from no other random state.
        within: "verdict", among completions of one group that are all right, all wrong answers or all without answer
            (`Rollout.kinds`; without verdicts among all of a group), or "batch", among all of them, which also cuts
            the tie between bonus and verdict.

    Raises `UserError` for a bonus with one value per token, or one that replaces or multiplies the advantage.
    """

    def __init__(self, bonus: Bonus, seed: int = 0, within: str = SHUFFLE_WITHIN[0]):
        if bonus.uncontrolled:
            raise UserError(
                f"--use_ir={SHUFFLE}{bonus.name} cannot be shuffled: {bonus.name} gives {bonus.uncontrolled}; leave "
                f"{SHUFFLE} out, or shuffle another bonus."
            )
        super().__init__(bonus)
        self.seed = seed
        self.within = within
        self.name = f"{SHUFFLE}{bonus.name}"
        self.part_names = bonus.part_names

    def score_parts(self, rollout: Rollout) -> dict[str, Tensor]:
        """The permuted parts; all parts of a completion go to the same other one."""
        parts = self.bonus.score_parts(rollout)
        order = self._order(rollout)
        names = self.part_names or (self.name,)
        return {name: scores[order] for name, scores in zip(names, parts.values(), strict=True)}

    def present_parts(self, rollout: Rollout) -> dict[str, Tensor]:
        """Those of the bonus, permuted with its parts."""
        told, order = self.bonus.present_parts(rollout), self._order(rollout)
        own, others = self.part_names or (self.name,), self.bonus.part_names or (self.bonus.name,)
        return {name: told[other][order] for name, other in zip(own, others, strict=True) if other in told}

    def _order(self, rollout: Rollout) -> Tensor:
        """(B,) long: the completion that each one takes its values from."""
        generator = group_generator(self.seed, self.batches)
        order = torch.arange(len(rollout))
        eligible = self.eligible(rollout).cpu()
        cells = self._cells(rollout)
        for cell in cells[eligible].unique():
            rows = ((cells == cell) & eligible).nonzero().squeeze(1)
            order[rows] = rows[torch.randperm(len(rows), generator=generator)]
        return order.to(rollout.device)

    def _cells(self, rollout: Rollout) -> Tensor:
        """(B,) long on the CPU: completions with the same number exchange their values."""
        if self.within == "batch":
            return torch.zeros(len(rollout), dtype=torch.long)
        groups = torch.arange(len(rollout)) // rollout.num_generations
        return groups * (len(KINDS) + 1) + rollout.kinds.cpu() + 1  # kinds begin at -1: not known what is right

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "seed": self.seed, "within": self.within, "bonus": self.bonus.identity()}
