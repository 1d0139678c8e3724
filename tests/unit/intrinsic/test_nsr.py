"""Negative-sample reinforcement: vectors, groups of equal verdicts, refused settings."""

import math

import pytest
import torch

from common.errors import UserError
from intrinsic.flags.objective import NegativeSampleFlags
from intrinsic.nsr import NegativeSamples
from tests.unit.intrinsic.objective_cases import GROUP, gradient_weight, paid


@pytest.mark.parametrize(
    ("correct", "expected"),
    [(GROUP, [0.1] * 3 + [-1] * 5), ([1] * 8, [0.1] * 8), ([0] * 8, [-1] * 8)],
)
def test_vectors(correct, expected, rollout_factory):
    advantages = paid(NegativeSamples(), rollout_factory([str(row) for row in range(len(correct))], correct))
    torch.testing.assert_close(advantages, torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


@pytest.mark.parametrize("p", [0.05, 0.6])
def test_its_expected_gradient_is_that_of_accuracy_whatever_lambda(p):
    """No baseline: E[A grad log] is (lambda + 1) grad p; lambda and -1 differ in variance and in where mass goes."""
    for value in (0.0, 0.1, 1.0):
        assert gradient_weight(NegativeSamples(value).advantages, 8, p) == pytest.approx(1 + value)


def test_figures_of_the_batch(rollout_factory):
    rollout = rollout_factory([str(row) for row in range(8)], [1] * 4 + [1, 0, 0, 0], num_generations=4)
    assert NegativeSamples(0.0).update(rollout) == {"groups_with_signal": 0.5, "largest": 1.0}
    assert NegativeSamples(2.0).update(rollout) == {"groups_with_signal": 1.0, "largest": 2.0}


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_lambda_out_of_range_is_refused(value):
    with pytest.raises(UserError, match=f"--nsr_lambda={value} must be a finite number, at least 0"):
        NegativeSamples(value)


def test_flag_arrives_and_is_part_of_the_identity():
    given = NegativeSampleFlags(nsr_lambda=0.0)
    assert NegativeSamples.from_options(given).identity() == {"name": "nsr", "nsr_lambda": 0.0}
    assert NegativeSamples.from_options(NegativeSampleFlags()).identity() == NegativeSamples().identity()
