"""Sentence-level memory: steps, their mean, what is stored, and what it shares with the response-level memory."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from common.state import load_state, save_state
from intrinsic.base import WeightSchedule
from intrinsic.flags.papers import MemoryFlags
from intrinsic.flags.text import SentenceMemoryFlags
from intrinsic.knn_memory import MemoryRPlus
from intrinsic.pipeline import BonusPipeline
from intrinsic.rollout import text_id
from intrinsic.sentence_memory import SentenceMemory, reasoning_steps
from intrinsic.shuffle import Shuffle
from tests.unit.intrinsic import knn_cases
from tests.unit.intrinsic.knn_cases import close, raws


def encode(texts):
    assert "" not in texts, "no step is empty"
    return knn_cases.encode(texts)


rollout = partial(knn_cases.rollout, encoder=encode)


def memory_bonus(success=(), failure=(), cls=SentenceMemory, **settings):
    """A bonus whose memories hold the given steps under qA."""
    entries = ([("qA", step) for step in steps] for steps in (success, failure))
    return knn_cases.memory_bonus(cls, *entries, **settings)


# ---- steps


@pytest.mark.parametrize(
    "text, steps",
    [
        ("", []),
        (" \n \n", []),
        ("2+2=4", ["2+2=4"]),
        ("Half of 48 is 24. So 72!  Right? Yes", ["Half of 48 is 24.", "So 72!", "Right?", "Yes"]),
        ("3*4=12\n\n  12+1=13\r\n", ["3*4=12", "12+1=13"]),
        ("1. Add 3.5 and 2. It is 5.5.\n 12. Done", ["1. Add 3.5 and 2.", "It is 5.5.", "12. Done"]),
    ],
)
def test_steps_are_lines_and_their_sentences(text, steps):
    assert reasoning_steps(text) == steps


# ---- the reward


def test_explore_is_the_mean_over_steps_of_the_distance_to_the_nearest_stored_step():
    bonus = memory_bonus(success=["right"], failure=["right", "steep"])
    close(raws(bonus, rollout(["up\nleft", "flat", "up\nup\nflat"], [0, 0, 0]))["explore"], [0.9, 0.04, 0.44 / 3])


def test_exploit_is_the_mean_over_steps_of_the_distance_to_the_centroid():
    bonus = memory_bonus(success=["right", "up"])
    expected = -(0.316228 + math.sqrt(2.5)) / 2
    close(raws(bonus, rollout(["steep\nleft", "steep"], [1, 0]))["exploit"], [expected, -0.316228])


def test_parts_are_normalised_over_history_and_batch_and_weighted():
    bonus = memory_bonus(failure=["right"], beta_e=0.5)
    bonus.windows["explore"].append(torch.tensor([2.0, 0.0]))
    parts = bonus.score_parts(rollout(["right\nup", "left"], [0, 1]))
    close(parts["explore"], [0.125, 0.5])
    close(parts["exploit"], [0.0, 0.0])
    close(bonus.score(rollout(["right\nup", "left"], [0, 1])), [0.125, 0.5])


def test_responses_of_one_step_are_paid_as_by_the_response_level_memory():
    stored = {"success": ["right", "up"], "failure": ["right", "steep"]}
    batch = rollout(["right", "up", "steep", "left"], [0, 1, 0, 0])
    by_response = memory_bonus(**stored, cls=MemoryRPlus).score_parts(batch)
    for part, scores in memory_bonus(**stored).score_parts(batch).items():
        torch.testing.assert_close(scores, by_response[part])


def test_explore_waits_for_its_warm_up():
    batch = rollout(["up", "left"], [0, 0], step=4)
    assert "explore" not in raws(memory_bonus(failure=["right"], explore_warmup=5), batch)
    assert "explore" in raws(memory_bonus(failure=["right"], explore_warmup=4), batch)


def test_batch_is_scored_before_it_is_stored():
    bonus, batch = SentenceMemory(), rollout(["up\nleft", "right"], [0, 1])
    assert bonus.score(batch).tolist() == [0.0, 0.0]
    bonus.update(batch)
    close(raws(bonus, rollout(["up\nleft", "right"], [0, 0]))["explore"], [0.0, 1.0])


def test_each_distinct_text_is_encoded_once():
    calls = []

    def recording(texts):
        calls.append(texts)
        return encode(texts)

    bonus = memory_bonus(success=["right"], failure=["left"])
    batch = rollout(["up\nflat", "flat. ", "up\nup"], [0, 1, 0], encoder=recording)
    bonus.score(batch), bonus.update(batch)
    assert sorted(text for texts in calls for text in texts) == ["flat", "flat.", "qA", "up"]
    assert len(calls) == 1


# ---- what is stored


def test_every_step_is_stored_under_its_own_question_in_the_memory_of_its_verdict():
    bonus = SentenceMemory()
    bonus.update(rollout(["up\nleft", "steep"], [1, 0], ["qA", "qB"], num_generations=1))
    close(bonus.memories["success"].responses([text_id("qA")]), [[0.0, 1.0], [-1.0, 0.0]])
    close(bonus.memories["failure"].responses([text_id("qB")]), [[0.6, 0.8]])
    assert text_id("qB") not in bonus.memories["success"]


def test_limit_holds_for_every_step():
    bonus = SentenceMemory(max_steps_stored=2)
    bonus.update(rollout(["right\nup\nleft\nflat"], [1]))
    close(bonus.memories["success"].state_dict()["values"], [[-1.0, 0.0], [0.8, 0.6]])


def test_logs_sizes_in_steps():
    bonus = SentenceMemory()
    logged = bonus.update(rollout(["right\nup\nleft", "", "flat", "up"], [1, 1, 0, 0]))
    expected = {"success_questions": 1, "success_steps": 3, "failure_questions": 1, "failure_steps": 2, "steps": 1.25}
    assert logged == {"known_questions": 0.0, **expected}
    logged = bonus.update(rollout(["up"], [0]))
    assert logged["known_questions"] == 1.0 and logged["explore_unnormalized"] == 0.0


# ---- edges


def test_response_without_steps_is_paid_nothing_and_moves_no_range():
    bonus = memory_bonus(success=["right"], failure=["right"])
    full = bonus.score(rollout(["right", "left"], [0, 1]))
    torch.testing.assert_close(
        bonus.score(rollout(["right", "<think>\n</think>up", "left"], [0, 0, 1])),
        torch.cat([full[:1], torch.zeros(1), full[1:]]),
    )
    bonus.update(rollout(["", "right"], [0, 0]))
    assert len(bonus.windows["explore"].history) == 1 and bonus.memories["failure"].num_responses == 2


@pytest.mark.parametrize("answers", [[""], ["up"], ["", ""], ["up\nleft"] * 3])
@pytest.mark.parametrize("verdict", [0.0, 1.0])
def test_no_comparison_no_bonus(answers, verdict):
    """B = 1, a group without any text, and identical responses; right or wrong."""
    bonus = memory_bonus(success=["right"], failure=["steep"])
    assert bonus.score(rollout(answers, [verdict] * len(answers))).tolist() == [0.0] * len(answers)
    bonus.update(rollout(answers, [verdict] * len(answers)))


@pytest.mark.parametrize("verdict", [0.0, 1.0])
def test_all_right_and_all_wrong_groups_still_get_a_direction(verdict):
    bonus = memory_bonus(success=["right"], failure=["left"])
    assert bonus.score(rollout(["right", "up\nleft", "left"], [verdict] * 3)).tolist()[0] == 2.0


def test_vector_that_is_not_finite_reaches_the_guard_spoils_no_other_and_is_not_stored():
    bonus = memory_bonus(success=["right"], failure=["right"])
    batch = rollout(["right", "up\nbroken", "left"], [0, 0, 1])
    scores = bonus.score(batch)
    assert scores[1].isnan()
    torch.testing.assert_close(scores[[0, 2]], bonus.score(rollout(["right", "left"], [0, 1])))
    bonus.update(batch)
    assert bonus.memories["failure"].state_dict()["values"].isfinite().all()
    pipeline = BonusPipeline([memory_bonus(success=["right"])], [WeightSchedule()])
    assert pipeline.score(batch)[0].nonfinite == 1


def test_score_is_pure():
    bonus, batch = memory_bonus(success=["right"], failure=["left"]), rollout(["up\nleft", "right"], [0, 1])
    first = bonus.score(batch)
    assert torch.equal(first, bonus.score(batch)) and bonus.memories["failure"].num_responses == 1
    assert first.dtype == torch.float32 and not len(bonus.windows["exploit"].history)


def test_shuffled_control_leaves_responses_without_steps_alone():
    bonus = Shuffle(memory_bonus(success=["right"], failure=["right"]))
    scores = bonus.score(rollout(["", "right", "left", "up\nflat"], [0, 0, 1, 0]))
    assert scores[0] == 0.0


# ---- state and flags


def test_saved_state_scores_the_same_in_a_fresh_bonus(tmp_path):
    bonus, batch = SentenceMemory(), rollout(["up\nleft", "right", "steep\nflat"], [0, 1, 0])
    bonus.update(rollout(["right\nup", "steep"], [1, 0])), bonus.update(rollout(["left", "flat"], [0, 0]))
    save_state(bonus.state_dict(), tmp_path)
    fresh = SentenceMemory()
    fresh.load_state_dict(load_state(tmp_path))
    assert torch.equal(fresh.score(batch), bonus.score(batch)) and bonus.score(batch).any()


def test_built_from_options_and_told_apart_on_resume():
    values = {name: field.default for cls in (MemoryFlags, SentenceMemoryFlags) for name, field in fields_of(cls)}
    bonus = SentenceMemory.from_options(SimpleNamespace(**values | {"k": 3, "sent_steps": 7}))
    identity = bonus.identity()
    assert bonus.memories["failure"].max_responses == 7
    assert identity["name"] == "knn-sent" and identity["k"] == 3 and identity["sent_steps"] == 7
    assert not {"memory_responses", "memory_legacy"} & identity.keys()


def fields_of(cls):
    return cls.__dataclass_fields__.items()


@pytest.mark.parametrize(
    "settings, flag", [({"max_steps_stored": 0}, "--sent_steps=0"), ({"legacy": True}, "--memory_legacy")]
)
def test_bad_settings_are_refused_with_the_flag(settings, flag):
    with pytest.raises(UserError, match=flag):
        SentenceMemory(**settings)
