"""What controls share: a bonus around another one, that asks of a run, waits, learns and joins as that one does."""

from typing import Any

from torch import Tensor

from intrinsic.base import Bonus
from intrinsic.rollout import Rollout

# Attributes that do not change once a bonus is built.
FIXED = ("placement", "centred", "clipped", "needs", "reads", "needs_verdict", "from_second_visit")


class Control(Bonus):
    """A control of ``bonus``: what a run asks of it, ``bonus`` answers, but for name, score and identity, which a
    subclass gives.

    It answers itself for what no control has (whatever makes a bonus `uncontrolled`; `label_free`: its scores cannot
    stand in for verdicts; `measured`: they measure nothing) and what is settled before one is built (level and default
    weight, which are those of ``bonus``).

    Args:
        bonus: the bonus that is controlled, at its level.
        learns: whether nobody else lets ``bonus`` learn; it then learns, is saved and takes its memory here.

    Attributes:
        batches: how many it was updated on; the random numbers of a subclass are new in each.
    """

    def __init__(self, bonus: Bonus, learns: bool = True):
        self.bonus, self.learns = bonus, learns
        self.batches = 0
        for member in FIXED:
            setattr(self, member, getattr(bonus, member))

    @property
    def pretrain_batches(self) -> int:
        return self.bonus.pretrain_batches

    @property
    def batches_before_bonus(self) -> int:
        return self.bonus.batches_before_bonus

    @property
    def depends_on_length(self) -> bool:
        return self.bonus.depends_on_length

    def check(self, num_generations: int, max_completion_length: int) -> None:
        self.bonus.check(num_generations, max_completion_length)

    def eligible(self, rollout: Rollout) -> Tensor:
        return self.bonus.eligible(rollout)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """What the bonus learns and logs, where nobody else lets it learn."""
        self.batches += 1
        return self.bonus.update(rollout) if self.learns else {}

    def combine(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        return self.bonus.combine(advantages, scores, rollout)

    def combine_noise(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        return self.bonus.combine_noise(advantages, scores, rollout)

    def capacity_bytes(self, embedding_width: int) -> int:
        return self.bonus.capacity_bytes(embedding_width) if self.learns else 0

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches} | ({"bonus": self.bonus.state_dict()} if self.learns else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches = state["batches"]
        if self.learns:
            self.bonus.load_state_dict(state["bonus"])
