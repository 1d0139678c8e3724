"""Memory-R and Memory-R+ against the test vectors M1-M9 of their specification (M10: test_encoder.py)."""

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from intrinsic import build_bonuses
from intrinsic.knn_memory import MemoryR, MemoryRPlus
from intrinsic.normalize import WindowMinMax
from training.errors import UserError
from training.options import IntrinsicOptions
from training.rollout import Rollout, text_id

VECTORS = {
    "qA": (1.0, 0.0),
    "qB": (0.0, 1.0),
    "qC": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, 1.0),
    "left": (-1.0, 0.0),
    "steep": (0.6, 0.8),
    "flat": (0.8, 0.6),
    "": (0.0, -1.0),
    "nan": (math.nan, 1.0),
}


def encode(texts):
    return torch.tensor([VECTORS[text] for text in texts])


def rollout(answers, correct, questions="qA", encoder=encode, **more):
    questions = [questions] * len(answers) if isinstance(questions, str) else questions
    correct = torch.tensor(correct, dtype=torch.float32)
    more = {"step": 10, "max_steps": 20, "num_generations": len(answers), **more}
    return Rollout(questions, answers, correct, rewards=correct, encode=encoder, **more)


def memory_bonus(cls=MemoryRPlus, success=(), failure=(), **settings):
    bonus = cls(**settings)
    for name, entries in (("success", success), ("failure", failure)):
        for question, answer in entries:
            bonus.memories[name].insert(text_id(question), *encode([question, answer]))
    return bonus


def raws(bonus, batch):
    return bonus.raw_parts(bonus.embed(batch), batch)


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-5, rtol=0)


def state_equal(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(state_equal(first[key], second[key]) for key in first)
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def random_rollout(seed, groups=3, size=8, dim=12, step=10):
    """Groups of random answers; every text has one fixed random vector."""
    generator = torch.Generator().manual_seed(seed)
    questions = [f"question {seed % 2} {group}" for group in range(groups) for _ in range(size)]
    answers = [f"answer {int(number)}" for number in torch.randint(50, (groups * size,), generator=generator)]
    correct = (torch.rand(groups * size, generator=generator) < 0.4).float().tolist()

    def vectors(texts):
        seeds = [int(text_id(text)[:8], 16) for text in texts]
        return torch.stack([torch.randn(dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    return rollout(answers, correct, questions, vectors, num_generations=size, step=step)


def take(batch, rows):
    picked = [batch.questions[row] for row in rows], [batch.completions[row] for row in rows]
    return Rollout(
        *picked, batch.correct[rows], batch.rewards[rows], batch.num_generations, 10, 20, encode=batch.encode
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


M8 = (["right", "up", "steep", "flat", "right"], [0, 1, 0, 1, 0])


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


@pytest.mark.parametrize("legacy", [False, True])
def test_score_is_pure(legacy):
    bonus = MemoryRPlus(legacy=legacy, max_questions=4, max_responses=2)
    for seed in range(3):
        bonus.update(random_rollout(seed))
    before = bonus.state_dict()
    first = bonus.score(random_rollout(7))
    assert state_equal(before, bonus.state_dict())
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


def test_a_non_finite_vector_reaches_the_guard_but_neither_memory_nor_window_nor_neighbours():
    bonus = memory_bonus(success=[("qA", "up")], failure=[("qA", "right")])
    batch = rollout(["nan", "left", "up"], [0, 0, 1])
    score = bonus.score(batch)
    assert score[0].isnan() and score[1:].isfinite().all()
    bonus.update(batch)
    assert all(window.history.isfinite().all() for window in bonus.windows.values())
    assert bonus.memories["failure"].responses([text_id("qA")]).isfinite().all()


def test_unnormalised_encoders_are_normalised():
    bonus = memory_bonus(success=[("qA", "right"), ("qA", "up")])
    batch = rollout(["steep"], [0], encoder=lambda texts: 7.0 * encode(texts).double())
    close(raws(bonus, batch)["exploit"], [-0.316228])


def test_memory_r_holds_no_failures_and_pays_no_explore():
    bonus = memory_bonus(MemoryR, success=[("qA", "up")])
    batch = rollout(["left", "up"], [0, 1])
    assert list(bonus.score_parts(batch)) == ["exploit"] == list(bonus.part_names)
    assert bonus.update(batch)["success_responses"] == 2.0 and list(bonus.memories) == ["success"]


def test_betas_weigh_the_parts():
    entries = {"success": [("qA", "up")], "failure": [("qA", "right")]}
    batch = rollout(["left", "up"], [0, 1])
    plain, weighed = memory_bonus(**entries), memory_bonus(**entries, beta_s=2.0, beta_e=0.5)
    assert torch.equal(weighed.score_parts(batch)["exploit"], 2.0 * plain.score_parts(batch)["exploit"])
    assert torch.equal(weighed.score_parts(batch)["explore"], 0.5 * plain.score_parts(batch)["explore"])
    assert torch.equal(weighed.score(batch), sum(weighed.score_parts(batch).values()))


def test_flags_reach_the_bonus_and_its_identity():
    flags = {"k": 3, "memory_questions": 7, "memory_responses": 5, "memory_window": 11, "memory_legacy": True}
    options = IntrinsicOptions(use_ir="memoryr+", **flags, encoder="policy", beta_e=0.3, explore_warmup=4)
    bonus = build_bonuses(options)[0]
    settings = {"betas": bonus.betas, "explore_warmup": bonus.explore_warmup, "encoder": "policy"}
    assert bonus.identity() == {"name": "knn+", **flags, **settings}
    assert bonus.betas == {"exploit": 1.0, "explore": 0.3} and bonus.explore_warmup == 4
    assert isinstance(build_bonuses(SimpleNamespace(**{**vars(options), "use_ir": "knn"}))[0], MemoryR)


@pytest.mark.parametrize(("flag", "value"), [("explore_warmup", -1.0), ("beta_s", math.nan), ("beta_e", math.inf)])
def test_bad_settings_are_user_errors(flag, value):
    with pytest.raises(UserError, match=f"--{flag}={value}"):
        MemoryRPlus(**{flag: value})


@pytest.mark.fault("X5")
def test_importing_the_bonus_imports_neither_faiss_nor_sentence_transformers():
    code = (
        "import sys, intrinsic.knn_memory, intrinsic.encoder\n"
        "sys.exit(any(name in sys.modules for name in ('faiss', 'sentence_transformers', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
