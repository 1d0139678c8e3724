"""RepExp's memory of past batches: no drift, decay, what enters it, saved state, what the trainer hands over, log."""

import copy
import math

import pytest
import torch

from common.errors import RunError
from common.state import load_state, save_state
from intrinsic.base import WeightSchedule
from intrinsic.repexp import EllipticalMemory, RepExp
from tests.unit.intrinsic.repexp_cases import PLAIN, X, Y, close, make, random_rows


def test_c1_novelty_of_each_response_before_it_is_added():
    memory, seen = EllipticalMemory(2, ridge=1.0), []
    for row in torch.tensor([X, X, Y], dtype=torch.float64):
        seen.append(memory.novelty(row[None]).item())
        memory.learn(row[None])
    assert seen == pytest.approx([1.0, 0.5, 1.0])


# ---- the memory


def test_memory_of_nothing_is_the_group_alone():
    rollout = make([X, X, Y])
    assert torch.equal(RepExp(use_memory=True, **PLAIN).score(rollout), RepExp(**PLAIN).score(rollout))


def test_memory_pays_less_for_what_past_batches_held():
    bonus = RepExp(use_memory=True, **PLAIN)
    bonus.update(make([X, X, X]))
    close(bonus.score(make([X, X, Y])), [1 / 6, 1 / 6, 0.5])


def test_without_memory_past_batches_leave_no_trace():
    bonus = RepExp(**PLAIN)
    bonus.update(make([X, X, X]))
    close(bonus.score(make([X, X, Y])), [1 / 3, 1 / 3, 0.5])
    assert bonus.state_dict() == {}


def test_rank_one_updates_do_not_drift():
    """10,000 updates with a ridge of 1e-4, which leave an error of 2e-10 in float64 and of 5e-2 in float32 if the
    inverse is never taken anew."""
    memory, matrix = EllipticalMemory(16, ridge=1e-4), 1e-4 * torch.eye(16, dtype=torch.float64)
    for batch in range(625):
        rows = torch.nn.functional.normalize(random_rows(16, 16, seed=batch) ** 5)
        memory.learn(rows)
        matrix += rows.mT @ rows
    exact = matrix.inverse()
    assert ((memory.inverse - exact).abs().max() / exact.abs().max()).item() < 1e-12


def test_a_ridge_too_small_for_its_features_ends_the_run_with_a_sentence():
    memory = EllipticalMemory(4, ridge=1e-20, decay=0.9)
    with pytest.raises(RunError, match="--repexp_lambda=1e-20"):
        for _ in range(50):
            memory.learn(torch.full((1, 4), 1e8, dtype=torch.float64) + random_rows(1, 4))


def test_updates_between_two_inversions_are_of_rank_one(monkeypatch):
    def refuse(*_):
        raise AssertionError("the matrix was inverted")

    memory = EllipticalMemory(8, ridge=0.1)
    monkeypatch.setattr(torch.linalg, "cholesky", refuse)
    for batch in range(memory.REFRESH - 1):
        memory.learn(random_rows(4, 8, seed=batch))
    torch.testing.assert_close(memory.inverse, memory.matrix.inverse())
    with pytest.raises(AssertionError):
        memory.learn(random_rows(4, 8))


def test_decay_forgets_the_past_and_keeps_the_ridge():
    memory = EllipticalMemory(2, ridge=0.5, decay=0.5)
    memory.learn(torch.tensor([X], dtype=torch.float64))
    memory.learn(torch.tensor([Y], dtype=torch.float64))
    close(memory.matrix, [[1.0, 0.0], [0.0, 1.5]])
    close(memory.inverse, [[1.0, 0.0], [0.0, 1 / 1.5]])


def test_only_finite_responses_with_tokens_are_remembered():
    bonus = RepExp(use_memory=True, **PLAIN)
    bonus.update(make([X, None, [math.nan, 0.0]]))
    close(bonus.memory.matrix, [[2.0, 0.0], [0.0, 1.0]])


def test_saved_memory_goes_on_bit_for_bit(tmp_path):
    bonus = RepExp(use_memory=True, dim=4, **PLAIN)
    for seed in range(3):
        bonus.update(make(random_rows(4, 6, seed).tolist(), step=seed))
    save_state(bonus.state_dict(), tmp_path, "state")
    fresh = RepExp(use_memory=True, dim=4, **PLAIN)
    fresh.load_state_dict(load_state(tmp_path, "state"))
    present = make(random_rows(4, 6, seed=9).tolist(), step=9)
    assert torch.equal(fresh.score(present), bonus.score(present))
    bonus.update(present), fresh.update(present)
    assert torch.equal(fresh.memory.inverse, bonus.memory.inverse)
    assert fresh.memory.batches == bonus.memory.batches == 4


def test_state_of_before_the_first_batch_empties_the_memory():
    bonus = RepExp(use_memory=True, **PLAIN)
    empty = bonus.state_dict()
    bonus.update(make([X, Y]))
    bonus.load_state_dict(empty)
    assert torch.equal(bonus.score(make([X, Y])), RepExp(**PLAIN).score(make([X, Y])))


@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_saved_state_does_not_change_with_later_batches(decay):
    bonus = RepExp(use_memory=True, memory_decay=decay, **PLAIN)
    bonus.update(make([X, Y]))
    state = bonus.state_dict()
    before = copy.deepcopy(state)
    bonus.update(make([X, Y]))
    assert torch.equal(state["memory"]["inverse"], before["memory"]["inverse"])
    assert torch.equal(state["memory"]["matrix"], before["memory"]["matrix"])


# ---- flags, log


def test_logs_how_many_directions_a_group_and_the_memory_hold():
    small = PLAIN | {"ridge": 1e-9}
    logged = RepExp(**small).update(make([X, X, Y, X, X, X], num_generations=3))
    assert logged == pytest.approx({"directions": 1.5, "paid": 1.0})
    bonus = RepExp(use_memory=True, **small)
    logged = bonus.update(make([X, X, X]))
    assert logged == pytest.approx({"directions": 1.0, "paid": 1.0, "past_novelty": 1.0, "memory_directions": 1.0})
    logged = bonus.update(make([X, Y, X, Y]))
    assert logged == pytest.approx({"directions": 2.0, "paid": 1.0, "past_novelty": 0.5, "memory_directions": 2.0})


# ---- in the trainer


@pytest.mark.parametrize("model", ["current", "initial"])
def test_memory_fills_from_the_states_that_the_trainer_hands_over(trainer_factory, random_policy, model):
    bonus = RepExp(model=model, dim=16, use_memory=True, paid="all", beta=1.0)
    trainer = trainer_factory([bonus], [WeightSchedule()], max_steps=2)
    trainer.train()
    first, second = trainer.state.log_history[:2]
    assert bonus.memory.batches == 2 and bonus.memory.matrix.shape == (16, 16)
    assert first["ir/repexp/past_novelty"] == pytest.approx(1.0) and second["ir/repexp/past_novelty"] < 0.9
    assert 1 < first["ir/repexp/directions"] <= 4 and first["rewards/ir_repexp/mean"] > 0
