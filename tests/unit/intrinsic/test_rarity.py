"""Credit among right answers: weights and rules by their vectors, what an approach is, what is refused, the task."""

import copy
import statistics

import pytest
import torch

from common.errors import UserError
from intrinsic import build_bonuses
from intrinsic.base import WeightSchedule
from intrinsic.flags.rarity import APPROACH_TASKS, RarityFlags
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.approaches import bigram_distances, clusters, numbered
from intrinsic.pipeline import BonusPipeline, reward_advantages
from intrinsic.rarity import PARTITIONS, Rarity
from rewards.countdown import final_answer

RIGHT = [1, 1, 1, 0, 0, 0, 0, 0]
LOGPS = [-0.9, -0.2, -0.5, -0.3, -0.6, -1.2, -0.4, -0.8]
LABELS = ["a", "a", "b"] + [None] * 5


@pytest.fixture
def make(rollout_factory):
    def build(correct=RIGHT, approaches=LABELS, texts=None, num_generations=8, **fields):
        texts = texts or [f"text {row}" for row in range(len(correct))]
        return rollout_factory(
            texts, correct, num_generations=num_generations, approaches=list(approaches or []), **fields
        )

    return build


def plain(rollout):
    return reward_advantages(rollout.correct[:, None], torch.ones(1), rollout.num_generations, "group")


def joined(bonus, rollout, weight=1.0):
    pipeline = BonusPipeline([bonus], [WeightSchedule(weight)])
    return pipeline.join(plain(rollout), pipeline.score(rollout), rollout)


def near(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-6, rtol=0)


# ---- weights and rules


@pytest.mark.parametrize(
    ("alpha", "weights"),
    [(1.0, [0.75, 0.75, 1.5]), (0.8, [0.801903, 0.801903, 1.396194]), (0.0, [1.0, 1.0, 1.0])],
)
def test_weights_of_three_right_answers(make, alpha, weights):
    near(1 + Rarity(alpha=alpha).score(make()), weights + [1.0] * 5)


@pytest.mark.parametrize(("alpha", "weights"), [(1.0, (0.628205, 3.230769)), (0.8, (0.686748, 2.879510))])
def test_weights_are_clipped_then_brought_back_to_a_mean_of_one(make, alpha, weights):
    rollout = make([1] * 7 + [0], ["a"] * 6 + ["b", None])
    near(1 + Rarity(alpha=alpha).score(rollout), [weights[0]] * 6 + [weights[1], 1.0])


def test_redistributed_advantages_keep_their_sum_and_leave_wrong_answers_alone(make):
    rollout = make()
    near(joined(Rarity(alpha=1.0), rollout), [0.905536, 0.905536, 1.811072] + [-0.724429] * 5)
    assert torch.equal(joined(Rarity(alpha=1.0), rollout, weight=0.0), plain(rollout))
    for alpha in (0.5, 0.8, 3.0):
        assert joined(Rarity(alpha=alpha), rollout)[:3].sum().item() == pytest.approx(3 * 1.207381, abs=1e-5)


def test_large_groups_keep_their_sum_though_a_weight_exceeds_ir_clip(make):
    """The pipeline's clip is not for weights: one cut at 6 would take credit away from all right answers."""
    labels = ["a"] * 30 + ["b"] * 30 + ["c"] * 30 + ["d", None]
    rollout = make([1] * 91 + [0], labels, num_generations=92)
    scores = Rarity(alpha=2.0, low=0.01, high=50.0).score(rollout)
    assert scores.max() > 5.0
    moved = joined(Rarity(alpha=2.0, low=0.01, high=50.0), rollout)
    assert moved[:91].sum().item() == pytest.approx(plain(rollout)[:91].sum().item(), rel=1e-4)


def test_uarl_multiplies_every_advantage_whose_approach_is_known(make):
    near(joined(Rarity(rule="uarl", alpha=1.0), make())[:3], [0.603691, 0.603691, 1.207381])
    wrong = joined(Rarity(rule="uarl", alpha=1.0), make(approaches=["a", "a", "b", "c", "c", "c", "d", None]))
    near(wrong[3:], [-0.724429 / 3] * 3 + [-0.724429] * 2)


@pytest.mark.parametrize(
    ("rule", "advantages"),
    [
        ("darling", [0.661263, 0.661263, 1.983789] + [-0.661263] * 5),
        ("ips", [0.661416, 0.661416, 1.984248] + [-0.661416] * 5),
    ],
)
def test_rules_of_the_reward_before_normalisation(make, rule, advantages):
    rollout = make()
    pipeline = BonusPipeline([Rarity(rule=rule)], [WeightSchedule()])
    (column,) = pipeline.reward_values(pipeline.score(rollout), 8)
    near(reward_advantages(torch.stack([rollout.correct, column], 1), torch.ones(2), 8, "group"), advantages)
    reward = {"darling": [0.5, 0.5, 1.0], "ips": [4.0, 4.0, 8.0]}[rule]
    near((rollout.correct + column)[:3], reward)


def test_rules_of_the_reward_have_both_levels_and_the_others_one():
    for rule, level, placement in (("ips", "reward", "reward"), ("darling", "advantage", "advantage")):
        (bonus,) = build_bonuses(IntrinsicOptions(use_ir="rarity", rarity_rule=rule, ir_level=level))
        assert (bonus.placement, bonus.centred) == (placement, placement == "advantage")
    with pytest.raises(UserError, match="rarity joins after the group normalisation"):
        build_bonuses(IntrinsicOptions(use_ir="rarity", rarity_rule="uarl", ir_level="reward"))


@pytest.mark.parametrize(
    ("level", "weight", "advantages"),
    [
        ("reward", "", [-0.05, 7.84, -0.25]),
        ("advantage", "1", [-0.78, 61.62, -1.32]),
        ("advantage", "0.015625", [0.72, 1.69, -1.32]),
    ],
)
def test_a_rare_right_answer_by_ips_is_brought_back_to_size_in_the_reward_alone(make, level, weight, advantages):
    """Of 64 answers 40 are right in one way and one in another."""
    rollout = make([1] * 41 + [0] * 23, ["a"] * 40 + ["b"] + [None] * 23, num_generations=64)
    options = IntrinsicOptions(use_ir="rarity", rarity_rule="ips", ir_level=level, ir_weight=weight)
    pipeline = BonusPipeline(build_bonuses(options), options.schedules())
    scored = pipeline.score(rollout)
    columns = torch.stack([rollout.correct, *pipeline.reward_values(scored, 64)], dim=1)
    before = reward_advantages(columns, torch.ones(columns.size(1)), 64, "group")
    found = pipeline.join(before, scored, rollout)[[0, 40, 63]]
    torch.testing.assert_close(found, torch.tensor(advantages), atol=0.005, rtol=0)


@pytest.mark.parametrize("names", ["rarity", "shuffle:rarity", "rarity,noise"])
def test_ips_after_the_normalisation_has_no_default_weight(names):
    with pytest.raises(UserError, match="--rarity_rule=ips at --ir_level advantage.*use --ir_level reward"):
        IntrinsicOptions(use_ir=names, rarity_rule="ips")
    IntrinsicOptions(use_ir=names, rarity_rule="ips", ir_weight="0.1")
    IntrinsicOptions(use_ir=names, rarity_rule="ips", ir_level="reward")
    IntrinsicOptions(use_ir="knn", rarity_rule="ips")


def test_darling_leaves_a_lone_right_answer_its_reward_and_twins_a_tenth(make):
    assert not Rarity(rule="darling").score(make([1] + [0] * 7)).any()
    near(Rarity(rule="darling").score(make([1, 1] + [0] * 6))[:2], [-0.9, -0.9])


@pytest.mark.parametrize(
    ("tau", "weights"), [(0.2, [1.076893, 0.937501, 0.985607]), (1.0, [1.384463, 0.687504, 0.928033])]
)
def test_likelihood_weights(make, tau, weights):
    rollout = make()
    rollout.features["logps"] = torch.tensor(LOGPS)[:, None] * rollout.completion_mask
    bonus = Rarity("likelihood", tau=tau)
    assert bonus.needs == {"logps"}
    near(1 + bonus.score(rollout), weights + [1.0] * 5)
    rollout.features["logps"][1] = torch.nan
    assert bonus.score(rollout).isnan().tolist() == [False, True] + [False] * 6


@pytest.mark.parametrize(
    "correct, labels",
    [
        ([1] * 8, ["a"] * 7 + ["b"]),  # all right: no advantage to move
        ([0] * 8, ["a"] * 7 + ["b"]),
        ([1] + [0] * 7, ["a"] * 8),  # one right answer
        (RIGHT, ["a"] * 8),  # one approach
        (RIGHT, ["a", "b", "c"] + [None] * 5),  # all different
        (RIGHT, [None] * 8),  # none is known
        (RIGHT, []),
    ],
)
def test_nothing_to_move_gives_zeros(make, correct, labels):
    assert not Rarity().score(make(correct, labels)).any()


def test_a_right_answer_of_unknown_approach_keeps_its_advantage(make):
    scores = Rarity(alpha=1.0).score(make([1, 1, 1, 1, 0, 0, 0, 0], ["a", "a", None, "b"] + [None] * 4))
    near(scores, [-0.25, -0.25, 0.0, 0.5] + [0.0] * 4)


def test_only_positive_advantages_are_multiplied_and_tokens_follow_their_completion(make):
    bonus, scores = Rarity(), torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    near(bonus.combine(torch.tensor([[1.0, -1.0], [2.0, 0.0]]), scores, None), [[1.5, -1.0], [3.0, 0.0]])


# ---- partitions


def test_countdown_approaches_are_expressions_up_to_order_and_grouping(make):
    groups = [
        ["3+4*5", "5*4+3", "(4*5)+3"],
        ["8-(5-2)", "8-5+2", "2+8-5"],
        ["6/3*2", "6*2/3", "6/(3/2)"],
        ["4*(5+3)", "(3+5)*4"],
    ]
    for texts in groups:
        assert len({final_answer(f"<answer>{text}</answer>", 1) for text in texts}) == 1
    forms = [final_answer(f"<answer>{texts[0]}</answer>", 1) for texts in groups]
    assert len(set(forms)) == len(groups)
    rollout = make(approaches=[forms[0], forms[0], forms[1]] + [None] * 5)
    assert Rarity().labels(rollout).tolist() == [[0, 0, 1] + [-1] * 5]


def test_answers_and_texts_can_name_approaches(make):
    words = "one two three four five six seven eight nine ten eleven"
    near_twin = words.replace("eleven", "twelve")
    texts = [f"<think>{words}</think>", f"<think>{near_twin}</think>", "<think>nothing alike</think>", *"abcde"]
    rollout = make(approaches=[], answers=["7", "8", "7", *"abcde"], texts=texts)
    assert Rarity("answer").labels(rollout).tolist() == [[0, 1, 0] + [-1] * 5]
    assert Rarity("bigram").labels(rollout).tolist() == [[0, 0, 1] + [-1] * 5]
    assert Rarity("bigram", threshold=0.1).labels(rollout).tolist() == [[0, 1, 2] + [-1] * 5]
    # 9 common word pairs of 11
    assert bigram_distances([words, near_twin])[0, 1] == pytest.approx(1 - 9 / 11)
    assert bigram_distances(["", "one", "one", "two"]).tolist()[1] == [1.0, 0.0, 0.0, 1.0]


def test_embeddings_within_the_threshold_are_one_approach(make):
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]]), dim=1)  # 1 - cos: .106
    rollout = make(approaches=[], encode=lambda texts: vectors[: len(texts)])
    assert Rarity("embedding").needs == {"text_embedding"}
    assert Rarity("embedding").labels(rollout).tolist() == [[0, 0, 1] + [-1] * 5]
    assert Rarity("embedding", threshold=0.1).labels(rollout).tolist() == [[0, 1, 2] + [-1] * 5]
    with pytest.raises(ValueError, match="no text encoder"):
        Rarity("embedding").labels(make(encode=None))


def test_average_linkage_merges_by_mean_distance():
    """0 and 1 are one; 2 is .3 from 1, .6 from 0, so .45 from both on average."""
    distances = torch.tensor([[0.0, 0.1, 0.6], [0.1, 0.0, 0.3], [0.6, 0.3, 0.0]]).double().numpy()
    assert [clusters(distances, limit) for limit in (0.05, 0.4, 0.46)] == [[0, 1, 2], [0, 0, 1], [0, 0, 0]]
    assert clusters(distances[:1, :1], 0.4) == [0] and clusters(distances[:0, :0], 0.4) == []
    assert numbered(["b", None, "a", "b"]) == [0, -1, 1, 0]


def test_random_keeps_sizes_and_cuts_the_tie_between_label_and_text(make):
    labels = ["a"] * 4 + ["b", "c", None, None]
    rollout = make([1] * 6 + [0] * 2, labels, step=3)
    exact = Rarity("exact").labels(rollout)
    drawn = []
    for seed in range(12):
        found = Rarity("random", seed=seed).labels(rollout)
        assert found[0, :6].bincount().tolist() == exact[0, :6].bincount().tolist() == [4, 1, 1]
        assert torch.equal(found, Rarity("random", seed=seed).labels(rollout))
        drawn.append(tuple(found[0].tolist()))
    assert len(set(drawn)) > 4
    later = [Rarity("random").labels(make([1] * 6 + [0] * 2, labels, step=step))[0].tolist() for step in range(12)]
    assert len(set(map(tuple, later))) > 4, "new permutations at each step"


def test_random_permutes_wrong_answers_apart_under_uarl(make):
    rollout = make(approaches=["a", "a", "b", "c", "c", "d", "e", "f"])
    found = Rarity("random", rule="uarl").labels(rollout)[0]
    assert found[:3].sort().values.tolist() == [0, 0, 1]
    assert found[3:].sort().values.tolist() == [2, 2, 3, 4, 5]


@pytest.mark.parametrize("partition", PARTITIONS)
def test_groups_are_judged_apart_in_any_order_and_nothing_is_kept(make, partition):
    """The contract on a batch that has something to move, which that of the contract test has not."""
    correct, labels = [1, 1, 1, 0] + [1, 1, 1, 0], ["a", "a", "b", None, "c", "d", "d", None]
    texts = ["one two three", "one two three", "four five", "x", "six seven", "eight nine", "eight nine", "y"]
    fields = {"texts": texts, "questions": ["first"] * 4 + ["second"] * 4, "answers": [*labels]}
    rollout = make(correct, labels, num_generations=4, **fields)
    bonus = Rarity(partition, tau=1.0)
    scores = bonus.score(rollout)
    assert scores.any() and scores.dtype == torch.float32 and bonus.state_dict() == {}
    bonus.update(rollout)
    assert torch.equal(bonus.score(rollout), scores)
    order = [4, 5, 6, 7, 0, 1, 2, 3]
    turned = copy.copy(rollout)
    for name in ("questions", "completions", "answers", "approaches"):
        setattr(turned, name, [getattr(rollout, name)[row] for row in order])
    turned.features = {name: values[order] for name, values in rollout.features.items()}
    turned.completion_mask = rollout.completion_mask[order]
    torch.testing.assert_close(bonus.score(turned), scores[order])


def test_agreement_with_the_exact_partition_is_logged(make):
    rollout = make([1, 1, 1, 1, 0, 0, 0, 0], ["a", "a", "b", "b"] + [None] * 4, answers=["1", "1", "1", "2", *"3456"])
    # pairs: 01 same/same, 02 03 12 13 differ, 23 same; by answers 01 02 12 same, 03 13 23 differ
    assert Rarity("answer").update(rollout) == {
        "approaches": 2.0,
        "alike": pytest.approx(2 / 6),
        "clusters": 2.0,
        "split": 1.0,
        "agreement": pytest.approx(3 / 6),
    }
    assert Rarity("likelihood").update(rollout) == {"approaches": 2.0, "alike": pytest.approx(2 / 6)}
    assert Rarity("exact").update(make([1] + [0] * 7)) == {}


def test_the_credit_moved_is_correlated_with_what_the_exact_partition_would_move(make):
    """Over right answers with an approach: exact, the last of four and the first of three are rare; by answers, the
    first of four, and in the third group the last, whose first has no approach."""
    approaches = ["a", "a", "a", "b", None, "c", "d", "d", None, None, None, "e", "e", None, None]
    answers = ["1", *"2222", *"33344", *"55666"]
    rollout = make([1, 1, 1, 1, 0] + [1, 1, 1, 0, 0] * 2, approaches, answers=answers, num_generations=5)
    answer, exact = Rarity("answer"), Rarity("exact")
    (x, y, _), (u, v) = exact.score(rollout)[[0, 3, 4]].tolist(), exact.score(rollout)[[5, 6]].tolist()
    ours, theirs = [y, x, x, x, 0, 0, 0, v, u], [x, x, x, y, u, v, v, 0, 0]
    expected = statistics.correlation(ours, theirs)
    assert x < 0 < y and v < 0 < u and answer.update(rollout)["correlation"] == pytest.approx(expected, rel=1e-5)
    assert exact.update(rollout)["correlation"] == pytest.approx(1.0)
    moves_nothing = make([1, 1, 1, 0] * 2, ["a", "a", "b", None] * 2, answers=["1"] * 8, num_generations=4)
    assert "correlation" not in answer.update(moves_nothing)


# ---- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partition": "judge"}, "--rarity_partition='judge' is unknown; use one of exact"),
        ({"rule": "dra"}, "--rarity_rule='dra' is unknown"),
        ({"partition": "likelihood", "rule": "uarl"}, "--rarity_rule=uarl needs clusters"),
        ({"alpha": -1.0}, "--rarity_alpha=-1.0"),
        ({"alpha": float("nan")}, "--rarity_alpha=nan"),
        ({"tau": 1.5}, "--rarity_tau=1.5"),
        ({"low": 0.0}, "--rarity_clip_low=0.0"),
        ({"high": 0.9}, "--rarity_clip_high=0.9"),
        ({"threshold": -0.1}, "--rarity_threshold=-0.1"),
        ({"seed": -1}, "--rarity_seed=-1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Rarity(**settings)


def test_groups_too_small_to_move_anything_are_refused():
    for partition, least in (("exact", 4), ("likelihood", 3)):
        Rarity(partition).check(least, 64)
        with pytest.raises(UserError, match=f"--num_generations={least - 1}: .*use at least {least}"):
            Rarity(partition).check(least - 1, 64)
    Rarity(rule="uarl").check(2, 64)


@pytest.mark.parametrize("partition", ["exact", "random"])
@pytest.mark.parametrize("names", ["rarity", "sc,shuffle:rarity", "noise,rarity"])
def test_a_task_without_a_normal_form_is_refused_by_name(partition, names):
    options = IntrinsicOptions(use_ir=names, rarity_partition=partition)
    for task in ("gsm8k", "math"):
        with pytest.raises(UserError, match=f"={partition} .*which {task} does not have .countdown and igsm do"):
            options.check_task(task)
    for task in APPROACH_TASKS:
        options.check_task(task)
    IntrinsicOptions(use_ir=names, rarity_partition="bigram").check_task("gsm8k")
    IntrinsicOptions(use_ir="knn", rarity_partition=partition).check_task("gsm8k")


def test_answers_part_nothing_where_one_answer_is_right():
    for task in ("gsm8k", "igsm", "code", "sql", "choice"):
        with pytest.raises(UserError, match=f"=answer: all right answers to a problem of {task} are one answer"):
            IntrinsicOptions(use_ir="rarity", rarity_partition="answer").check_task(task)
    IntrinsicOptions(use_ir="rarity", rarity_partition="answer").check_task("countdown")
    # Here wrong answers are parted too.
    IntrinsicOptions(use_ir="rarity", rarity_partition="answer", rarity_rule="uarl").check_task("gsm8k")


def test_no_weight_turns_an_advantage_round():
    advantages, scores = torch.tensor([2.0, 2.0, -1.0]), torch.tensor([-1.4, 0.5, -1.4])
    near(Rarity().combine(advantages, scores, None), [0.0, 3.0, -1.0])
    near(Rarity(rule="uarl").combine(advantages, scores, None), [0.0, 3.0, 0.0])


def test_flags_arrive():
    flags = RarityFlags("bigram", "uarl", 0.5, 0.1, 0.2, 2.0, 0.3, 7)
    names = ("partition", "rule", "alpha", "tau", "clip_low", "clip_high", "threshold", "seed")
    values = ("bigram", "uarl", 0.5, 0.1, 0.2, 2.0, 0.3, 7)
    identity = Rarity.from_options(flags).identity()
    assert identity == {"name": "rarity"} | {f"rarity_{name}": value for name, value in zip(names, values, strict=True)}
    assert Rarity.from_options(RarityFlags()).identity() == Rarity().identity()
    assert Rarity("bigram").threshold == 0.4 and Rarity("embedding").threshold == 0.15


@pytest.mark.parametrize("names", ["shuffle:rarity", "rarity,noise"])
def test_controls_are_not_clipped_either(make, names):
    """They are to be as strong as what they control."""
    options = IntrinsicOptions(use_ir=names, rarity_alpha=4.0, rarity_clip_low=0.01, rarity_clip_high=50.0)
    pipeline = BonusPipeline(build_bonuses(options), options.schedules(), clip=0.1)
    rollout = make([1] * 21 + [0], ["a"] * 10 + ["b"] * 10 + ["c", None], num_generations=22)
    for item in pipeline.score(rollout):
        assert item.total.max() > 2.0 and abs(item.total.sum()) < 1e-3
