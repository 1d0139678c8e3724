"""Influence between queries: against finite differences, exact zeros, sketches, statistics and refused input."""

import json
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from analysis import influence
from analysis.influence import InfluenceOptions, Subset, analyse, draw_rows, halves, measure, summarise
from analysis.influence_gradients import (
    CompletionGradient,
    CountSketch,
    contrast,
    inner_products,
    last_layers_pattern,
    outline,
    select_names,
)
from analysis.influence_statistics import (
    accuracy_factor,
    accuracy_statistics,
    cosines,
    influence_statistics,
    influences,
    jackknife,
    off_diagonal_mean,
)
from training.errors import UserError

VOCABULARY = 8
RIGHT = {0: [1, 2, 6], 1: [2, 3, 6]}  # query -> tokens that answer it
TEMPERATURE = 0.7


@pytest.fixture
def policy():
    """A float64 model of two layers and a small vocabulary, whose one-token completions can all be listed."""
    set_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).double().eval()


def all_completions(query):
    """Every one-token completion of a query of three tokens."""
    prompt = [5, 4, query]
    return {
        "prompt_ids": torch.tensor([prompt] * VOCABULARY),
        "prompt_mask": torch.ones(VOCABULARY, 3, dtype=torch.bool),
        "completion_ids": torch.arange(VOCABULARY)[:, None],
        "completion_mask": torch.ones(VOCABULARY, 1, dtype=torch.bool),
    }


def probabilities(policy, query):
    tokens = all_completions(query)
    with torch.no_grad():
        logits = policy(input_ids=tokens["prompt_ids"][:1]).logits[0, -1]
    return (logits / TEMPERATURE).softmax(-1)


def expected_reward(policy, query):
    return float(probabilities(policy, query)[RIGHT[query]].sum())


def exact_contrast(policy, query):
    """Coefficients whose weighted sum is E[. | right] - E[. | wrong] under the policy, not over samples of it."""
    chances = probabilities(policy, query)
    right = torch.isin(torch.arange(VOCABULARY), torch.tensor(RIGHT[query]))
    return torch.where(right, chances / chances[right].sum(), -chances / chances[~right].sum())


def nudge(parameters, direction, size):
    """Add ``size`` times the flat ``direction`` to ``parameters``."""
    start = 0
    with torch.no_grad():
        for parameter in parameters:
            part = direction[start : start + parameter.numel()]
            parameter += size * part.view_as(parameter)
            start += parameter.numel()


@pytest.mark.parametrize("learner, other", [(0, 1), (1, 0), (0, 0)])
def test_a_step_on_one_query_changes_the_reward_of_another_as_predicted(policy, learner, other):
    names = select_names(dict(policy.named_parameters()), r"o_proj|down_proj|lm_head")
    gradient = CompletionGradient(policy, names, TEMPERATURE)
    accuracy = np.array([expected_reward(policy, query) for query in (learner, other)])
    directions = [gradient(all_completions(query), exact_contrast(policy, query)) for query in (learner, other)]
    slope = influences(inner_products(torch.stack(directions)).numpy(), accuracy)[0, 1]
    factors = accuracy_factor(accuracy)
    errors = []
    for rate in (2e-3, 1e-3):
        # GRPO's update on the learner: its group advantages are +-sqrt(odds), which leaves w_q D_q.
        nudge(gradient.parameters, directions[0], rate * factors[0])
        change = expected_reward(policy, other) - accuracy[1]
        nudge(gradient.parameters, directions[0], -rate * factors[0])
        predicted = rate * slope * factors[1]  # the reward in units of its standard deviation changes by rate * slope
        errors.append(abs(change - predicted))
        assert change == pytest.approx(predicted, rel=0.05) and abs(change) > 1e-5
    assert errors[0] / errors[1] > 3.4  # what is left is of second order in the rate, or higher


def test_group_advantages_average_to_the_factor_times_the_contrast():
    correct = torch.tensor([True, False, False, True, False, False, False])
    rewards = correct.double()
    advantages = (rewards - rewards.mean()) / rewards.std(unbiased=False)
    factor = accuracy_factor(correct.double().mean().item())
    torch.testing.assert_close(advantages / 7, factor * contrast(correct).double(), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("verdict", [True, False])
def test_all_right_and_all_wrong_give_exactly_zero(policy, verdict):
    names = select_names(dict(policy.named_parameters()), "o_proj")
    batches = [all_completions(0), all_completions(1), all_completions(2)]
    correct = [[verdict] * VOCABULARY, *([token in RIGHT[query] for token in range(VOCABULARY)] for query in (0, 1))]
    rows, _ = measure(CompletionGradient(policy, names), batches, correct)
    assert not rows[0].any() and rows[1].any()
    report = summarise(np.array(correct), inner_products(rows).numpy())
    matrix = np.array(report["queries"]["influence"])
    assert (matrix[0] == 0).all() and (matrix[:, 0] == 0).all() and matrix[1, 2] != 0
    assert report["queries"]["cosine"][0] == [None] * 3
    metrics = report["metrics"]
    assert metrics["cosine"]["n"] == 2 and metrics["influence"]["n"] == 3
    assert metrics["influence"]["mean"] == pytest.approx(matrix[1, 2] / 3)


@pytest.mark.parametrize("length_normalized", [True, False])
def test_one_backward_in_parts_and_with_padding_equals_one_gradient_per_completion(policy, length_normalized):
    names = select_names(dict(policy.named_parameters()), r"layers\.1\.")
    completions, prompt, coefficients = [[1, 2, 7], [3], [6, 6]], [5, 4], torch.tensor([1.0, -0.5, -0.5])
    mask = torch.tensor([[index < len(row) for index in range(3)] for row in completions])
    tokens = {
        "prompt_ids": torch.tensor([prompt] * 3),
        "prompt_mask": torch.ones(3, 2, dtype=torch.bool),
        "completion_ids": torch.tensor([row + [0] * (3 - len(row)) for row in completions]),
        "completion_mask": mask,
    }
    expected = 0.0
    parameters = [dict(policy.named_parameters())[name] for name in names]
    for row, coefficient in zip(completions, coefficients, strict=True):
        logps = (policy(input_ids=torch.tensor([prompt + row])).logits[0] / TEMPERATURE).log_softmax(-1)
        picked = torch.stack([logps[len(prompt) - 1 + index, token] for index, token in enumerate(row)])
        value = picked.mean() if length_normalized else picked.sum()
        grads = torch.autograd.grad(value, parameters)
        expected = expected + coefficient * torch.cat([grad.flatten() for grad in grads])
    for batch_size in (16, 2):
        gradient = CompletionGradient(policy, names, TEMPERATURE, batch_size, length_normalized)
        torch.testing.assert_close(gradient(tokens, coefficients), expected.float(), atol=1e-5, rtol=1e-4)


def test_only_the_named_parameters_are_differentiated(policy):
    names = select_names(dict(policy.named_parameters()), r"layers\.1\.mlp\.down_proj")
    gradient = CompletionGradient(policy, names)
    assert gradient.size == 16 * 32 and not policy.training
    assert [name for name, parameter in policy.named_parameters() if parameter.requires_grad] == names


# ---- sketch


def test_sketch_keeps_inner_products_on_average():
    generator = torch.Generator().manual_seed(0)
    first, second = 0.5 + torch.randn(2, 300, generator=generator)
    dims, exact = 32, float(first @ second)
    found = np.array([float(s(first) @ s(second)) for s in (CountSketch(300, dims, seed) for seed in range(400))])
    variance = (first @ first) * (second @ second) + exact**2 - 2 * (first**2 * second**2).sum()
    spread = math.sqrt(float(variance) / dims)
    assert found.mean() == pytest.approx(exact, abs=3 * spread / math.sqrt(len(found)))
    assert found.std() == pytest.approx(spread, rel=0.15)


def test_sketch_is_linear_and_fixed_by_its_seed():
    first, second = torch.randn(2, 100, generator=torch.Generator().manual_seed(1))
    sketch = CountSketch(100, 16, seed=5)
    state = torch.random.get_rng_state()
    again, other = CountSketch(100, 16, seed=5), CountSketch(100, 16, seed=6)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(sketch(first), again(first)) and not torch.equal(sketch(first), other(first))
    torch.testing.assert_close(sketch(first - 2 * second), sketch(first) - 2 * sketch(second), atol=1e-5, rtol=1e-5)


def test_sketched_rows_have_the_width_of_the_sketch(policy):
    gradient = CompletionGradient(policy, select_names(dict(policy.named_parameters()), "lm_head"))
    correct = [[token in RIGHT[query] for token in range(VOCABULARY)] for query in (0, 1)]
    batches = [all_completions(query) for query in (0, 1)]
    sketch = CountSketch(gradient.size, 12, seed=0)
    exact, _ = measure(gradient, batches, correct)
    rows, _ = measure(gradient, batches, correct, sketch)
    assert rows.shape == (2, 12) and exact.shape == (2, 16 * VOCABULARY)
    torch.testing.assert_close(rows, torch.stack([sketch(row) for row in exact]))


def test_inner_products_in_parts_are_whole(monkeypatch):
    monkeypatch.setattr("analysis.influence_gradients.CHUNK", 7)
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(inner_products(rows), rows.double() @ rows.double().T)


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


def test_rows_are_the_same_for_every_policy_and_all_different():
    rows = Dataset.from_dict({"number": list(range(50))})
    picked = draw_rows(rows, 20, seed=1)["number"]
    assert len(set(picked)) == 20 and picked == draw_rows(rows, 20, seed=1)["number"]
    assert picked != draw_rows(rows, 20, seed=2)["number"]
    with pytest.raises(UserError, match="--queries=51"):
        draw_rows(rows, 51, seed=1)


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


def test_a_checkpoint_becomes_a_report_and_a_figure(tmp_path):
    options = InfluenceOptions(
        output=str(tmp_path), queries=6, samples=4, max_new_tokens=96, split_halves=True, sketch=256
    )
    report = analyse(options)
    saved = json.loads((tmp_path / "influence.json").read_text())
    assert saved == json.loads(json.dumps(report)) and (tmp_path / "influence.png").stat().st_size > 10_000
    assert len(saved["records"]) == 24 and len(saved["queries"]["influence"]) == 6
    right = [sum(record["medium"] for record in saved["records"] if record["id"] == index) for index in range(6)]
    assert np.bincount(right, minlength=5).tolist() == saved["metrics"]["histogram"]
    assert analyse(options)["queries"] == report["queries"]
