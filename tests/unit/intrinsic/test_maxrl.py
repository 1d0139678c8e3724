"""Maximum-likelihood training: vectors, expected gradient of both estimators, and refused orders."""

from functools import partial

import pytest
import torch

from common.errors import UserError
from intrinsic.flags.objective import MaxRLFlags
from intrinsic.maxrl import MaxRL, maxrl_advantages, series_advantages
from tests.unit.intrinsic.objective_cases import GROUP, gradient_weight, paid


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        ([1, 0, 0, 0], [3, -1, -1, -1]),
        (GROUP, [1.666667] * 3 + [-1] * 5),
        ([1] * 7 + [0], [0.142857] * 7 + [-1]),
        ([0] * 8, [0] * 8),
        ([1] * 8, [0] * 8),
        ([1, 0, 0, 0, 0, 0, 0, 0], [7] + [-1] * 7),  # beyond --ir_clip, which does not cut it
    ],
)
def test_vectors_of_the_mean_form(correct, expected, rollout_factory):
    advantages = paid(MaxRL(), rollout_factory([str(row) for row in range(len(correct))], correct))
    torch.testing.assert_close(advantages, torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("order", "failure"), [(1, 0.0), (2, -0.0714286), (8, -0.125)])
def test_vectors_of_the_series(order, failure):
    right, wrong = series_advantages(8, 3, order)
    assert right == 1.0 and wrong / 8 == pytest.approx(failure, abs=1e-7)


@pytest.mark.parametrize(("n", "p", "weight"), [(8, 0.05, 6.731591), (64, 0.01, 47.440351)])
def test_the_series_to_the_order_of_the_group_has_the_weight_of_truncated_likelihood(n, p, weight):
    assert gradient_weight(partial(series_advantages, order=n), n, p) == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_expected_gradients_are_those_of_the_series_to_their_order(p):
    for order in range(1, 9):
        weight = gradient_weight(partial(series_advantages, order=order), 8, p)
        assert weight == pytest.approx((1 - (1 - p) ** order) / p, rel=1e-9), order
    assert gradient_weight(maxrl_advantages, 8, p) == pytest.approx((1 - (1 - p) ** 7) / p, rel=1e-9)


def test_all_wrong_groups_train_under_the_series_alone():
    assert series_advantages(8, 0, 8)[1] == pytest.approx(-7) and series_advantages(8, 0, 1)[1] == 0
    assert maxrl_advantages(8, 0) == (0.0, 0.0)


@pytest.mark.parametrize("order", [-1, -8])
def test_a_negative_order_is_refused(order):
    with pytest.raises(UserError, match=f"--maxrl_order={order} must be 0"):
        MaxRL(order)


def test_an_order_above_the_group_is_refused():
    MaxRL(4).check(num_generations=4, max_completion_length=64)
    with pytest.raises(UserError, match="--maxrl_order=5 is above the group size --num_generations=4"):
        MaxRL(5).check(num_generations=4, max_completion_length=64)


def test_flag_arrives_and_is_part_of_the_identity():
    assert MaxRL.from_options(MaxRLFlags(maxrl_order=3)).identity() == {"name": "maxrl", "maxrl_order": 3}
    assert MaxRL.from_options(MaxRLFlags()).identity() == MaxRL().identity()
