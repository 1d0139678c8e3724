"""INTUITOR's self-certainty (arXiv 2505.19590v2, section 3): GRPO that pays a policy for being sure of what it writes.

Plain GRPO standardises the verdicts of a group; here the self-certainty u of each completion is standardised in the
same way and added, ``A = z(r) + lambda z(u)``, or stands alone where no reward has a weight. u is the mean over the
completion's tokens of KL(uniform || policy), in nats per token (equation 4; Kang et al., arXiv 2502.18581).

Differences from the two reference implementations (each on purpose): u belongs to the distributions that predict the
tokens, not to those after them; it is in float32 (bfloat16 has steps as wide as the spread of a group); a completion
without tokens does not enter mean and deviation of its group; lambda exists, where there the weight of a single reward
cancels in its own normalisation and self-certainty has none.
"""

from typing import Any

import torch
from torch import Tensor

from common.errors import check_choice, check_number
from intrinsic.parts.certainty import Certainty
from intrinsic.parts.likelihood import mean_feature, mean_of_cut_off, means_by_verdict
from intrinsic.rollout import Rollout

# Who judges: the policy as it is, or as it was before training -> the feature with that judgement.
ANNOTATORS = {"online": "self_certainty", "offline": "frozen_self_certainty"}


class SelfCertainty(Certainty):
    """``--use_ir=sc``: self-certainty of each completion, standardised within its group.

    Args:
        sc_lambda: lambda, the weight of the standardised self-certainty beside the standardised reward.
        annotator: "online", the policy as it samples, or "offline", the policy before training, which the paper shows
            to be exploited and which is here for that ablation.
        alone: whether extrinsic rewards have weight 0; only to tell saved runs apart.
        truncated: see `Certainty`.

    Raises `UserError` for a weight that is not finite or an unknown word.
    """

    name = "sc"
    measured = "self_certainty"

    def __init__(self, sc_lambda: float = 1.0, annotator: str = "online", alone: bool = False, truncated: str = "pay"):
        check_number("sc_lambda", sc_lambda)
        check_choice("sc_annotator", annotator, ANNOTATORS)
        super().__init__(truncated)
        self.sc_lambda = sc_lambda
        self.annotator = annotator
        self.alone = alone
        self.needs = frozenset({ANNOTATORS[annotator]})

    @classmethod
    def from_options(cls, options) -> "SelfCertainty":
        return cls(
            sc_lambda=options.sc_lambda,
            annotator=options.sc_annotator,
            alone=options.sc_alone,
            truncated=options.sc_truncated,
        )

    def certainty(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """u (B,) in nats per token, detached, and (B,) bool of the eligible rows with a finite u."""
        mean, present = mean_feature(rollout, ANNOTATORS[self.annotator])
        return mean, self.eligible(rollout) & present

    def combine(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        """``advantages + lambda * scores``, both (B,) or (B, T)."""
        return advantages + self.sc_lambda * scores

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; u before standardisation for the log, over completions that take part.

        Returns "self_certainty" (mean u, nats per token), its means over right and wrong answers and, paid or not, over
        completions cut off ("self_certainty_truncated"), and "group_std" (mean deviation of u in a group); each only
        where the batch holds what it is about.
        """
        values, present = self.certainty(rollout)
        metrics = means_by_verdict("self_certainty", values, present, rollout.correct)
        metrics |= mean_of_cut_off("self_certainty", values, rollout)
        groups, inside = values.view(-1, rollout.num_generations), present.view(-1, rollout.num_generations)
        deviations = [group[kept].std() for group, kept in zip(groups, inside, strict=True) if kept.sum() > 1]
        return metrics | ({"group_std": torch.stack(deviations).mean().item()} if deviations else {})

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "sc_lambda": self.sc_lambda,
            "sc_annotator": self.annotator,
            "sc_alone": self.alone,
            "sc_truncated": self.truncated,
        }
