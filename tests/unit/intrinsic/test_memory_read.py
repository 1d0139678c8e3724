"""Reading a memory with each answer left out in turn: against storing all others and looking up, one by one."""

import pytest
import torch

from intrinsic import build_bonuses
from intrinsic.knn_memory import PARTS, MemoryRPlus
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.episodic_memory import EpisodicMemory
from intrinsic.parts.memory_read import look_up
from intrinsic.pipeline import BonusPipeline
from intrinsic.rollout import Rollout, text_id
from intrinsic.sentence_memory import SentenceMemory
from tests.compare import assert_same_bits
from tests.unit.intrinsic.knn_cases import close, memory_bonus, random_rollout, raws, rollout, take

LEFT_OUT = {"read": "leave_one_out", "explore_warmup": 0}


def one_by_one(bonus, batch):
    """part -> raw (B,), NaN for absent: store all but one in a copy without limits, look that one up, for each."""
    rows = bonus.embed(batch)
    values = {part: torch.full((len(batch),), torch.nan) for part in bonus.part_names}
    for part, found in values.items():
        for row in range(len(batch)):
            memory = EpisodicMemory(10_000, 10_000)
            memory.load_state_dict(bonus.memories[PARTS[part].memory].state_dict())
            for other in range(len(batch)):
                if other != row and rows.targets[other] == PARTS[part].memory:
                    bonus._store(rows.row(other), {rows.targets[other]: memory})
            own = rows.row(row)
            own = own.by_step() if isinstance(bonus, SentenceMemory) else own
            if len(own.ids):
                found[row] = look_up(memory, PARTS[part].reward, own, bonus.k).values.mean()
    return values


def with_steps(batch):
    """The same batch with one to three steps in each answer."""
    texts = [f"{text}\n{text[-1]} and\n{text}"[: None if len(text) % 2 else len(text)] for text in batch.completions]
    return Rollout(
        batch.questions, texts, batch.correct, batch.rewards, batch.num_generations, step=10, encode=batch.encode
    )


@pytest.mark.parametrize("k", [1, 2, 30])
@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("past", [0, 1, 4])
def test_equals_storing_all_others_and_looking_up_one_by_one(past, steps, k):
    """Random answers of which some are equal, known and new questions, memories that overflow."""
    bonus = SentenceMemory(4, k=k, max_questions=4, **LEFT_OUT) if steps else None
    bonus = bonus or MemoryRPlus(k=k, max_questions=4, max_responses=3, **LEFT_OUT)
    for seed in range(past):
        bonus.update(random_rollout(seed))
    batch = random_rollout(9, groups=5, size=4)
    # Two groups of one question, one answer of which is alone; and groups with one right answer or none.
    batch.questions[4:8] = batch.questions[:4]
    batch.correct[8:16] = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])
    batch = with_steps(batch) if steps else batch
    expected = one_by_one(bonus, batch)
    found = bonus.raw_parts(bonus.embed(batch), batch)
    assert found.keys() == expected.keys()
    for part, raw in found.items():
        assert torch.equal(raw.present, expected[part].isfinite())
        torch.testing.assert_close(raw.values[raw.present], expected[part][raw.present], atol=1e-6, rtol=0)


def test_an_answer_does_not_meet_itself_but_its_copy():
    bonus = MemoryRPlus(**LEFT_OUT)
    explore = raws(bonus, rollout(["up", "steep", "left"], [0, 0, 0]))["explore"]
    close(explore, [0.2, 0.2, 1.0])
    close(raws(bonus, rollout(["up", "steep", "up"], [0, 0, 0]))["explore"], [0.0, 0.2, 0.0])


def test_exploit_is_the_distance_to_the_centroid_of_the_other_right_answers():
    bonus = memory_bonus(success=[("qA", "right")], **LEFT_OUT)
    exploit = raws(bonus, rollout(["up", "steep", "left"], [1, 1, 0]))["exploit"]
    stored = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    own = torch.tensor([[0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
    centroids = torch.stack([stored[[0, 2]].mean(0), stored[[0, 1]].mean(0), stored.mean(0)])
    close(exploit, (-(own - centroids).norm(dim=1)).tolist())


def test_the_only_right_answer_of_a_batch_has_nothing_to_compare_with_and_is_paid_nothing():
    bonus = MemoryRPlus(**LEFT_OUT)
    batch = rollout(["up", "steep", "left"], [1, 0, 0])
    raw = bonus.raw_parts(bonus.embed(batch), batch)["exploit"]
    assert raw.present.tolist() == [False, True, True]
    parts = bonus.score_parts(batch)
    close(parts["exploit"], [0.0, 1.0, 0.0])
    bonus.update(batch)
    assert len(bonus.windows["exploit"].history) == 2, "what is absent moves no range"


def test_after_the_normalisation_that_answer_keeps_its_advantage_and_the_others_share_the_mean():
    options = IntrinsicOptions(use_ir="knn", memory_read="leave_one_out", ir_weight="1")
    pipeline, batch = (
        BonusPipeline(build_bonuses(options), options.schedules()),
        rollout(["up", "steep", "left"], [1, 0, 0]),
    )
    close(pipeline.join(torch.zeros(3), pipeline.score(batch), batch), [0.0, 0.5, -0.5])


def test_in_the_reward_noise_is_as_strong_as_what_the_reward_holds_of_that_answer_too():
    options = IntrinsicOptions(use_ir="knn,noise", memory_read="leave_one_out", ir_level="reward", ir_weight="1")
    bonus, noise = build_bonuses(options)
    batch = rollout(["up", "steep", "left", "flat"], [1, 0, 0, 0])
    paid = bonus.score(batch)
    assert paid[0] == 0 and len(paid.unique()) > 2
    torch.testing.assert_close(noise.score(batch).std(), paid.std())


@pytest.mark.parametrize("reading", ["past", "leave_one_out"])
def test_a_batch_is_looked_up_once_for_its_scores_its_noise_and_what_is_learnt_of_it(reading, monkeypatch):
    options = IntrinsicOptions(use_ir="knn+,noise", memory_read=reading, explore_warmup=0)
    pipeline = BonusPipeline(build_bonuses(options), options.schedules())
    pipeline.update(rollout(["up", "left"], [1, 0]))
    asked, read = [], MemoryRPlus.read
    monkeypatch.setattr(MemoryRPlus, "read", lambda bonus, part, batch: asked.append(part) or read(bonus, part, batch))
    for texts in (["up", "steep", "left"], ["steep", "left", "up"]):
        batch = rollout(texts, [1, 0, 0])
        pipeline.score(batch)
        pipeline.update(batch)
    assert asked == ["exploit", "explore"] * 2


def test_a_batch_that_was_learnt_is_looked_up_anew_and_so_is_one_beside_a_loaded_memory():
    bonus = memory_bonus(success=[("qA", "up")], failure=[("qA", "left")], explore_warmup=0)
    batch, empty = rollout(["up", "steep", "left"], [1, 0, 0]), memory_bonus(explore_warmup=0).state_dict()
    other = rollout(["up", "steep", "left"], [1, 0, 0])
    first = bonus.score(batch)
    bonus.update(batch)
    learnt = bonus.score(batch)
    assert not torch.equal(first, learnt)
    assert_same_bits(bonus.score(other), learnt)
    assert_same_bits(bonus.score(batch), learnt)
    bonus.load_state_dict(empty)
    assert not bonus.score(batch).any()


def test_without_its_own_answer_a_question_is_read_from_its_neighbours():
    """qB has one right answer, `left`: itself it is compared with that of qA, the others of qB with it."""
    bonus = memory_bonus(success=[("qA", "up")], **LEFT_OUT)
    exploit = raws(bonus, rollout(["left", "left", "right"], [1, 0, 0], "qB"))["exploit"]
    close(exploit, [-(2**0.5), 0.0, -2.0])


def test_a_vector_that_is_not_finite_reaches_the_guard_and_spoils_no_other():
    bonus = MemoryRPlus(**LEFT_OUT)
    batch = rollout(["nan", "left", "up", "steep"], [0, 0, 1, 1])
    score = bonus.score(batch)
    assert score[0].isnan()
    torch.testing.assert_close(score[1:], bonus.score(rollout(["left", "up", "steep"], [0, 1, 1])))
    question = rollout(["up", "left", "steep"], [0, 0, 0], ["broken", "qA", "qA"], num_generations=1)
    assert bonus.score(question).isfinite().tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["knn", "knn+", "knn-sent"])
def test_score_is_pure_and_groups_may_be_in_any_order(name):
    bonus = build_bonuses(IntrinsicOptions(use_ir=name, k=2, memory_read="leave_one_out"))[0]
    bonus.update(random_rollout(0))
    batch, before = random_rollout(9), bonus.state_dict()
    order = [*range(16, 24), *range(0, 8), *range(8, 16)]
    torch.testing.assert_close(bonus.score(take(batch, order)), bonus.score(batch)[order], atol=1e-5, rtol=0)
    assert_same_bits(before, bonus.state_dict())
    assert bonus.identity()["memory_read"] == "leave_one_out"


def test_what_is_stored_and_logged_does_not_depend_on_how_the_memory_is_read():
    past, left_out = MemoryRPlus(explore_warmup=0), MemoryRPlus(**LEFT_OUT)
    for seed in range(3):
        sizes = [bonus.update(random_rollout(seed)) for bonus in (past, left_out)]
        assert sizes[0]["success_responses"] == sizes[1]["success_responses"]
    assert_same_bits(past.state_dict()["memories"], left_out.state_dict()["memories"])
    assert text_id("question 0 0") in left_out.memories["failure"]
