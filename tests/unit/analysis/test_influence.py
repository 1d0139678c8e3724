"""Influence between queries: halves, statistics, rows, refused input, and the whole command."""

import json
import math

import numpy as np
import pytest
import torch

from analysis.influence import measure as influence
from analysis.influence.gradients import contrast, inner_products, last_layers_pattern, outline, select_names
from analysis.influence.measure import InfluenceOptions, Subset, analyse, halves
from analysis.influence.statistics import (
    accuracy_statistics,
    cosines,
    influence_statistics,
    jackknife,
    off_diagonal_mean,
)
from common.errors import UserError

# ---- halves


def test_halves_are_disjoint_and_each_has_both_verdicts():
    correct = [True, False, True, False, False, True]
    first, second = halves(correct)
    assert sorted(first + second) == list(range(6))
    assert all({correct[index] for index in part} == {True, False} for part in (first, second))
    assert halves([True, False, False]) is None and halves([True] * 4) is None


def test_split_halves_estimate_the_self_term_without_the_noise_of_sampling():
    """D_q of four noisy samples: its square holds their noise, the product of two halves does not."""
    generator = torch.Generator().manual_seed(0)
    mean, correct = torch.tensor([0.5, 0.0, 0.0]), [True, True, False, False]

    def noisy(tokens, coefficients):
        right = (coefficients > 0).float()
        samples = tokens["noise"] + right[:, None] * mean
        return coefficients @ samples

    products, terms = [], []
    for _ in range(2000):
        tokens = {"noise": torch.randn(4, 3, generator=generator)}
        whole = noisy(tokens, contrast(correct))
        products.append(float(whole @ whole))
        terms.append(influence.self_term(noisy, tokens, correct))
    assert np.mean(products) == pytest.approx(0.25 + 3.0, rel=0.1)  # variance 1/2 + 1/2 in three dimensions
    assert np.mean(terms) == pytest.approx(0.25, abs=4 * np.std(terms) / math.sqrt(2000))
    assert math.isnan(influence.self_term(noisy, tokens, [True, False, False, False]))


# ---- statistics


def test_accuracy_statistics_of_known_verdicts():
    correct = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
    found = accuracy_statistics(correct)
    assert found["histogram"] == [1, 1, 1, 0, 1]
    expected = (0.0 + 0.0 + math.sqrt(3) / 4 + 0.5) / 4
    assert found["accuracy_factor"]["mean"] == pytest.approx(expected)
    assert 0 <= found["accuracy_factor"]["low"] < expected < found["accuracy_factor"]["high"] <= 0.5
    assert found["accuracy_variance"] == pytest.approx((0.1875 + 0.25) / 4 * 4 / 3)
    assert found["learnable"]["mean"] == 0.5


def test_interval_of_the_factor_stays_within_its_range():
    for verdicts in ([[True, False]] * 6, [[True, True]] * 6):
        found = accuracy_statistics(np.array(verdicts))["accuracy_factor"]
        assert 0 <= found["low"] <= found["mean"] <= found["high"] <= 0.5 and found["low"] < found["high"]


def test_mean_over_pairs_leaves_the_diagonal_out():
    matrix = np.array([[9.0, 1.0, 2.0], [1.0, 9.0, 3.0], [2.0, 3.0, 9.0]])
    assert off_diagonal_mean(matrix) == pytest.approx(2.0)


def test_cosine_ignores_the_scale_of_a_gradient_and_is_undefined_for_none():
    rows = torch.tensor([[1.0, 0.0], [3.0, 3.0], [0.0, 0.0]])
    found = cosines(inner_products(rows).numpy())
    assert found[0, 1] == pytest.approx(math.sqrt(0.5)) and found[0, 0] == pytest.approx(1.0)
    assert np.isnan(found[2]).all() and np.isnan(found[:, 2]).all()


def test_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(0).normal(size=12)
    found = jackknife(lambda kept: values[kept].mean(), 12)
    half = 2.2009851600916384 * values.std(ddof=1) / math.sqrt(12)  # t of 11 degrees of freedom at 0.975
    assert found["high"] - found["mean"] == pytest.approx(half) and found["mean"] - found["low"] == pytest.approx(half)


def test_interval_over_pairs_covers_the_truth():
    """95 % of intervals of mean inner products of random vectors hold the true value; a naive one would not."""
    generator = np.random.default_rng(0)
    mean = np.full(4, 0.5)
    held = 0
    for _ in range(200):
        rows = mean + generator.normal(size=(16, 4))
        found = jackknife(lambda kept, rows=rows: off_diagonal_mean(rows[kept] @ rows[kept].T), 16)
        held += found["low"] <= mean @ mean <= found["high"]
    assert 0.9 <= held / 200 <= 0.99


def test_fewer_than_two_learnable_queries_have_no_cosine():
    found = influence_statistics(np.diag([2.0, 0.0]), [0.5, 1.0])
    assert found["cosine"] == {"mean": None, "low": None, "high": None, "n": 1}
    assert found["influence"]["mean"] == 0.0 and found["self_influence"] == pytest.approx(0.25)


def test_relative_influence_divides_by_the_noise_free_self_terms():
    products = np.full((5, 5), 2.0) + np.diag([10.0] * 5)  # the diagonal holds noise beside a true 4
    accuracy, terms = [0.5] * 5, [4.0, 3.9, 4.1, 4.0, np.nan]
    found = influence_statistics(products, accuracy, terms)
    assert found["self_influence_split"]["mean"] == pytest.approx(1.0) and found["self_influence"] == pytest.approx(3.0)
    found = found["relative_influence"]
    assert found["n"] == 4 and found["mean"] == pytest.approx(0.5) and found["low"] < 0.5 < found["high"]
    hidden = influence_statistics(products, accuracy, [4.0, -4.0, 4.0, -4.0, np.nan])["relative_influence"]
    assert hidden["mean"] is None


# ---- names of parameters


def test_default_parameters_are_outputs_of_the_last_two_layers():
    num_layers, sizes = outline("tiny")
    names = select_names(sizes, last_layers_pattern(num_layers))
    assert names == [
        f"model.layers.{layer}.{part}.weight" for layer in (2, 3) for part in ("self_attn.o_proj", "mlp.down_proj")
    ]
    assert "lm_head.weight" not in sizes  # tied to the embedding
    assert not last_layers_pattern(12).endswith("(1|11)") and "(10|11)" in last_layers_pattern(12)


@pytest.mark.parametrize(
    "flags, reason",
    [
        ({"queries": 1}, "--queries=1"),
        ({"samples": 1}, "--samples=1"),
        ({"temperature": 0.0}, "--temperature=0.0"),
        ({"parameters": "("}, "no regular expression"),
        ({"tier": "mild"}, "mild"),
        ({"dtype": "int8"}, "int8"),
        ({"sketch": -1}, "--sketch=-1"),
        ({"seed": -1}, "--seed=-1"),
    ],
)
def test_bad_flags_are_refused_with_their_value(flags, reason):
    with pytest.raises(UserError, match=reason):
        InfluenceOptions(output="out", **flags)


def test_bad_subsets_are_refused_before_the_weights_are_read(monkeypatch):
    def load_policy(*args):
        raise AssertionError("weights were read")

    monkeypatch.setattr(influence, "load_policy", load_policy)
    with pytest.raises(UserError, match=r"--parameters='lora_B' matches none of the 38"):
        analyse(InfluenceOptions(output="out", parameters="lora_B"))
    with pytest.raises(UserError, match=r"--sketch"):
        Subset.of(InfluenceOptions(output="out", parameters=".", queries=5000))
    assert Subset.of(InfluenceOptions(output="out", parameters=".", queries=5000, sketch=64)).size > 1_000_000


# ---- the command


def test_a_checkpoint_becomes_a_report_and_a_figure(tmp_path, capsys):
    options = InfluenceOptions(
        output=str(tmp_path), queries=6, samples=4, max_new_tokens=96, split_halves=True, sketch=256
    )
    report = analyse(options)
    assert capsys.readouterr().out.startswith("device: cpu") and report["setup"]["precision"] == "float32"
    saved = json.loads((tmp_path / "influence.json").read_text())
    assert saved == json.loads(json.dumps(report)) and (tmp_path / "influence.png").stat().st_size > 10_000
    assert len(saved["records"]) == 24 and len(saved["queries"]["influence"]) == 6
    right = [sum(record["medium"] for record in saved["records"] if record["id"] == index) for index in range(6)]
    assert np.bincount(right, minlength=5).tolist() == saved["metrics"]["histogram"]
    assert analyse(options)["queries"] == report["queries"]
