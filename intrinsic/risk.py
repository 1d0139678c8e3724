"""Risk-seeking training (RS-GRPO, arXiv 2509.24261): GRPO between the mean reward of a problem and its best one.

Plain GRPO climbs the mean of r; here the objective is log E[exp(beta r)] / beta, which is the mean at beta = 0 and the
maximum as beta grows, so that a first right answer to a hard problem counts more than one more to an easy one.

Differences from the authors' program: the verdict is taken, whatever the rewards; its released function stops at an
undefined name.
"""

import math
from typing import Any

from common.errors import check_number
from intrinsic.parts.count_objective import CountObjective


def risk_advantages(n: int, c: int, beta: float) -> tuple[float, float]:
    """(exp(beta r) / mean of exp(beta r) - 1) / beta of a right and of a wrong completion in a group of ``n`` with
    ``c`` right ones; 0 where all are alike. Finite for every beta above 0: both sides are divided by exp(beta).
    """
    if c in (0, n):
        return 0.0, 0.0
    wrong = math.exp(-beta)  # over exp(beta), as is the mean
    mean = (c + (n - c) * wrong) / n
    return (1.0 / mean - 1.0) / beta, (wrong / mean - 1.0) / beta


class Risk(CountObjective):
    """``--use_ir=risk``: the risk-seeking advantage of the verdict, in place of the group advantage.

    Args:
        beta: how much the best counts; near 0 the advantage is r - m.

    Raises `UserError` for a beta that is not a finite number above 0.
    """

    name = "risk"

    def __init__(self, beta: float = 2.0):
        check_number("risk_beta", beta, above=0)
        self.beta = beta

    @classmethod
    def from_options(cls, options) -> "Risk":
        return cls(beta=options.risk_beta)

    def advantages(self, n: int, c: int) -> tuple[float, float]:
        return risk_advantages(n, c, self.beta)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "risk_beta": self.beta}
