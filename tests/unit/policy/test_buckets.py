"""Log-probabilities by length, and of one row for all prompts: the values and the update of one padded batch."""

import pytest
import torch
from trl import GRPOTrainer

from policy import buckets, shared_prompts
from policy.buckets import buckets_of, by_length, completion_lengths, idle_rows, length_buckets
from policy.load import load_policy
from tests.toys import shallow


def keep_rows(monkeypatch):
    """Trainers made from now on pass a row for each completion."""
    monkeypatch.setattr("training.trainer.reason_for_rows", lambda *settings: "a test of rows")


def test_buckets_hold_every_row_once_by_length_and_enough_tokens():
    lengths = [9, 1, 5, 5, 30, 2, 8, 1]
    found = length_buckets(lengths, others=4, min_tokens=20)
    assert sorted(row for rows in found for row in rows) == list(range(8))
    flat = [lengths[row] for rows in found for row in rows]
    assert flat == sorted(lengths)
    assert all(len(rows) * (4 + max(lengths[row] for row in rows)) >= 20 for rows in found) and len(found) > 2


def test_rows_too_few_for_a_bucket_join_the_one_before():
    assert length_buckets([6, 1, 2, 9, 7], others=4, min_tokens=20) == [[1, 2, 0], [4, 3]]
    assert length_buckets([6, 1, 2, 9], others=4, min_tokens=20) == [[1, 2, 0, 3]]


def test_devices_without_a_size_of_their_own_get_the_large_buckets(monkeypatch):
    mask = torch.ones(4, 1024)
    assert len(buckets_of(mask, 0)) == 4
    monkeypatch.delitem(buckets.MIN_TOKENS, "cpu")
    assert len(buckets_of(mask, 0)) == 1


def test_where_all_rows_are_idle_the_shortest_is_not():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    assert idle_rows(torch.zeros(3), mask).tolist() == [True, False, True]
    assert idle_rows(torch.tensor([0.0, 0.0, 1.0]), mask).tolist() == [True, True, False]


def test_too_few_tokens_make_one_bucket():
    assert length_buckets([3, 1], others=2, min_tokens=1000) == [[1, 0]]
    assert length_buckets([500, 1], others=600, min_tokens=1000) == [[1, 0]]


def test_length_is_up_to_the_last_token_even_behind_a_hole():
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    assert completion_lengths(mask) == [2, 3, 1, 4]


def test_results_come_back_in_order_and_zero_behind_the_bucket(monkeypatch):
    monkeypatch.setitem(buckets.MIN_TOKENS, "cpu", 4)
    ids = torch.tensor([[7, 1, 2, 3], [7, 4, 0, 0], [7, 5, 6, 0]])
    mask = (ids > 0).long()
    seen = []

    def compute(ids, mask, length):
        seen.append(ids.size(1))
        return ids[:, -length:].float(), 10.0 * ids[:, -length:]

    logps, entropies = by_length(compute, ids, mask, 3)
    assert logps.tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0]] and torch.equal(entropies, 10 * logps)
    assert seen == [3, 4]


SHARED = [("grpo", 0.0), ("grpo", 0.1), ("dapo", 0.1), ("bnpo", 0.1), ("dr_grpo", 0.1)]
ROWS = [("grpo", 0.1), ("dapo", 0.0), ("bnpo", 0.0)]


@pytest.mark.parametrize(
    ("loss_type", "beta", "way"), [*((*case, "shared") for case in SHARED), *((*case, "rows") for case in ROWS)]
)
def test_update_equals_that_of_one_padded_batch(loss_type, beta, way, trainer_factory, monkeypatch):
    def trained(min_tokens, way):
        if way == "rows":
            keep_rows(monkeypatch)
        else:
            monkeypatch.undo()
        monkeypatch.setitem(buckets.MIN_TOKENS, "cpu", min_tokens)
        policy = shallow(load_policy("tiny"))
        settings = {"loss_type": loss_type, "beta": beta, "max_completion_length": 40, "optim": "sgd"}
        trainer = trainer_factory(policy=policy, learning_rate=1e-2, num_iterations=2, **settings)
        trainer.train()
        return policy, trainer.state.log_history

    (one, log_one), (many, log_many) = trained(10**9, "rows"), trained(64, way)
    for name, value in one.named_parameters():
        torch.testing.assert_close(many.get_parameter(name), value, rtol=1e-4, atol=1e-5)
    for before, after in zip(log_one[:-1], log_many[:-1], strict=True):
        for key in ("loss", "entropy", "kl", "clip_ratio/region_mean"):
            assert before.get(key, 0.0) == pytest.approx(after.get(key, 0.0), rel=1e-3, abs=1e-6)


def test_the_trainer_takes_several_buckets_where_lengths_differ(trainer_factory, random_policy, monkeypatch):
    keep_rows(monkeypatch)
    monkeypatch.setitem(buckets.MIN_TOKENS, "cpu", 64)
    widths, forward = set(), random_policy.forward
    trainer = trainer_factory(policy=random_policy, max_completion_length=96, max_steps=1)

    def watching(*args, **kwargs):
        if "labels" in kwargs:
            widths.add(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    forward = random_policy.forward
    monkeypatch.setattr(random_policy, "forward", watching)
    trainer.train()
    assert len(widths) > 1 and len({width for _, width in widths}) > 1


def gradients(trainer, inputs):
    trainer.model.zero_grad()
    with trainer.accelerator.autocast():
        trainer.compute_loss(trainer.model, inputs).backward()
    return {name: value.grad.clone() for name, value in trainer.model.named_parameters()}


@pytest.mark.parametrize("way", ["rows", "shared"])
@pytest.mark.parametrize("advantages", ["sequence", "token", "all zero"])
@pytest.mark.parametrize(
    "settings", [{"loss_type": "grpo"}, {"loss_type": "dapo", "bf16": True}, {"loss_type": "cispo"}]
)
def test_rows_of_advantage_zero_skip_the_backward_pass_and_gradients_stay(
    way, advantages, settings, trainer_factory, monkeypatch
):
    if way == "rows":
        keep_rows(monkeypatch)
    trainer = trainer_factory(policy=shallow(load_policy("tiny")), max_completion_length=16, **settings)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    inputs = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4 + [trainer.train_dataset[1]] * 4)
    values = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.5])
    length = inputs["completion_ids"].size(1)
    inputs["advantages"] = {"sequence": values, "token": values[:, None].expand(8, length), "all zero": 0 * values}[
        advantages
    ].contiguous()

    graphs, whole, shared = [], GRPOTrainer._get_per_token_logps_and_entropies, shared_prompts.score_shared

    def watching(self, model, ids, *args, **kwargs):
        graphs.extend([torch.is_grad_enabled()] * len(ids))
        return whole(self, model, ids, *args, **kwargs)

    def watching_shared(model, ids, *args, **kwargs):
        graphs.extend([torch.is_grad_enabled()] * len(ids))
        return shared(model, ids, *args, **kwargs)

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", watching)
    monkeypatch.setattr(shared_prompts, "score_shared", watching_shared)
    found = gradients(trainer, inputs)
    assert sum(graphs) == (1 if advantages == "all zero" else 3) and len(graphs) == 8
    monkeypatch.setattr(trainer, "_rows_without_gradient", lambda inputs: None)
    if "bf16" not in settings:  # in bfloat16 another layout rounds otherwise
        monkeypatch.setattr("training.trainer.shares_prompts", lambda model: False)
    expected = gradients(trainer, inputs)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5 if "bf16" not in settings else 2e-3)
    if advantages != "all zero":
        assert max(value.abs().max() for value in expected.values()) > 0.01


@pytest.mark.parametrize("settings", [{"beta": 0.1}, {"entropy_coef": 0.01}])
def test_every_row_keeps_its_graph_where_the_loss_has_terms_besides_the_advantage(settings, trainer_factory):
    trainer = trainer_factory(policy=load_policy("tiny"), **settings)
    trainer.model.train()
    assert trainer._rows_without_gradient({"advantages": torch.zeros(8), "completion_mask": torch.ones(8, 4)}) is None
