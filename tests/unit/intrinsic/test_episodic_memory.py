"""Behaviour of the episodic memory: identity, rings, eviction, look-up, fork and state."""

import pytest
import torch

from common.errors import UserError
from intrinsic.parts.episodic_memory import EpisodicMemory

Q_A, Q_B, Q_C, Q_D = (torch.tensor(key) for key in ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)))


def vector(*values):
    return torch.tensor(values)


def filled(*entries, max_questions=10, max_responses=10):
    memory = EpisodicMemory(max_questions, max_responses)
    for text_id, key, value in entries:
        memory.insert(text_id, key, value)
    return memory


def test_m5a_keeps_the_newest_responses_of_a_question():
    memory = filled(*(("A", Q_A, value) for value in (Q_A, Q_B, vector(0.6, 0.8))), max_responses=2)
    assert sorted(memory.responses(["A"]).tolist()) == sorted([[0.0, 1.0], vector(0.6, 0.8).tolist()])


def test_the_ring_of_responses_keeps_the_newest_after_several_rounds():
    memory = filled(*(("A", Q_A, torch.full((2,), float(number))) for number in range(8)), max_responses=3)
    assert sorted(memory.responses(["A"])[:, 0].tolist()) == [5.0, 6.0, 7.0]
    assert memory.state_dict()["values"][:, 0].tolist() == [5.0, 6.0, 7.0]


@pytest.mark.fault("F6")
def test_m5b_evicts_the_oldest_question_and_keeps_values_with_their_keys():
    memory = filled(("A", Q_A, Q_A), ("B", Q_B, Q_B), ("C", Q_C, Q_C), max_questions=2)
    assert "A" not in memory and memory.responses(["B"]).tolist() == [Q_B.tolist()]
    assert memory.responses(["C"]).tolist() == [Q_C.tolist()]
    memory.insert("D", Q_D, Q_D)
    assert "B" not in memory and memory.responses(["C"]).tolist() == [Q_C.tolist()]
    assert memory.nearest(torch.stack([Q_C, Q_D]), 1) == [["C"], ["D"]]


def test_eviction_follows_first_insertion_not_last_use():
    memory = filled(("A", Q_A, Q_A), ("B", Q_B, Q_B), ("A", Q_A, Q_B), ("C", Q_C, Q_C), max_questions=2)
    assert "A" not in memory and "B" in memory


def test_capacity_of_one_question_works():
    memory = filled(("A", Q_A, Q_A), ("B", Q_B, Q_B), max_questions=1)
    assert memory.nearest(Q_A[None], 3) == [["B"]]


@pytest.mark.fault("F6")
def test_f6_values_stay_aligned_with_keys_after_ten_thousand_inserts():
    generator = torch.Generator().manual_seed(0)
    keys = torch.nn.functional.normalize(torch.randn(4000, 16, generator=generator), dim=1)
    memory = EpisodicMemory(max_questions=37, max_responses=3)
    arrivals = []
    for question in torch.randint(4000, (10_000,), generator=generator).tolist():
        if str(question) not in memory:
            arrivals.append(str(question))
        memory.insert(str(question), keys[question], torch.full((16,), float(question)))
    expected = arrivals[-37:]
    assert len(memory) == 37
    assert memory.state_dict()["ids"] == expected
    stored = torch.stack([keys[int(text_id)] for text_id in expected])
    assert memory.nearest(stored, 1) == [[text_id] for text_id in expected]
    assert all((memory.responses([text_id]) == float(text_id)).all() for text_id in expected)


def test_storage_grows_with_content_and_is_not_preallocated():
    memory = EpisodicMemory(max_questions=10_000, max_responses=100)
    for question in range(9):
        for _ in range(5):
            memory.insert(str(question), torch.randn(8), torch.randn(8))
    assert memory.nbytes <= 4 * 2 * 8 * (9 + 9 * 5)


def test_a_memory_that_is_fed_for_ever_stays_within_its_capacity():
    memory = EpisodicMemory(max_questions=6, max_responses=5)
    for number in range(200):
        memory.insert(str(number % 13), torch.randn(8), torch.randn(8))
        if number % 13 < 6:
            for _ in range(7):
                memory.insert(str(number % 13), torch.randn(8), torch.randn(8))
        assert memory.nbytes <= 4 * 8 * 6 * (5 + 1)
    assert len(memory) == 6


def test_a_loaded_memory_does_not_share_storage_with_the_state():
    state = filled(("A", Q_A, Q_B)).state_dict()
    memory = EpisodicMemory(1, 1)
    memory.load_state_dict(state)
    memory.insert("A", Q_A, Q_D)
    memory.insert("C", Q_C, Q_C)
    assert state["keys"].tolist() == [Q_A.tolist()] and state["values"].tolist() == [Q_B.tolist()]


def test_ties_are_ordered_by_insertion_also_after_the_ring_wrapped():
    memory = filled(("A", Q_A, Q_A), ("B", Q_A, Q_B), max_questions=2)
    assert memory.nearest(Q_A[None], 2) == [["A", "B"]]
    memory.insert("C", Q_A * (1 + 1e-7), Q_C)
    assert memory.nearest(Q_A[None], 2) == [["B", "C"]]
    assert memory.nearest(Q_A[None], 1) == [["B"]]


@pytest.mark.fault("F5")
def test_nearest_is_by_cosine_not_by_length_and_returns_at_most_what_is_stored():
    memory = filled(("far", vector(100.0, 100.0), Q_A), ("near", vector(0.1, 0.0), Q_B))
    assert memory.nearest(vector(3.0, 0.1)[None], 9) == [["near", "far"]]


@pytest.mark.fault("F5")
def test_an_empty_memory_and_a_non_finite_key_have_no_neighbours():
    assert EpisodicMemory(2, 2).nearest(torch.ones(3, 2), 1) == [[], [], []]
    memory = filled(("A", Q_A, Q_A))
    assert memory.nearest(torch.stack([vector(float("nan"), 0.0), Q_A]), 1) == [[], ["A"]]


def test_union_of_responses_counts_every_response():
    memory = filled(("A", Q_A, Q_A), ("A", Q_A, Q_A), ("B", Q_B, Q_B))
    assert memory.responses(["A", "B"]).shape == (3, 2) and memory.num_responses == 3


def test_fork_takes_insertions_and_leaves_the_memory_unchanged():
    memory = filled(("A", Q_A, Q_A), ("B", Q_B, Q_B), max_questions=2, max_responses=2)
    before = memory.state_dict()
    fork = memory.fork()
    for text_id, key in (("A", Q_A), ("A", Q_A), ("C", Q_C), ("D", Q_D), ("C", Q_C)):
        fork.insert(text_id, key, Q_D)
    assert fork.state_dict()["ids"] == ["C", "D"] and fork.responses(["C"]).shape == (2, 2)
    after = memory.state_dict()
    assert after["ids"] == before["ids"] == ["A", "B"]
    assert all(torch.equal(after[name], before[name]) for name in ("keys", "values", "counts"))
    assert memory.nearest(Q_C[None], 1) == [["B"]]


def test_state_round_trip_goes_on_as_if_never_interrupted():
    entries = [(str(i % 7), vector(1.0, float(i % 7)), vector(float(i), 0.0)) for i in range(40)]
    memory = filled(*entries[:25], max_questions=5, max_responses=3)
    restored = EpisodicMemory(5, 3)
    restored.load_state_dict(memory.state_dict())
    for entry in entries[25:]:
        memory.insert(*entry)
        restored.insert(*entry)
    ours, theirs = memory.state_dict(), restored.state_dict()
    assert ours["ids"] == theirs["ids"]
    assert all(torch.equal(ours[name], theirs[name]) for name in ("keys", "values", "counts"))


def test_state_of_an_empty_memory_round_trips():
    restored = filled(("A", Q_A, Q_A))
    restored.load_state_dict(EpisodicMemory(2, 2).state_dict())
    assert len(restored) == 0 and restored.nearest(Q_A[None], 1) == [[]]
    restored.insert("B", Q_B, Q_B)
    assert restored.nearest(Q_A[None], 1) == [["B"]]


def test_a_saved_memory_above_capacity_or_of_another_width_is_a_user_error():
    state = filled(("A", Q_A, Q_A), ("B", Q_B, Q_B)).state_dict()
    with pytest.raises(UserError, match="--memory_questions=1"):
        EpisodicMemory(1, 5).load_state_dict(state)
    memory = EpisodicMemory(5, 5)
    memory.load_state_dict(state)
    with pytest.raises(UserError, match="width 2 but got 3"):
        memory.insert("C", torch.ones(3), torch.ones(3))
