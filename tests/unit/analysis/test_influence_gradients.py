"""Gradients of influence: against finite differences and one completion at a time, exact zeros, and sketches."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from analysis.influence.gradients import CompletionGradient, CountSketch, contrast, inner_products, select_names
from analysis.influence.measure import draw_rows, measure, summarise
from analysis.influence.statistics import accuracy_factor, influences
from common.errors import UserError

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
    monkeypatch.setattr("analysis.influence.gradients.CHUNK", 7)
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(inner_products(rows), rows.double() @ rows.double().T)


# ---- names of parameters


def test_rows_are_the_same_for_every_policy_and_all_different():
    rows = Dataset.from_dict({"number": list(range(50))})
    picked = draw_rows(rows, 20, seed=1)["number"]
    assert len(set(picked)) == 20 and picked == draw_rows(rows, 20, seed=1)["number"]
    assert picked != draw_rows(rows, 20, seed=2)["number"]
    with pytest.raises(UserError, match="--queries=51"):
        draw_rows(rows, 51, seed=1)
