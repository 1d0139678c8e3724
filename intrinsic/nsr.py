"""Negative-sample reinforcement (NSR and W-REINFORCE, arXiv 2506.01347): GRPO that mostly unlearns wrong answers.

Plain GRPO compares the verdicts of a group; here there is no comparison: a wrong answer always gets -1, a right one
lambda. With lambda 0 (NSR) probability only leaves wrong answers, to wherever the policy likes, which keeps its other
ways alive; 0.1 is the authors' weighted form, 1 is REINFORCE on +1 and -1.
"""

from typing import Any

from common.errors import check_number
from intrinsic.parts.count_objective import CountObjective


class NegativeSamples(CountObjective):
    """``--use_ir=nsr``: lambda if right and -1 if wrong, in place of the group advantage.

    Args:
        nsr_lambda: lambda.

    Raises `UserError` for a lambda that is negative or not finite.
    """

    name = "nsr"

    def __init__(self, nsr_lambda: float = 0.1):
        check_number("nsr_lambda", nsr_lambda, least=0)
        self.nsr_lambda = nsr_lambda

    @classmethod
    def from_options(cls, options) -> "NegativeSamples":
        return cls(nsr_lambda=options.nsr_lambda)

    def advantages(self, n: int, c: int) -> tuple[float, float]:
        return self.nsr_lambda, -1.0

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "nsr_lambda": self.nsr_lambda}
