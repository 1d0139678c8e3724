"""What Memory-R and Memory-R+ pay, against the test vectors M1-M9 of their specification (M10: test_encoder.py)."""

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from intrinsic import build_bonuses
from intrinsic.knn_memory import MemoryR, MemoryRPlus
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.normalize import WindowMinMax
from intrinsic.shuffle import Shuffle
from tests.compare import assert_same_bits
from tests.unit.intrinsic.knn_cases import (
    M8,
    VECTORS,
    close,
    encode,
    memory_bonus,
    random_rollout,
    raws,
    rollout,
    take,
)


def test_m1_exploit_is_minus_the_distance_to_the_centroid():
    bonus = memory_bonus(success=[("qA", "right"), ("qA", "up")])
    close(raws(bonus, rollout(["steep"], [0]))["exploit"], [-0.316228])


def test_m2_the_centroid_weighs_responses_of_all_neighbours_equally():
    bonus = memory_bonus(success=[("qA", "right"), ("qA", "up"), ("qB", "left")], k=2)
    close(raws(bonus, rollout(["steep"], [0]))["exploit"], [-0.760117])


def test_m3_explore_is_one_minus_the_largest_cosine():
    bonus = memory_bonus(failure=[("qA", "right"), ("qA", "steep")])
    close(raws(bonus, rollout(["up", "left", "flat"], [0, 0, 0]))["explore"], [0.2, 1.6, 0.04])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_m4a_normalisation_does_not_depend_on_position(order):
    raw, expected = torch.tensor([0.2, 1.6, 0.96]), torch.tensor([0.0, 1.0, 0.542857])
    normalized = WindowMinMax(100).normalize(raw[list(order)], torch.ones(3, dtype=torch.bool))
    close(normalized, expected[list(order)].tolist())


def test_m4b_range_is_over_history_and_batch_and_the_window_forgets():
    window = WindowMinMax(3)
    window.append(torch.tensor([9.0, 0.0, 2.0, 0.5]))
    raw = torch.tensor([0.2, 1.6, 0.96])
    close(window.normalize(raw, torch.ones(3, dtype=torch.bool)), [0.1, 0.8, 0.48])
    close(window.history, [0.0, 2.0, 0.5])


@pytest.mark.fault("F5")
def test_m4c_negative_raws_and_a_single_raw():
    everywhere = torch.ones(3, dtype=torch.bool)
    close(WindowMinMax(9).normalize(torch.tensor([-0.316228, -0.760117, -0.5]), everywhere), [1.0, 0.0, 0.585996])
    close(WindowMinMax(9).normalize(torch.tensor([0.3]), everywhere[:1]), [0.0])


def test_absent_and_non_finite_raws_do_not_move_the_range():
    raw = torch.tensor([math.nan, 50.0, 1.0, 2.0, math.inf])
    window = WindowMinMax(9)
    normalized = window.normalize(raw, torch.tensor([True, False, True, True, True]))
    close(normalized[1:4], [0.0, 0.0, 1.0])
    assert normalized[0].isnan() and not normalized[4].isfinite()
    window.append(raw)
    close(window.history, [50.0, 1.0, 2.0])


@pytest.mark.fault("F3")
def test_differences_at_rounding_noise_are_not_blown_up():
    raw = torch.tensor([0.0, 1.2e-7])
    close(WindowMinMax(9, resolution=1e-6).normalize(raw, torch.ones(2, dtype=torch.bool)), [0.0, 0.0])


@pytest.mark.parametrize(
    ("answers", "expected"), [(("up", "left", "near96"), (0.0, 1.0, 0.542857)), (("near96", "left", "up"), (0, 1, 0))]
)
def test_m4_legacy_explore_is_normalised_sample_by_sample(monkeypatch, answers, expected):
    """Failures at cosines that give raws 0.2, 1.6 and 0.96; right answers, so that none meets itself."""
    monkeypatch.setitem(VECTORS, "near96", (0.04, -math.sqrt(1 - 0.04**2)))
    bonus = memory_bonus(failure=[("qA", "right"), ("qA", "steep")], legacy=True)
    close(bonus.score_parts(rollout(list(answers), [1, 1, 1]))["explore"], [float(value) for value in expected])


def test_m4_legacy_exploit_pays_one_minus_raw_distance_on_a_window_of_one(monkeypatch):
    for name, distance in (("d1", 0.316228), ("d2", 0.760117), ("d3", 0.5)):
        cosine = 1 - distance**2 / 2
        monkeypatch.setitem(VECTORS, name, (cosine, math.sqrt(1 - cosine**2)))
    bonus = memory_bonus(MemoryR, success=[("qA", "right")], legacy=True)
    close(bonus.score_parts(rollout(["d1", "d2", "d3"], [0, 0, 0]))["exploit"], [0.683772, 0.0, 0.585996])


def test_m6_scores_totals_and_group_advantages():
    bonus = memory_bonus(
        success=[("qA", "up"), ("qA", "flat")], failure=[("qA", "right"), ("qA", "steep"), ("qA", "right")]
    )
    batch = rollout(["right", "up", "steep", "left"], [0, 1, 0, 0])
    close(raws(bonus, batch)["exploit"], [-1.0, -0.447214, -0.2, -1.612452])
    close(raws(bonus, batch)["explore"], [0.0, 0.2, 0.0, 1.6])
    parts = bonus.score_parts(batch)
    close(parts["exploit"], [0.433609, 0.824976, 1.0, 0.0])
    close(parts["explore"], [0.0, 0.125, 0.0, 1.0])
    totals = batch.correct + bonus.score(batch)
    close(totals, [0.433609, 1.949976, 1.0, 1.0])
    close((totals - totals.mean()) / (totals.std() + 1e-4), [-1.052955, 1.357881, -0.152463, -0.152463])


def test_m8_the_first_batch_is_paid_nothing():
    parts = MemoryRPlus(explore_warmup=0).score_parts(rollout(*M8))
    close(parts["exploit"], [0.0] * 5)
    close(parts["explore"], [0.0] * 5)


def test_m8_legacy_signature_every_wrong_answer_has_explore_zero():
    parts = MemoryRPlus(explore_warmup=0, legacy=True).score_parts(rollout(*M8))
    close(parts["exploit"], [0.0, 1.0, 0.0, 0.292893, 0.0])
    close(parts["explore"], [0.0, 1.0, 0.0, 0.04, 0.0])


def test_legacy_pays_explore_one_and_exploit_zero_on_an_empty_memory():
    right = MemoryRPlus(explore_warmup=0, legacy=True).score_parts(rollout(["right", "up"], [1, 1]))
    wrong = MemoryRPlus(explore_warmup=0, legacy=True).score_parts(rollout(["right", "up"], [0, 0]))
    close(right["explore"], [1.0, 1.0])
    close(wrong["exploit"], [0.0, 0.0])


def test_fixed_order_pays_explore_to_wrong_answers_where_legacy_does_not():
    wrong = {}
    for legacy in (False, True):
        bonus = MemoryRPlus(explore_warmup=0, legacy=legacy)
        for seed in range(4):
            batch = random_rollout(seed)
            explore = bonus.score_parts(batch)["explore"]
            bonus.update(batch)
        wrong[legacy] = explore[batch.correct < 0.5]
    assert float(wrong[True].max()) < 1e-5
    assert float(wrong[False].mean()) > 0.2


def test_m9_every_completion_is_scored_against_its_own_question():
    bonus = memory_bonus(MemoryR, success=[("qA", "right"), ("qB", "left")])
    batch = rollout(["right", "right"], [0, 0], ["qA", "qB"])
    close(raws(bonus, batch)["exploit"], [0.0, -2.0])


@pytest.mark.fault("F7")
@pytest.mark.parametrize("name", ["knn", "knn+"])
def test_f7_permuting_groups_permutes_scores(name):
    bonus = build_bonuses(IntrinsicOptions(use_ir=name, k=2))[0]
    for seed in range(4):
        bonus.update(random_rollout(seed))
    batch = random_rollout(9)
    order = [*range(16, 24), *range(0, 8), *range(8, 16)]
    torch.testing.assert_close(bonus.score(take(batch, order)), bonus.score(batch)[order], atol=1e-5, rtol=0)


def test_equal_answers_to_a_question_are_paid_equally_wherever_they_stand():
    bonus = memory_bonus(success=[("qA", "up")], failure=[("qA", "right")])
    batch = rollout(["left", "steep", "flat", "left"], [0, 1, 0, 1])
    score = bonus.score(batch)
    assert float(score[0]) == float(score[3]) != float(score[1])


def test_a_batch_of_one_with_k_above_what_is_stored():
    bonus = memory_bonus(success=[("qB", "up")], failure=[("qB", "right")], k=30)
    assert bonus.score(rollout(["steep"], [0])).tolist() == [0.0]
    assert bonus.update(rollout(["steep"], [0]))["known_questions"] == 0.0


@pytest.mark.parametrize(
    ("warmup", "step", "paid"),
    [(0, 0, True), (0.5, 9, False), (0.5, 10, True), (12, 11, False), (12, 12, True), (1, 0, False), (1, 1, True)],
)
def test_explore_is_absent_before_its_warm_up_and_exploit_is_not(warmup, step, paid):
    bonus = memory_bonus(success=[("qA", "up")], failure=[("qA", "right")], explore_warmup=warmup)
    batch = rollout(["left", "up"], [0, 0], step=step)
    parts = bonus.score_parts(batch)
    bonus.update(batch)
    assert bool(parts["explore"].any()) is paid
    assert len(bonus.windows["explore"].history) == (2 if paid else 0)
    assert parts["exploit"].any()


def test_exploit_is_absent_until_enough_questions_have_a_right_answer_and_explore_is_not():
    bonus = memory_bonus(success=[("qA", "up")], failure=[("qA", "right")], exploit_keys=2)
    batch = rollout(["left", "up"], [1, 1], ["qB", "qB"])
    parts = bonus.score_parts(batch)
    assert not parts["exploit"].any() and parts["explore"].any()
    bonus.update(batch)
    assert not len(bonus.windows["exploit"].history) and len(bonus.windows["explore"].history) == 2
    assert bonus.score_parts(rollout(["left", "steep"], [0, 0]))["exploit"].any(), "two questions are stored now"


VALID = ["correct", "wrong_value"]
INVALID = ["wrong_numbers", "no_answer", "syntax"]


@pytest.mark.parametrize("settings", [{}, {"read": "leave_one_out"}, {"legacy": True}])
@pytest.mark.parametrize("verdict", INVALID)
def test_the_gate_pays_stores_and_ranges_over_valid_answers_alone(settings, verdict):
    """The invalid answer is the one nearest to what was right, and farthest from what was wrong."""
    stored = {"success": [("qA", "up")], "failure": [("qA", "right")]}
    answers, correct, verdicts = ["flat", "up", "steep"], [1, 0, 0], ["correct", verdict, "wrong_value"]
    gated, twin = (memory_bonus(**stored, gate="valid", **settings) for _ in range(2))
    batch = rollout(answers, correct, verdicts=verdicts)
    without = rollout(answers[::2], correct[::2], verdicts=verdicts[::2])
    assert gated.eligible(batch).tolist() == [True, False, True]
    for part, scores in gated.score_parts(batch).items():
        assert scores[1] == 0
        torch.testing.assert_close(scores[::2], twin.score_parts(without)[part])
    assert gated.update(batch)["valid"] == pytest.approx(2 / 3)
    twin.update(without)
    assert_same_bits(gated.state_dict(), twin.state_dict())


def test_the_gate_lets_through_what_obeys_the_rules_and_a_control_deals_among_them():
    bonus = memory_bonus(success=[("qA", "up")], failure=[("qA", "right")], gate="valid")
    batch = rollout(["left", "up", "flat", "steep", "right"], [1, 0, 0, 0, 0], verdicts=VALID + INVALID)
    assert bonus.eligible(batch).tolist() == [True, True, False, False, False]
    assert not Shuffle(bonus).score(batch)[2:].any()


def test_the_gate_needs_a_task_that_gives_verdicts():
    with pytest.raises(UserError, match="--memory_gate=valid.*--memory_gate=all"):
        memory_bonus(gate="valid").score(rollout(["up"], [1]))


def test_unnormalised_encoders_are_normalised():
    bonus = memory_bonus(success=[("qA", "right"), ("qA", "up")])
    batch = rollout(["steep"], [0], encoder=lambda texts: 7.0 * encode(texts).double())
    close(raws(bonus, batch)["exploit"], [-0.316228])


def test_betas_weigh_the_parts():
    entries = {"success": [("qA", "up")], "failure": [("qA", "right")]}
    batch = rollout(["left", "up"], [0, 1])
    plain, weighed = memory_bonus(**entries), memory_bonus(**entries, beta_s=2.0, beta_e=0.5)
    assert torch.equal(weighed.score_parts(batch)["exploit"], 2.0 * plain.score_parts(batch)["exploit"])
    assert torch.equal(weighed.score_parts(batch)["explore"], 0.5 * plain.score_parts(batch)["explore"])
    assert torch.equal(weighed.score(batch), sum(weighed.score_parts(batch).values()))


def test_flags_reach_the_bonus_and_its_identity():
    flags = {"k": 3, "memory_questions": 7, "memory_responses": 5, "memory_window": 11, "memory_legacy": True}
    flags |= {"exploit_keys": 6, "memory_read": "past", "memory_gate": "valid"}
    options = IntrinsicOptions(use_ir="memoryr+", **flags, encoder="policy", beta_e=0.3, explore_warmup=4)
    bonus = build_bonuses(options)[0]
    settings = {"betas": bonus.betas, "explore_warmup": bonus.explore_warmup, "encoder": "policy"}
    assert bonus.identity() == {"name": "knn+", **flags, **settings}
    assert bonus.betas == {"exploit": 1.0, "explore": 0.3} and bonus.explore_warmup == 4
    assert isinstance(build_bonuses(SimpleNamespace(**{**vars(options), "use_ir": "knn"}))[0], MemoryR)


@pytest.mark.parametrize("name", ["knn", "knn+", "knn-sent"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"explore_warmup": -1.0}, "--explore_warmup=-1.0"),
        ({"beta_s": math.nan}, "--beta_s=nan"),
        ({"beta_e": math.inf}, "--beta_e=inf"),
        ({"exploit_keys": -1}, "--exploit_keys=-1"),
        ({"exploit_keys": 11, "memory_questions": 10}, "--exploit_keys=11.*--memory_questions=10"),
        ({"memory_read": "batch"}, "--memory_read='batch'.*past, leave_one_out"),
        ({"memory_gate": "right"}, "--memory_gate='right'.*all, valid"),
        ({"memory_read": "leave_one_out", "memory_legacy": True}, "--memory_l"),
    ],
)
def test_bad_settings_are_user_errors(name, flags, message):
    with pytest.raises(UserError, match=message):
        build_bonuses(IntrinsicOptions(use_ir=name, **flags))


@pytest.mark.fault("X5")
def test_importing_the_bonus_imports_neither_faiss_nor_sentence_transformers():
    code = (
        "import sys, intrinsic.knn_memory, intrinsic.parts.encoder\n"
        "sys.exit(any(name in sys.modules for name in ('faiss', 'sentence_transformers', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
