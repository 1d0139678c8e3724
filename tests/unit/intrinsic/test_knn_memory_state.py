"""What Memory-R and Memory-R+ store: filing, order of score and update, state and resumption, encode calls, log."""

import math

import pytest
import torch

from intrinsic.knn_memory import MemoryR, MemoryRPlus
from intrinsic.rollout import text_id
from tests.compare import assert_same_bits
from tests.unit.intrinsic.knn_cases import (
    M8,
    close,
    encode,
    memory_bonus,
    random_rollout,
    raws,
    rollout,
)


@pytest.mark.fault("F5")
def test_m7_an_empty_memory_pays_nothing_and_is_filled_afterwards():
    bonus = MemoryRPlus(explore_warmup=0)
    batch = rollout(["right", "up"], [1, 0])
    close(bonus.score(batch), [0.0, 0.0])
    metrics = bonus.update(batch)
    assert all(len(window.history) == 0 for window in bonus.windows.values())
    assert metrics == {
        "known_questions": 0.0,
        "success_questions": 1.0,
        "success_responses": 1.0,
        "failure_questions": 1.0,
        "failure_responses": 1.0,
    }


@pytest.mark.fault("F7")
def test_m9_every_completion_is_filed_under_its_own_question():
    bonus = MemoryRPlus()
    batch = rollout(["right", "up", "left", "steep"], [1, 0, 1, 0], ["qA", "qA", "qB", "qB"], num_generations=2)
    bonus.update(batch)
    success, failure = bonus.memories["success"], bonus.memories["failure"]
    close(success.responses([text_id("qA")]), [[1.0, 0.0]])
    close(success.responses([text_id("qB")]), [[-1.0, 0.0]])
    close(failure.responses([text_id("qA")]), [[0.0, 1.0]])
    close(failure.responses([text_id("qB")]), [[0.6, 0.8]])


@pytest.mark.parametrize("legacy", [False, True])
def test_score_is_pure(legacy):
    bonus = MemoryRPlus(legacy=legacy, max_questions=4, max_responses=2)
    for seed in range(3):
        bonus.update(random_rollout(seed))
    before = bonus.state_dict()
    first = bonus.score(random_rollout(7))
    assert_same_bits(before, bonus.state_dict())
    assert torch.equal(first, bonus.score(random_rollout(7)))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("cls", [MemoryR, MemoryRPlus])
def test_a_restored_bonus_gives_the_same_scores_and_goes_on_alike(cls, legacy):
    settings = {"max_questions": 4, "max_responses": 3, "window": 30, "k": 2, "legacy": legacy}
    bonus, restored = cls(**settings), cls(**settings)
    for seed in range(5):
        bonus.update(random_rollout(seed))
    restored.load_state_dict(bonus.state_dict())
    for seed in (6, 7):
        torch.testing.assert_close(restored.score(random_rollout(seed)), bonus.score(random_rollout(seed)))
        bonus.update(random_rollout(seed))
        restored.update(random_rollout(seed))


def test_state_holds_contiguous_tensors_and_json_types_only():
    bonus = MemoryRPlus(max_questions=2)
    for seed in range(3):
        bonus.update(random_rollout(seed))

    def leaves(state):
        return [leaf for value in state.values() for leaf in (leaves(value) if isinstance(value, dict) else [value])]

    for leaf in leaves(bonus.state_dict()):
        if isinstance(leaf, torch.Tensor):
            assert leaf.is_contiguous() and leaf.untyped_storage().nbytes() == leaf.nbytes
        else:
            assert isinstance(leaf, list) and all(isinstance(entry, str) for entry in leaf)


def test_update_appends_exactly_the_raws_that_score_normalised():
    bonus = memory_bonus(success=[("qA", "up")], failure=[("qA", "right")], window=3)
    batch = rollout(["right", "up", "steep", "left"], [0, 1, 0, 1])
    expected = raws(bonus, batch)
    bonus.score(batch)
    bonus.update(batch)
    for part, window in bonus.windows.items():
        assert torch.equal(window.history, expected[part][-3:])


@pytest.mark.parametrize("legacy", [False, True])
def test_legacy_and_fixed_update_store_the_same_responses(legacy):
    bonus = MemoryRPlus(legacy=legacy)
    bonus.update(rollout(*M8))
    close(bonus.memories["success"].responses([text_id("qA")]), [[0.0, 1.0], [0.8, 0.6]])
    close(bonus.memories["failure"].responses([text_id("qA")]), [[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])


def test_score_and_update_make_one_encode_call_without_duplicates():
    calls = []

    def counting(texts):
        calls.append(list(texts))
        return encode(texts)

    bonus = MemoryRPlus(explore_warmup=0)
    batch = rollout(["up", "left", "up", "up"], [1, 0, 0, 1], ["qA", "qA", "qB", "qB"], counting)
    bonus.score(batch)
    bonus.update(batch)
    assert calls == [["qA", "qB", "up", "left"]]


def test_only_the_reasoning_is_encoded():
    seen = []
    completion = "<reasoning>\nup\n</reasoning>\n<answer>4</answer>"
    MemoryR().score(rollout([completion], [1], encoder=lambda texts: seen.extend(texts) or encode(texts)))
    assert seen == ["qA", "up"]


@pytest.mark.parametrize("legacy", [False, True])
def test_an_empty_right_answer_is_scored_but_never_stored_as_success(legacy):
    bonus = MemoryRPlus(legacy=legacy)
    empty = ["<reasoning>  \n</reasoning>", ""]
    bonus.update(rollout(empty, [1, 1]))
    assert len(bonus.memories["success"]) == 0
    bonus.update(rollout(empty, [0, 1]))
    assert bonus.memories["failure"].num_responses == 1
    assert bonus.score(rollout(empty, [1, 1])).isfinite().all()


def test_update_reports_known_questions_and_raws_of_present_parts_only():
    bonus = memory_bonus(success=[("qA", "up")])
    metrics = bonus.update(rollout(["right", "left"], [0, 0], ["qA", "qB"]))
    assert metrics["known_questions"] == 0.5
    assert metrics["exploit_unnormalized"] == pytest.approx(-math.sqrt(2))
    assert "explore_unnormalized" not in metrics


def test_a_non_finite_vector_reaches_the_guard_but_neither_memory_nor_window_nor_neighbours():
    bonus = memory_bonus(success=[("qA", "up")], failure=[("qA", "right")])
    batch = rollout(["nan", "left", "up"], [0, 0, 1])
    score = bonus.score(batch)
    assert score[0].isnan() and score[1:].isfinite().all()
    bonus.update(batch)
    assert all(window.history.isfinite().all() for window in bonus.windows.values())
    assert bonus.memories["failure"].responses([text_id("qA")]).isfinite().all()


def test_memory_r_holds_no_failures_and_pays_no_explore():
    bonus = memory_bonus(MemoryR, success=[("qA", "up")])
    batch = rollout(["left", "up"], [0, 1])
    assert list(bonus.score_parts(batch)) == ["exploit"] == list(bonus.part_names)
    assert bonus.update(batch)["success_responses"] == 2.0 and list(bonus.memories) == ["success"]
