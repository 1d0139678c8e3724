"""Rollouts with given hidden states, for the tests of RepExp."""

import torch

from policy.features import mean_state
from tests.toys import make_rollout

PLAIN = {"beta": 1.0, "ridge": 1.0, "paid": "all"}

X, Y = [1.0, 0.0], [0.0, 1.0]


def make(states, correct=None, num_generations=None, feature="mean_hidden", **fields):
    """A rollout of one-token completions with these hidden states; None for a completion without tokens."""
    correct = correct or [1.0] * len(states)
    rollout = make_rollout(["x"] * len(states), correct, num_generations=num_generations, **fields)
    width = next(len(state) for state in states if state is not None)
    rollout.completion_mask = torch.tensor([[state is not None] for state in states])
    hidden = torch.tensor([[state or [0.0] * width] for state in states])
    rollout.features = {feature: mean_state(hidden, rollout.completion_mask)}
    return rollout


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=actual.dtype), atol=atol, rtol=0)


def random_rows(count, size, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
