"""Outcome counts: spec vectors, baselines, what is counted when and for whom, bounds, saved state, logged figures."""

import copy
import math

import pytest
import torch

from common.errors import UserError
from common.state import load_state, save_state
from intrinsic.base import WeightSchedule
from intrinsic.flags.outcome import OutcomeFlags
from intrinsic.outcome import AnswerCounts, Outcome, count_entropy
from intrinsic.pipeline import BonusPipeline
from intrinsic.rollout import text_id
from rewards.countdown import CountdownReward


@pytest.fixture
def make(rollout_factory):
    def build(answers, questions=None, num_generations=None, correct=None):
        rollout = rollout_factory(
            [f"it is {answer}" for answer in answers], correct or [0.0] * len(answers), questions, num_generations
        )
        rollout.answers = answers
        return rollout

    return build


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-6, rtol=0)


def counted(bonus, answers, question="one question"):
    return [bonus.counts.count(text_id(question), text_id(answer)) for answer in answers]


BATCH = ["12", "12", "15", "18"]
NOVELTY = [0.577350, 0.577350, 1.0, 1.0]


@pytest.fixture
def met(make):
    """A function that gives ``bonus`` the prior counts of vector C4: 12 three times, 15 once."""

    def meet(bonus):
        bonus.update(make(["12", "12", "12", "15"]))
        return bonus

    return meet


# ---- the quantity


def test_c4_novelty_from_the_counts_before_the_batch(met, make):
    bonus = met(Outcome(baseline="constant", constant=0.0))
    close(bonus.score(make(BATCH)), NOVELTY)
    bonus.update(make(BATCH))
    assert counted(bonus, ["12", "15", "18"]) == [5, 2, 1]


def test_c4_batch_penalty(make):
    close(Outcome(mode="batch").score(make(BATCH)), [-0.25, -0.25, 0.0, 0.0])


def test_group_baseline_makes_the_bonus_sum_to_zero(met, make):
    score = met(Outcome()).score(make(BATCH))
    mean = sum(NOVELTY) / 4
    close(score, [value - mean for value in NOVELTY])
    assert score.sum().item() == pytest.approx(0, abs=1e-6)


def test_constant_baseline_punishes_what_was_often_given(met, make):
    bonus = met(met(Outcome(baseline="constant")))
    close(bonus.score(make(BATCH)), [6**-0.5 - 0.5, 6**-0.5 - 0.5, 2**-0.5 - 0.5, 0.5])


def test_history_does_not_enter_the_batch_mode(met, make):
    assert torch.equal(met(Outcome(mode="batch")).score(make(BATCH)), Outcome(mode="batch").score(make(BATCH)))


def test_scale_weighs_the_bonus_beside_the_advantage(met, make):
    bonus, rollout = met(Outcome(scale=0.3, baseline="constant", constant=0.0)), make(BATCH)
    pipeline = BonusPipeline([bonus], [WeightSchedule(0.5)])
    joined = pipeline.join(torch.ones(4), pipeline.score(rollout), rollout)
    close(joined, [1 + 0.5 * 0.3 * value for value in NOVELTY])


def test_verdicts_do_not_matter(met, make):
    bonus = met(Outcome())
    scores = [bonus.score(make(BATCH, correct=[verdict] * 4)) for verdict in (0.0, 1.0)]
    assert torch.equal(*scores) and scores[0].abs().max() > 0


# ---- which answers count


@pytest.mark.parametrize("mode", ["historical", "batch"])
def test_unparsed_answers_get_nothing_and_are_not_counted(met, make, mode):
    bonus = met(Outcome(mode=mode))
    rollout = make([None, "12", "12", "18", None, None])
    score = bonus.score(rollout)
    assert score[[0, 4, 5]].tolist() == [0.0] * 3 and score[1] < 0
    assert bonus.eligible(rollout).tolist() == [False, True, True, True, False, False]
    before = sum(bonus.counts.visits(text_id("one question")))
    bonus.update(rollout)
    assert sum(bonus.counts.visits(text_id("one question"))) == before + 3


def test_group_baseline_is_the_mean_over_parsed_answers(met, make):
    score = met(Outcome()).score(make([None, "12", "18", None]))
    half = (1 - 3**-0.5) / 2
    close(score, [0.0, -half, half, 0.0])


def test_batch_mode_divides_by_the_whole_group(make):
    close(Outcome(mode="batch").score(make(["7", "7", None, None])), [-0.25, -0.25, 0.0, 0.0])


def test_commuting_and_brackets_make_no_new_answer_of_countdown(make):
    answers = {}
    texts = [f"<answer>{text}</answer>" for text in ("3+4*5", "5*4+3", "(4*5)+3", "(3+4)*5")]
    CountdownReward()([""] * 4, texts, numbers=[[3, 4, 5]] * 4, target=[23] * 4, log_extra=answers.__setitem__)
    rollout = make(answers["answer"])
    close(Outcome(mode="batch").score(rollout), [-0.5, -0.5, -0.5, 0.0])
    assert Outcome().update(rollout)["distinct_answers"] == 2


def test_counts_belong_to_one_question(met, make):
    bonus = met(Outcome(baseline="constant", constant=0.0))
    score = bonus.score(make(["12", "12"], ["another question", "one question"], num_generations=1))
    close(score, [1.0, 3**-0.5])


def test_batch_mode_compares_within_the_group(make):
    rollout = make(["1", "1", "1", "2"], ["first"] * 2 + ["second"] * 2, num_generations=2)
    close(Outcome(mode="batch").score(rollout), [-0.5, -0.5, 0.0, 0.0])


@pytest.mark.parametrize("mode", ["historical", "batch"])
@pytest.mark.parametrize("answers", [["7"], [None], [None] * 4, ["7"] * 4, ["", ""]])
def test_degenerate_groups(met, make, mode, answers):
    """A group of one, nothing parsed, identical answers, an empty answer: finite, and equal answers get equal pay."""
    score = met(Outcome(mode=mode)).score(make(answers))
    assert score.isfinite().all() and score.dtype == torch.float32 and score.shape == (len(answers),)
    assert score.unique().numel() == 1
    if mode == "historical" or len(answers) == 1 or None in answers:
        close(score, [0.0] * len(answers))


def test_empty_completion_and_row_of_padding(rollout_factory):
    rollout = rollout_factory(["", "it is 3"], [0, 1])
    rollout.answers = [None, "3"]
    assert not rollout.completion_mask[0].any()
    assert Outcome().score(rollout).tolist() == [0.0, 0.0]


# ---- the counts


def test_score_changes_nothing(met, make):
    bonus = met(Outcome())
    before = copy.deepcopy(bonus.counts)
    bonus.score(make(["1", "2", "3", "4"], ["new question"] * 4))
    assert list(bonus.counts._counts.items()) == list(before._counts.items())


def test_the_question_not_met_for_longest_is_dropped():
    counts = AnswerCounts(max_questions=2, max_answers=10)
    for question in ("a", "b", "a", "c"):
        counts.add(question, [text_id("1")])
    assert len(counts) == 2
    assert [counts.count(question, text_id("1")) for question in "abc"] == [2, 0, 1]


def test_the_rarest_answers_of_a_question_are_dropped_the_oldest_first():
    counts = AnswerCounts(max_questions=2, max_answers=3)
    counts.add("q", ["frequent", "old", "frequent", "middle"])
    counts.add("q", ["newest"])
    assert [counts.count("q", answer) for answer in ("frequent", "old", "middle", "newest")] == [2, 0, 1, 1]
    assert len(counts.visits("q")) == 3


def saved(bonus, folder):
    save_state(bonus.state_dict(), folder, "state")
    fresh = Outcome(max_questions=bonus.counts.max_questions, max_answers=bonus.counts.max_answers)
    fresh.load_state_dict(load_state(folder, "state"))
    return fresh


def test_saved_state_goes_on_like_the_original(make, tmp_path):
    """Counts, and the order that decides what is dropped next."""
    bonus = Outcome(max_questions=2, max_answers=2)
    for question, answers in (("a", ["1", "2"]), ("b", ["1", "1"]), ("a", ["\ud800", "3"])):
        bonus.update(make(answers, [question] * 2))
    fresh = saved(bonus, tmp_path)
    for question, answers in (("a", ["4", "4"]), ("c", ["1", "2"]), ("b", ["1", "5"])):
        rollout = make(answers, [question] * 2)
        assert torch.equal(fresh.score(rollout), bonus.score(rollout))
        assert fresh.update(rollout) == bonus.update(rollout)
    assert list(fresh.counts._counts.items()) == list(bonus.counts._counts.items())


def test_state_loads_before_the_first_rollout(make, tmp_path):
    fresh = saved(Outcome(), tmp_path)
    assert len(fresh.counts) == 0
    assert fresh.update(make(["1"])) == Outcome().update(make(["1"]))


def test_loaded_counts_do_not_share_memory_with_the_state(met, make, tmp_path):
    bonus, twin = met(Outcome()), Outcome()
    twin.load_state_dict(bonus.state_dict())
    bonus.update(make(BATCH))
    assert counted(twin, ["12", "15", "18"]) == [3, 1, 0]


# ---- figures


def test_logged_figures(met, make):
    metrics = met(Outcome()).update(make([*BATCH, None]))
    entropy = -sum(share * math.log(share) for share in (5 / 8, 2 / 8, 1 / 8))
    expected = {"parsed": 0.8, "new_answers": 0.25, "distinct_answers": 3, "count_entropy": entropy}
    assert metrics == pytest.approx(expected)


def test_figures_are_means_over_problems(make):
    metrics = Outcome().update(make(["1", "1", "1", "2"], ["first"] * 2 + ["second"] * 2, num_generations=2))
    expected = {"parsed": 1, "new_answers": 1, "distinct_answers": 1.5, "count_entropy": math.log(2) / 2}
    assert metrics == pytest.approx(expected)


def test_a_batch_without_answers_logs_only_that(make):
    assert Outcome().update(make([None, None])) == {"parsed": 0.0}


def test_entropy_of_even_counts_is_the_log_of_their_number():
    assert count_entropy([3, 3, 3, 3]) == pytest.approx(math.log(4)) and count_entropy([9]) == 0


# ---- settings


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"mode": "global"}, "--outcome_mode='global' is unknown"),
        ({"baseline": "none"}, "--outcome_baseline='none' is unknown"),
        ({"constant": 1.5}, "--outcome_constant=1.5 must be at least 0 and at most 1"),
        ({"constant": math.nan}, "--outcome_constant=nan must be at least 0 and at most 1"),
        ({"scale": -0.1}, "--outcome_scale=-0.1 must be a finite number, at least 0"),
        ({"scale": math.inf}, "--outcome_scale=inf must be a finite number"),
        ({"max_questions": 0}, "--outcome_questions=0 must be at least 1"),
        ({"max_answers": 0}, "--outcome_answers=0 must be at least 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Outcome(**settings)


def test_flags_arrive_and_are_part_of_the_identity():
    values = ("batch", "constant", 0.25, 0.1, 7, 8)
    names = ("mode", "baseline", "constant", "scale", "questions", "answers")
    flags = {f"outcome_{name}": value for name, value in zip(names, values, strict=True)}
    assert Outcome.from_options(OutcomeFlags(**flags)).identity() == {"name": "outcome"} | flags
    assert Outcome.from_options(OutcomeFlags()).identity() == Outcome().identity()
