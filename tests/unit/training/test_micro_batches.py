"""Micro-batches of an update hold whole groups, and the same rows as before."""

from types import SimpleNamespace

import pytest
import torch

from policy.buckets import MIN_TOKENS
from policy.load import load_policy
from tests.unit.policy.test_buckets import keep_rows
from training.micro_batches import update_window, with_whole_groups


def settings(**changed):
    usual = {"loss_type": "grpo", "top_entropy_quantile": 1.0, "gradient_accumulation_steps": 4}
    return SimpleNamespace(**usual | {"steps_per_generation": 4} | changed)


@pytest.mark.parametrize(
    ("changed", "window"),
    [
        ({}, 4),
        ({"gradient_accumulation_steps": 8}, 4),
        ({"gradient_accumulation_steps": 2}, 2),
        ({"gradient_accumulation_steps": 1}, 1),
        ({"gradient_accumulation_steps": 3}, 1),  # an update takes a part of two windows
        ({"loss_type": "bnpo"}, 1),
        ({"top_entropy_quantile": 0.2}, 1),
    ],
)
def test_rows_move_among_the_micro_batches_that_one_update_sums(changed, window):
    assert update_window(settings(**changed)) == window


def test_rows_keep_their_values_and_come_by_prompt():
    prompts = torch.tensor([[0, 7], [5, 6], [5, 6], [0, 7], [0, 7], [5, 6], [5, 6], [0, 7]])
    names = list("abcdefgh")
    batches = [
        {
            "prompt_ids": prompts[rows],
            "prompt_mask": (prompts[rows] > 0).long(),
            "advantages": torch.arange(8.0)[rows],
            "names": [names[row] for row in rows],
            "num_items_in_batch": torch.tensor(40),
            "images": None,
        }
        for rows in ([0, 1], [2, 3], [4, 5], [6, 7])
    ]
    found = with_whole_groups(batches, 2)
    assert [len(batch["prompt_ids"].unique(dim=0)) for batch in found] == [1, 1, 1, 1]
    assert sorted(found[0]["names"] + found[1]["names"]) == list("abcd")  # of the first update
    for batch in found:
        for row, name in enumerate(batch["names"]):
            place = names.index(name)
            assert batch["advantages"][row] == place and torch.equal(batch["prompt_ids"][row], prompts[place])
        assert batch["num_items_in_batch"] == 40 and batch["images"] is None
    assert with_whole_groups(batches, 1) is batches


def test_accumulated_updates_are_those_of_rows(trainer_factory, monkeypatch):
    """Eight completions of two prompts in micro-batches of two, which TRL shuffles across the groups."""
    monkeypatch.setitem(MIN_TOKENS, "cpu", 64)

    def trained(way):
        policy = load_policy("tiny")
        if way == "rows":
            keep_rows(monkeypatch)
        layout = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "beta": 0.1}
        trainer = trainer_factory(policy=policy, learning_rate=1e-2, optim="sgd", max_steps=2, **layout)
        trainer.train()
        return policy, trainer

    (shared, trainer), (rows, _) = trained("shared"), trained("rows")
    assert all(len(batch["prompt_ids"].unique(dim=0)) == 1 for batch in trainer._buffered_inputs)
    for name, value in rows.named_parameters():
        torch.testing.assert_close(shared.get_parameter(name), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("term", [{"entropy_coef": 0.5}, {"use_adaptive_entropy": True, "entropy_target": 20.0}])
def test_an_entropy_term_is_that_of_the_update_whatever_its_micro_batches(term, trainer_factory):
    """Micro-batches of 2 and 14 tokens: a mean of their means would count the tokens of the first seven times."""
    trainer = trainer_factory(**term)
    trainer._last_world_entropy = 1.0  # the adaptive coefficient acts once an entropy below the target is known
    trainer.model.train()
    whole = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4)
    length = whole["completion_ids"].size(1)
    whole["completion_mask"] = (torch.arange(length) < torch.tensor([[1], [1], [7], [7]])).long()
    whole["num_items_in_batch"] = whole["completion_mask"].sum()
    whole["advantages"] = torch.tensor([1.0, -1.0, 0.5, -0.5])

    def gradient(batches):
        trainer.model.zero_grad()
        trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = len(batches)
        for batch in batches:
            trainer.entropy_coef = 0.5
            trainer.compute_loss(trainer.model, batch).backward()
        return torch.cat([part.grad.flatten() for part in trainer.model.parameters()])

    parts = [
        {name: value[rows] if value.dim() else value for name, value in whole.items()}
        for rows in (slice(0, 2), slice(2, 4))
    ]
    expected = gradient([whole])
    torch.testing.assert_close(gradient(parts), expected, rtol=1e-4, atol=1e-6)
