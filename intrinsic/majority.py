"""Majority voting as a reward (TTRL, arXiv 2504.16084): GRPO that takes the group's commonest answer for the right one.

Plain GRPO standardises verdicts; here a completion gets u = 1 where its final answer is the commonest of its group and
0 where it is not, without looking at a gold answer, and z(u) is added to the advantage as self-certainty is (``sc``),
or stands alone where no reward has a weight. TTRL has no other reward.
"""

from collections import Counter

import torch
from torch import Tensor

from common.errors import UserError
from intrinsic.base import Bonus
from intrinsic.parts.groups import group_standardize
from intrinsic.rollout import Rollout


def majority_votes(answers: list[str | None]) -> list[float]:
    """1.0 for each of a group's ``answers`` that is the commonest parsed one, all of several equally common ones;
    0.0 for others and for None."""
    tally, most = Counter(answers), largest_count(answers)
    return [float(answer is not None and tally[answer] == most) for answer in answers]


def largest_count(answers: list[str | None]) -> int:
    """How many of a group's ``answers`` are the commonest parsed one, one of several; 0 where none is parsed."""
    return max(Counter(answer for answer in answers if answer is not None).values(), default=0)


def _groups(rollout: Rollout) -> list[list[str | None]]:
    """The answers of each group."""
    n = rollout.num_generations
    return [rollout.answers[start : start + n] for start in range(0, len(rollout), n)]


class Majority(Bonus):
    """``--use_ir=majority``: whether the answer is the group's commonest, standardised within the group."""

    name = "majority"
    placement = "advantage"
    label_free = True
    clipped = False  # z is as large as that of the rewards, which nothing clips
    reads = frozenset({"answer"})
    measured = "agreement"

    def check(self, num_generations: int, max_completion_length: int) -> None:
        """Raise `UserError` for a group of two, in which no answer can outvote another."""
        if num_generations < 3:
            raise UserError(
                f"--num_generations={num_generations}: in a group of two no answer is commoner than the other; "
                "majority needs at least 3."
            )

    def votes(self, rollout: Rollout) -> Tensor:
        """u of each completion, (B,) float32."""
        votes = [majority_votes(answers) for answers in _groups(rollout)]
        return torch.tensor(votes, device=rollout.device).flatten()

    def score(self, rollout: Rollout) -> Tensor:
        """z(u) of each completion within its group, (B,); 0 where all or none are the commonest."""
        present = torch.ones(len(rollout), dtype=torch.bool, device=rollout.device)
        return group_standardize(self.votes(rollout), present, rollout.num_generations)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; figures of the batch.

        Returns "agreement" (mean share of a group that gives its commonest answer, one of several: 1 / n where all
        differ) and, where a group has an answer, "majority_right" (share of such groups in which more than half of
        the votes, those for all of several equally common answers, are right).
        """
        n = rollout.num_generations
        votes, right = self.votes(rollout).view(-1, n), (rollout.correct > 0.5).view(-1, n)
        metrics = {"agreement": sum(map(largest_count, _groups(rollout))) / len(rollout)}
        counts = votes.sum(dim=1)
        if (counts > 0).any():
            shares = (votes * right).sum(dim=1)[counts > 0] / counts[counts > 0]
            metrics["majority_right"] = (shares > 0.5).float().mean().item()
        return metrics
