"""Bonuses go through one pipeline together, or are refused before anything runs.

One pair for each pair of kinds, and as many more as it takes for every bonus to stand in one; a kind is how a bonus
joins. All pairs that must be refused are.
"""

import math
from itertools import combinations, combinations_with_replacement, cycle

import pytest
import torch

from common.errors import UserError
from common.state import load_state, save_state
from intrinsic import REGISTRY, bonus_class, build_bonus, build_bonuses
from intrinsic.base import Bonus, WeightSchedule
from intrinsic.metrics import score_metrics, share_metrics
from intrinsic.options import IntrinsicOptions
from intrinsic.pipeline import BonusPipeline, reward_advantages
from tests.compare import assert_same_bits
from tests.toys import ANSWERS, CORRECT, QUESTIONS, TEXTS

GROUP = 4
WEIGHTS = (1.0, 0.5)
# Without a long warm-up, with networks of a size for tests, and with a partition that two right answers differ by.
SETTINGS = {
    "rarity_partition": "likelihood",
    "cfn_warmup": 1,
    "cfn_width": 16,
    "cfn_min_run": 1,
    "rnd_width": 16,
    "ppl_until": 0.9,
}


IN_REWARD = "reward:"  # before the name of a bonus: the level at which its paper pays it


def names_of(members):
    return [member.removeprefix(IN_REWARD) for member in members]


def levels_of(members):
    return ["reward" if member.startswith(IN_REWARD) else "advantage" for member in members]


def kind(member):
    """How a bonus of the registry joins: what may go wrong beside another depends on this."""
    (name,), (level,) = names_of([member]), levels_of([member])
    if name == "noise":
        return "as what it stands beside"
    bonus = build_bonus(name, IntrinsicOptions(), level)
    for flag in ("replaces", "multiplies", "centred"):
        if getattr(bonus, flag):
            return flag
    return bonus.placement


PAID_IN_REWARD = [name for name in sorted(REGISTRY) if bonus_class(name).placement == "reward"]
MEMBERS = sorted(REGISTRY) + [IN_REWARD + name for name in PAID_IN_REWARD]
KINDS = {found: [member for member in MEMBERS if kind(member) == found] for found in sorted(map(kind, MEMBERS))}


def must_be_refused(pair):
    """Two bonuses that replace the advantage, one beside a bonus that is part of what it replaces, or noise beside a
    bonus whose strength it cannot have."""
    kinds = [kind(member) for member in pair]
    strengthless = "noise" in pair and {"replaces", "multiplies", "token"} & set(kinds)
    return kinds.count("replaces") == 2 or bool(strengthless) or {"replaces", "reward"} <= set(kinds)


def pairs_of_kinds():
    """Pairs (member, member) that may be composed: see the head of this file."""
    turns = {found: cycle(members) for found, members in KINDS.items()}
    pairs = []
    for kinds in combinations_with_replacement(KINDS, 2):
        pair = tuple(next(turns[found]) for found in kinds)
        if len(set(names_of(pair))) == 2 and not must_be_refused(pair):
            pairs.append(pair)
    for member in MEMBERS:
        if not any(member in pair for pair in pairs):
            others = (other for other in MEMBERS if names_of([other]) != names_of([member]))
            pairs.append(next((member, other) for other in others if not must_be_refused((member, other))))
    return pairs


REPLACERS = [name for name in sorted(REGISTRY) if bonus_class(name).replaces]
PAIRS = pairs_of_kinds()
REFUSED = [pair for pair in combinations(MEMBERS, 2) if len(set(names_of(pair))) == 2 and must_be_refused(pair)]


def pipeline_of(members, weights=WEIGHTS, **settings):
    flags = {"use_ir": names_of(members), "ir_weight": map(str, weights), "ir_level": levels_of(members)}
    joined = {flag: ",".join(values) for flag, values in flags.items()}
    options = IntrinsicOptions(**joined, **SETTINGS, **settings)
    return BonusPipeline(build_bonuses(options), options.schedules())


@pytest.fixture
def make_batches(rollout_factory):
    """Two past batches to learn from and a present one to score; the same ones at every call."""

    def batch(suffix, step):
        texts = [text + suffix for text in TEXTS]
        return rollout_factory(texts, CORRECT, QUESTIONS, num_generations=GROUP, step=step, answers=list(ANSWERS))

    return lambda: (batch(" past", 9), batch(" recent", 10), batch("", 11))


@pytest.fixture
def batches(make_batches):
    return make_batches()


def advantages_of(pipeline, rollout):
    """What the trainer trains on: verdicts and reward columns normalised, the other bonuses joined afterwards."""
    scored = pipeline.score(rollout)
    columns = torch.stack([rollout.correct, *pipeline.reward_values(scored, GROUP)], dim=1)
    advantages = reward_advantages(columns, torch.ones(columns.size(1)), GROUP, "group")
    return advantages, pipeline.join(advantages, scored, rollout), scored


def learn(pipeline, rollouts):
    for rollout in rollouts:
        pipeline.score(rollout)
        metrics = pipeline.update(rollout)
    return metrics


def test_every_bonus_and_every_pair_of_kinds_that_may_be_is_among_the_pairs():
    assert {member for pair in PAIRS for member in pair} == set(MEMBERS)
    apart = [pair for pair in combinations(MEMBERS, 2) if len(set(names_of(pair))) == 2 and not must_be_refused(pair)]
    assert {frozenset(map(kind, pair)) for pair in PAIRS} == {frozenset(map(kind, pair)) for pair in apart}


@pytest.fixture(params=PAIRS, ids="+".join)
def pair(request):
    return request.param


def test_joined_advantages_are_finite_and_per_token_if_one_of_them_is(pair, batches):
    pipeline = pipeline_of(pair)
    learn(pipeline, batches[:2])
    _, joined, _ = advantages_of(pipeline, batches[2])
    per_token = "token" in {bonus.placement for bonus in pipeline.bonuses}
    assert joined.shape == (batches[2].completion_mask.shape if per_token else (len(TEXTS),))
    assert joined.isfinite().all()


@pytest.mark.parametrize("name", [name for name in sorted(REGISTRY) if name not in ("cfn", "noise")])
def test_one_value_per_token_joins_one_per_completion(name, batches):
    """In either order, whatever the other's placement; a value per completion counts for each of its tokens."""
    for names in (("cfn", name), (name, "cfn")):
        pipeline = pipeline_of(names, cfn_level="token")
        learn(pipeline, batches[:2])
        _, joined, _ = advantages_of(pipeline, batches[2])
        assert joined.shape == batches[2].completion_mask.shape and joined.isfinite().all()


def test_neither_sees_the_other(pair, make_batches):
    """Scores, state and figures of a bonus are those it has alone: nothing shared is read, moved or overwritten.

    Noise, which is as strong as what it stands beside, is not asked.
    """
    both, present = pipeline_of(pair), make_batches()
    figures = learn(both, present[:2])
    together = {item.bonus.name: item for item in both.score(present[2])}
    for member, name, weight in zip(pair, names_of(pair), WEIGHTS, strict=True):
        if name == "noise":
            continue
        alone, present = pipeline_of([member], [weight]), make_batches()
        assert learn(alone, present[:2]).items() <= figures.items()
        (item,) = alone.score(present[2])
        assert item.weight == together[name].weight == weight
        assert torch.equal(item.total, together[name].total)
        assert_same_bits(alone.state_dict()[name], both.state_dict()[name])


def test_columns_and_figures_of_both_are_logged_apart(pair, batches):
    pipeline = pipeline_of(pair)
    figures = learn(pipeline, batches[:2])
    advantages, joined, scored = advantages_of(pipeline, batches[2])
    figures |= score_metrics(scored, batches[2])
    for name in names_of(pair):
        figures |= share_metrics(name, advantages, joined, batches[2])
        assert math.isfinite(figures[f"ir/{name}/raw"]) and math.isfinite(figures[f"ir/{name}/share_of_advantage"])
    assert {key.split("/")[1] for key in figures} == set(names_of(pair))
    assert all(type(value) is float for value in figures.values())
    columns = pipeline.reward_columns
    assert len(set(columns)) == len(columns)
    assert {name for name, _ in columns} == {bonus.name for bonus in pipeline.bonuses if bonus.placement == "reward"}


def test_saved_and_loaded_pair_goes_on_alike(pair, batches, tmp_path):
    pipeline, fresh = pipeline_of(pair), pipeline_of(pair)
    learn(pipeline, batches[:1])
    save_state(pipeline.state_dict(), tmp_path, "state")
    fresh.load_state_dict(load_state(tmp_path, "state"))
    assert torch.equal(advantages_of(pipeline, batches[1])[1], advantages_of(fresh, batches[1])[1])
    assert learn(pipeline, batches[1:]) == learn(fresh, batches[1:])
    assert_same_bits(pipeline.state_dict(), fresh.state_dict())


def test_without_weight_both_leave_the_advantages_alone(pair, batches):
    pipeline = pipeline_of(pair, weights=(0.0, 0.0))
    learn(pipeline, batches[:2])
    _, joined, _ = advantages_of(pipeline, batches[2])
    plain = reward_advantages(batches[2].correct[:, None], torch.ones(1), GROUP, "group")
    assert torch.equal(joined, plain)


@pytest.mark.parametrize("pair", REFUSED, ids="+".join)
def test_pairs_that_throw_each_other_away_are_refused(pair):
    for order in (pair, pair[::-1]):
        with pytest.raises(UserError, match="replace|cannot be as strong"):
            pipeline_of(order)


class Replacer(Bonus):
    name = "replacer"
    placement = "advantage"
    replaces = True


def test_two_that_replace_the_advantage_are_refused(monkeypatch):
    for name in ("one", "other"):
        monkeypatch.setitem(REGISTRY, name, f"{__name__}:Replacer")
    with pytest.raises(UserError, match="--use_ir='one,other': .* both replace the advantage"):
        pipeline_of(("one", "other"))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_bonus_pays_something_in_these_batches(name, batches):
    """Else the tests of its pairs would say nothing: shorten its warm-up in `SETTINGS`."""
    pipeline = pipeline_of([name], [1.0])
    learn(pipeline, batches[:2])
    (item,) = pipeline.score(batches[2])
    assert item.total.abs().max() > 0


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_bonus_beside_itself_is_refused(name):
    with pytest.raises(UserError, match="twice"):
        pipeline_of((name, name))


@pytest.mark.parametrize("name", REPLACERS)
@pytest.mark.parametrize("weight", ["1.5", "-0.1", "0.5,2"])
def test_a_share_of_the_advantage_to_replace_is_from_0_to_1(name, weight):
    with pytest.raises(UserError, match=f"--ir_weight='{weight}': {name} replaces .* use 0 .plain GRPO. to 1"):
        build_bonuses(IntrinsicOptions(use_ir=f"knn+,{name}" if "," in weight else name, ir_weight=weight))
    made = build_bonuses(IntrinsicOptions(use_ir=name))
    with pytest.raises(UserError, match=f"{name} replaces the advantage, and its weight"):  # as from Python
        BonusPipeline(made, [WeightSchedule(float(weight.split(",")[-1]))])


@pytest.mark.parametrize("name", REPLACERS)
def test_one_that_replaces_comes_before_those_that_add(name):
    """Whatever the order in the flag, else it would throw away what was added."""
    for other in sorted(REGISTRY):
        if other == name or must_be_refused((name, other)):
            continue
        for order in ((name, other), (other, name)):
            assert [bonus.replaces for bonus in pipeline_of(order).bonuses] == [True, False]
