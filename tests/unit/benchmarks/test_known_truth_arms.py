"""Experiments on the known-truth world: its priors and exact measures, resumable arms, reports that keep the plan."""

import copy

import numpy as np
import pytest
import torch

from benchmarks import edge_of_competence, known_truth_arms, metric_or_mechanism, sc_collapse
from benchmarks.known_truth import Options, Trial, fresh_pipeline
from benchmarks.known_truth_arms import Arm, ArmOptions, ArmTrial, empty_cells, read_arms, right_above_wrong, run_arms
from benchmarks.known_truth_env import Policy, World, find_problems, right_forms
from benchmarks.metric_or_mechanism import EXACT, IDENTICAL, PRIMARY, PROXIES, RANDOM, PartitionTrial
from benchmarks.sc_collapse import DECOYS, CertaintyTrial, collapse_step, correlations
from common.errors import UserError
from tests.processes import ROOT


@pytest.fixture(scope="module")
def world():
    return World(2, two_forms=True, rare=0.02, decoy=0.3)


@pytest.fixture(scope="module")
def policy():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Policy(2)


def trial(kind, world, policy, arm, **settings):
    options, intrinsic = Options(bonuses="no", problems=2, **{"steps": 4} | settings), arm.intrinsic
    encode = lambda texts: torch.eye(9)[[len(text) % 9 for text in texts]]  # noqa: E731
    return kind(world, policy, fresh_pipeline(intrinsic), options, 0, encode, sc_alone=intrinsic.sc_alone)


def test_problems_of_two_forms_have_strategies_that_the_normal_form_tells_apart(world):
    assert all(len(right_forms(problem)) == 2 for problem in find_problems(8, two_forms=True))
    assert any(len(right_forms(problem)) == 1 for problem in find_problems(8)), "there the exact partition is blind"
    for row in range(2):
        ways = [set(places.tolist()) for places in world.approaches[row]]
        assert set.union(*ways) == set(world.right[row].nonzero().flatten().tolist())
        assert set(world.rare[row].nonzero().flatten().tolist()) in ways


def test_the_decoy_is_one_wrong_answer_and_gets_its_mass(world):
    torch.testing.assert_close(world.prior.sum(dim=1), torch.ones(2))
    assert not (world.decoy & world.right).any() and (world.decoy <= world.numbers_once).all()
    for row in range(2):
        assert len({world.answers[row][place] for place in world.decoy[row].nonzero().flatten().tolist()}) == 1
        assert 0.3 <= (world.prior * world.decoy).sum(dim=1)[row] < 0.33
    torch.testing.assert_close((world.prior * world.rare).sum(dim=1), torch.full((2,), 0.02))
    assert world.prior[world.decoy].min() > world.prior[world.numbers_once.expand(2, -1) & ~world.right].median()


def test_exact_coverage_is_the_sum_over_approaches(world, policy):
    measured = trial(ArmTrial, world, policy, Arm("no", "no")).measure(0)
    probability = policy.distribution(2).double().exp().detach()
    masses = [(probability * chosen).sum(dim=1) for chosen in (world.common, world.rare)]
    expected = sum((1 - (1 - mass) ** 8).mean().item() for mass in masses)
    assert measured["coverage@8"] == pytest.approx(expected)
    assert measured["common"] == pytest.approx(masses[0].mean().item())


def test_certainties_of_all_texts_are_those_of_the_rollout(world, policy):
    run = trial(CertaintyTrial, world, policy, Arm("sc", "sc", {"sc_alone": True}))
    found = run.train_step(0).rollout
    places = [world.all.index(tuple(row)) for row in (found.completion_ids - 1).tolist()]
    values = known_truth_arms.text_certainties(policy, 2)
    for name, seen in (("sc", found.features["self_certainty"]), ("certain", -found.features["entropy"])):
        chosen = values[name][run.problems, places].float().detach()
        torch.testing.assert_close(chosen, seen.mean(dim=1), atol=1e-5, rtol=1e-4)


def test_a_vote_is_worth_the_probability_of_its_answer(world, policy):
    run = trial(CertaintyTrial, world, policy, Arm("majority", "majority", {"sc_alone": True}))
    probability = policy.distribution(2).double().exp().detach()
    masses = run._answer_masses(probability)
    answers = world.answers[1]
    place = int(world.decoy[1].nonzero()[0])
    same = torch.tensor([answer == answers[place] for answer in answers])
    assert same.sum() > 1
    torch.testing.assert_close(masses[1][same], probability[1][same].sum().expand(int(same.sum())))
    assert (masses[1][torch.tensor([answer is None for answer in answers])] == 0).all()


def test_agreement_is_the_chance_that_a_right_text_is_paid_more():
    values, mass = torch.tensor([[3.0, 1.0, 3.0, 2.0]]).double(), torch.tensor([[0.1, 0.3, 0.2, 0.4]]).double()
    right = torch.tensor([[True, True, False, False]])
    # The first right text (1/4) ties with 1/3 of the wrong mass and beats 2/3; the other (3/4) beats nothing.
    assert right_above_wrong(values, mass, right) == pytest.approx(0.25 * (2 / 3 + 0.5 / 3))
    assert right_above_wrong(torch.zeros(1, 4).double(), mass, right) == 0.5


def test_alone_no_verdict_trains(world, policy):
    """Other verdicts change nothing where rewards weigh 0, and something where they do not."""
    other = copy.copy(world)
    other.right = torch.arange(world.right.size(1)).expand_as(world.right) % 2 == 0
    for alone, is_same in ((True, True), (False, False)):
        arm = Arm("certain", "certain", {"sc_alone": alone})
        runs = [trial(Trial, kind, policy, arm) for kind in (world, other)]
        for run in runs:
            run.train_step(0)
        assert torch.equal(*(run.policy.distribution(2) for run in runs)) is is_same


def test_partitions_are_held_against_the_exact_one(world, policy):
    with torch.no_grad():
        sure = Policy(2)
        sure.load_state_dict(policy.state_dict())
    sequences = torch.stack([world.sequences[ways[place][0]] for ways in world.approaches for place in (0, 0, 0, 1)])
    wrong = world.sequences[:1].expand(8, -1)
    batch = torch.cat([sequences[:4], wrong[:4], sequences[4:], wrong[4:]])
    for name, agrees in (("exact", True), ("answer", True), ("random", False)):
        arm = next(arm for arm in metric_or_mechanism.ARMS if arm.label == f"rarity {name}")
        run = trial(PartitionTrial, world, sure, arm)
        run.policy.sample = lambda problems, generator: batch
        for step in range(4):
            run.train_step(step)
        measured = run.measure(4)
        assert (measured["agreement"] == 1.0) is agrees and measured["alike"] == 0.5
        assert (measured["correlation"] > 0.999) is agrees
    assert "correlation" not in trial(PartitionTrial, world, sure, Arm("no", "no")).measure(0)


def test_arms_are_run_once_and_empty_cells_are_named(world, policy, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(known_truth_arms, "Options", lambda **given: Options(problems=2, steps=1, **given))
    monkeypatch.setattr(known_truth_arms, "World", lambda count, **given: world)
    monkeypatch.setattr(
        known_truth_arms, "fitted_policy", lambda world, seed, steps: seen.append((seed, steps)) or policy
    )
    arms = [Arm("no", "no"), Arm("maxrl", "maxrl"), Arm("no there", "no", world={"two_forms": True})]
    run_arms(arms[:2], [0], tmp_path)
    assert seen == [(0, 400)], "one policy for the arms of a world"
    records = run_arms(arms, [0, 1], tmp_path)
    assert seen == [(0, 400), (0, 400), (1, 400), (1, 400)], "two worlds; the finished arms of seed 0 are not run again"
    longer = Arm("no", "no", fit_steps=500)
    run_arms([longer], [0], tmp_path / "longer")
    assert seen[4:] == [(0, 500)]
    with pytest.raises(UserError, match="fit_steps"):
        run_arms([longer], [0], tmp_path)
    curves, _ = read_arms(records)
    assert [sorted(curves[arm.label]) for arm in arms] == [[0, 1]] * 3 and curves["no"][0][-1]["step"] == 1
    assert empty_cells(arms, curves, 3) == ["no: 1 of 3", "maxrl: 1 of 3", "no there: 1 of 3"]
    assert empty_cells(arms, curves, 2) == []
    assert list(ArmOptions(seeds=2).to_run) == [0, 1] and not ArmOptions(report_only=True).to_run


def contrast(difference, p=0.001, half=0.01):
    return {"difference": difference, "half": half, "p_holm": p}


@pytest.mark.parametrize(
    ("exact", "others", "names"),
    [
        (contrast(0.2), {RANDOM: -0.2, PROXIES[0]: -0.2}, ["the metric matters"]),
        (contrast(0.2), {RANDOM: -0.2, PROXIES[0]: 0.0}, ["the metric matters", "proxies suffice"]),
        (contrast(0.2), {RANDOM: 0.0, PROXIES[0]: -0.2}, ["not by what it knows"]),
        (contrast(0.01, p=0.5), {RANDOM: 0.0}, ["the mechanism fails"]),
        (contrast(0.1, p=0.5, half=0.2), {RANDOM: 0.0}, ["undecided"]),
    ],
)
def test_the_plan_names_what_came_out(exact, others, names):
    against_exact = {name: contrast(-0.2) for name in PROXIES}
    against_exact |= {name: contrast(value, p=0.001 if value else 1.0) for name, value in others.items()}
    against_no = {EXACT: exact} | {name: contrast(0.2) for name in PROXIES}
    assert metric_or_mechanism.called(against_no, against_exact, 0.05) == names
    assert metric_or_mechanism.called(against_no, against_exact, 0.001) != ["the mechanism fails"]


def point(step, **values):
    columns = dict.fromkeys(("rare@64", "coverage@8", "pass@1"), 0.2) | {"common": 0.2, "rare": 0.02}
    paid = {f"{kind}/{name}": 0.5 for kind in ("paid", "agreement") for name in ("sc", "majority", "certain")}
    return columns | paid | {"step": step} | values


def test_reports_are_made_of_what_is_there_and_leave_seeds_out_by_their_start(tmp_path):
    labels = [arm.label for arm in metric_or_mechanism.ARMS]
    gains = dict(zip(labels, np.linspace(0, 0.4, len(labels)), strict=True))
    gains[IDENTICAL] = gains[EXACT]
    curves = {
        name: {
            seed: [
                point(0),
                point(4, agreement=gain, correlation=gain, **{PRIMARY: 0.1 + gain + 0.01 * seed * (1 + gain)}),
            ]
            for seed in range(3)
        }
        for name, gain in gains.items()
    }
    for runs in curves.values():
        runs[3] = [point(0, rare=0.5), point(4, **{PRIMARY: 9.0})]
    text = metric_or_mechanism.report(curves, ["c0ffee"], seeds=4)
    assert "gave the same numbers" in text and "fitted policy: 3" in text and "By the plan's rules" in text
    assert "| `rarity exact` | +0.05" in text and "| rare@64 minus `rarity exact` | difference | p | Holm |" in text
    metric_or_mechanism.plot(curves, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert "Rank correlation of rare@64 minus `no`: +1.00 with agreement (6 partitions)" in text
    alone = metric_or_mechanism.report({"no": curves["no"]}, ["c0ffee"], seeds=4)
    assert "minus `no`" not in alone and "no: " not in alone
    del curves["maxrl"]
    text = metric_or_mechanism.report(curves, ["c0ffee"], seeds=4)
    assert "maxrl: 4 of 4. Without them" in text and "By the plan's rules" not in text


def test_collapse_is_a_fall_while_the_reward_rises():
    rises, falls = {"paid/sc": 0.9}, {"paid/sc": 0.1}
    fall = [point(0), point(2, **{"pass@1": 0.4}), point(4, **{"pass@1": 0.3} | rises)]
    assert collapse_step(fall, "sc") == 4
    assert collapse_step([*fall[:2], point(4, **{"pass@1": 0.3} | falls)], "sc") is None
    assert collapse_step([*fall[:2], point(4, **{"pass@1": 0.36} | rises)], "sc") is None


def test_the_step_of_collapse_is_ranked_against_agreement(tmp_path):
    """Agreement falls with the decoy and so does the step; at decoy 0 nothing collapses."""
    curves = {arm.label: {} for arm in sc_collapse.ARMS}
    for seed in range(10):
        for place, decoy in enumerate(DECOYS):
            for name in ("no", *sc_collapse.REWARDS):
                start = {f"agreement/{reward}": 1 - 0.2 * place for reward in sc_collapse.REWARDS}
                at = 10 - 2 * place if place and name == "sc" else None
                steps = [
                    point(s, **{"pass@1": 0.1 if at and s >= at else 0.2, "paid/sc": 0.5 + s}) for s in (2, 4, 6, 8)
                ]
                curves[f"{name} {decoy:g}"][seed] = [point(0, **start), *steps]
    assert correlations(curves, "sc") == pytest.approx([1.0] * 10) and correlations(curves, "certain") == [0.0] * 10
    text = sc_collapse.report(curves, ["c0ffee"], seeds=10)
    assert "**agreement sets the step**, **the mode decides, not the mean**." in text
    assert "| `sc` | 0.4 | 10 | 0.600 | 10 | 6 |" in text and "| `sc` | 0 | 10 | 1.000 | 0 | none |" in text
    sc_collapse.plot(curves, tmp_path / "figure.png")
    del curves["sc 0.7"][9]
    assert "sc 0.7: 1 of 10" in sc_collapse.report(curves, ["c0ffee"], seeds=10)


@pytest.mark.parametrize("experiment", [metric_or_mechanism, sc_collapse, edge_of_competence])
def test_the_committed_report_is_that_of_the_committed_records(experiment):
    folder = ROOT / experiment.FOLDER.replace("outputs", "benchmarks/results")
    arms = [*experiment.ARMS, *getattr(experiment, "AFTERWARDS", [])]
    curves, commits = read_arms(run_arms(arms, [], folder))
    assert not empty_cells(experiment.ARMS, curves, 10), "the cells that the page calls complete"
    assert experiment.report(curves, commits, 10) == folder.with_suffix(".md").read_text(encoding="utf-8")
