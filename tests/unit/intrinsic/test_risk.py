"""Risk-seeking training: vectors, limits of beta, refused settings."""

import math

import pytest
import torch

from common.errors import UserError
from intrinsic.flags.objective import RiskFlags
from intrinsic.risk import Risk, risk_advantages
from tests.unit.intrinsic.objective_cases import GROUP, paid


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        (GROUP, [0.587939] * 3 + [-0.352763] * 5),
        ([1] + [0] * 7, [1.554077] + [-0.222011] * 7),
        ([0] * 8, [0] * 8),
        ([1] * 8, [0] * 8),
    ],
)
def test_vectors(correct, expected, rollout_factory):
    advantages = paid(Risk(2.0), rollout_factory([str(row) for row in range(8)], correct))
    torch.testing.assert_close(advantages, torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


def test_it_is_the_formula_of_the_paper_and_sums_to_zero():
    for beta in (0.5, 2.0, 8.0):
        for c in range(1, 8):
            powers = [math.exp(beta)] * c + [1.0] * (8 - c)
            expected = [(power / (sum(powers) / 8) - 1) / beta for power in (powers[0], powers[-1])]
            right, wrong = risk_advantages(8, c, beta)
            assert (right, wrong) == pytest.approx(expected, rel=1e-12)
            assert c * right + (8 - c) * wrong == pytest.approx(0, abs=1e-12)


def test_small_beta_is_the_mean_and_large_beta_the_first_right_answer():
    assert risk_advantages(8, 3, 1e-6) == pytest.approx((5 / 8, -3 / 8), abs=1e-5)
    beta = 1e5  # exp(beta) is infinite
    assert risk_advantages(8, 3, beta) == pytest.approx(((8 / 3 - 1) / beta, -1 / beta))


@pytest.mark.parametrize("beta", [0.0, -2.0, math.nan, math.inf])
def test_a_beta_out_of_range_is_refused(beta):
    with pytest.raises(UserError, match=f"--risk_beta={beta} must be a finite number, above 0"):
        Risk(beta)


def test_flag_arrives_and_is_part_of_the_identity():
    assert Risk.from_options(RiskFlags(risk_beta=4.0)).identity() == {"name": "risk", "risk_beta": 4.0}
    assert Risk.from_options(RiskFlags()).identity() == Risk().identity()
