"""MERCI's way from variances to advantages against the vectors M4, M5 (length), M6 and M7 of its specification."""

import math

import torch

from intrinsic.parts import fusion
from intrinsic.parts.fusion import clipped_advantage, positive_zscore, trajectory_uncertainty


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=atol, rtol=0)


def zscore(values):
    values = torch.tensor([values])
    return positive_zscore(values, values.isfinite())[0]


def test_m4_variances_are_summed_before_the_one_root():
    variance, every = torch.tensor([[1.0, 0.25, 0.0625, 0.0625]]), torch.ones(1, 4, dtype=torch.bool)
    close(trajectory_uncertainty(variance, every) * 2.0, [1.172604])
    close(trajectory_uncertainty(variance, every), [0.586302])
    ones = trajectory_uncertainty(torch.ones(1, 4), every)
    close(ones * 4**0.5, [2.0])
    close(ones, [1.0])


def test_m5_length_of_the_mean_and_an_empty_selection():
    variance = torch.tensor([[0.1, 0.9, 0.8, 0.7, 0.2, 0.95, 0.1, 0.3]])
    mask = torch.ones(1, 8, dtype=torch.bool)
    kept, run = torch.zeros(1, 8, dtype=torch.bool), torch.zeros(1, 8, dtype=torch.bool)
    kept[0, [1, 2, 3, 5]], run[0, 1:4] = True, True
    close(trajectory_uncertainty(variance, kept), [0.915150])
    close(trajectory_uncertainty(variance, run), [0.894427])
    close(trajectory_uncertainty(variance, run, mask), [0.547723])
    close(trajectory_uncertainty(variance, torch.zeros_like(mask)), [0.0])


def test_m6_only_what_is_above_the_group_mean_is_paid(monkeypatch):
    close(zscore([0.5, 0.7, 0.9, 0.7]), [0.0, 0.0, 0.2 / (0.163299 + 1e-4), 0.0], atol=1e-5)
    close(zscore([0.3] * 4), [0.0] * 4)
    close(zscore([0.3, 0.3 + 3e-8, 0.3, 0.3]), [0.0] * 4)
    close(zscore([0.8]), [0.0])
    monkeypatch.setattr(fusion, "STD_EPS", 0.0)  # as in the vector
    close(zscore([0.5, 0.7, 0.9, 0.7]), [0.0, 0.0, 1.224745, 0.0])


def test_broken_values_stay_out_of_the_group_statistics(monkeypatch):
    monkeypatch.setattr(fusion, "STD_EPS", 0.0)
    close(zscore([0.5, 0.7, math.nan, 0.9, 0.7]), [0.0, 0.0, 0.0, 1.224745, 0.0])


def test_m7_fusion_is_clipped_and_keeps_the_sign():
    pairs = [(1, 1.224745), (1, 0.2), (0.3, 1.224745), (-1, 0.2), (-1, 1.224745), (0, 1.224745), (1, 0), (-1, 0)]
    advantages, bonus = torch.tensor(pairs).T
    close(clipped_advantage(advantages, 0.5 * bonus, 0.2), [1.2, 1.1, 0.36, -0.9, -0.8, 0.0, 1.0, -1.0])


def test_a_negative_weight_is_bounded_below_as_a_positive_one_is_above():
    advantages, bonus = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0]), torch.tensor([0.1, 0.9, 0.1, 0.9, 0.9])
    close(clipped_advantage(advantages, -bonus, 0.2), [0.9, 0.8, -1.1, -1.2, 0.0])
    random = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    paper = torch.minimum(random[0] + random[1].abs(), random[0] + 0.2 * random[0].abs())
    assert torch.equal(clipped_advantage(random[0], random[1].abs(), 0.2), paper)
