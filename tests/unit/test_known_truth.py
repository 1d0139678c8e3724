"""The world of the known-truth benchmark: its verdicts, its exact measures, and that its table counts what it says."""

import json

import numpy as np
import pytest
import torch

from benchmarks import known_truth, known_truth_report
from benchmarks.known_truth import SETTINGS, CachedEncoder, Options, Trial, pipeline_of
from benchmarks.known_truth_env import (
    TOKENS,
    Policy,
    World,
    completion_text,
    find_problems,
    fitted_policy,
    is_expression,
    strategies,
)
from benchmarks.known_truth_report import COLUMNS, PANELS, final, interval, plot, table
from intrinsic import REGISTRY
from training.errors import UserError
from training.options import IntrinsicOptions
from training.rollout import Rollout


@pytest.fixture(scope="module")
def world():
    return World(2)


@pytest.fixture(scope="module")
def policy(world):
    return fitted_policy(world, seed=0, steps=60)


def trial(world, policy, name="no", seed=0, **settings):
    options = Options(problems=2, **{"steps": 5, "seeds": 2, "bonuses": name} | settings)
    intrinsic = IntrinsicOptions(**SETTINGS)
    return Trial(world, policy, pipeline_of(name, intrinsic), options, seed, CachedEncoder(intrinsic.encoder))


def test_every_problem_has_exactly_two_strategies():
    problems = find_problems(8)
    assert len({problem.question for problem in problems}) == 8
    for problem in problems:
        assert strategies(problem.numbers, problem.target) == {problem.common, problem.rare}


def test_texts_say_what_their_tokens_stand_for():
    assert (
        completion_text((0, 3, 1, 5, 2), (2, 3, 4)) == "<think>\n2+3=5\n(2+3)*4=20\n</think>\n<answer>(2+3)*4</answer>"
    )
    assert "(2-2)" in completion_text((0, 4, 0, 6, 1), (2, 3, 4))
    assert "undefined" in completion_text((0, 6, 1, 6, 2), (2, 0, 4))
    broken = (3, 3, 0, 1, 2)
    assert not is_expression(broken) and "<answer>" not in completion_text(broken, (2, 3, 4))


def test_verdicts_are_the_graders_and_strategies_split_them(world):
    assert torch.equal(world.right, world.common | world.rare) and not (world.common & world.rare).any()
    assert world.common.any(dim=1).all() and world.rare.any(dim=1).all()
    for row, problem in enumerate(world.problems):
        for place in world.right[row].nonzero().flatten().tolist():
            a, first, b, second, c = (TOKENS[token] for token in world.all[place])
            assert {a, b, c} == {"first", "second", "third"} and first + second in (problem.common, problem.rare)
    assert (world.right <= world.numbers_once).all()


def test_prior_is_a_distribution_with_the_stated_shares(world):
    torch.testing.assert_close(world.prior.sum(dim=1), torch.ones(2))
    torch.testing.assert_close((world.prior * world.common).sum(dim=1), torch.full((2,), 0.2))
    torch.testing.assert_close((world.prior * world.rare).sum(dim=1), torch.full((2,), 0.005))


def test_enumerated_distribution_is_that_of_the_forward_pass_and_of_sampling(world):
    policy = Policy(2)
    with torch.no_grad():
        logps = policy.distribution(2)
        problems, places = torch.tensor([0, 1, 1]), torch.tensor([0, 777, 16_000])
        _, distribution = policy(problems, world.sequences[places])
        direct = distribution.gather(2, world.sequences[places][..., None]).sum(dim=(1, 2))
    torch.testing.assert_close(logps[problems, places], direct)
    torch.testing.assert_close(logps.exp().sum(dim=1), torch.ones(2))
    samples = policy.sample(torch.zeros(4000, dtype=torch.long), torch.Generator().manual_seed(0))
    first = torch.bincount(samples[:, 0], minlength=7) / 4000
    expected = logps.exp().view(2, 7, -1).sum(dim=2)[0]
    assert (first - expected).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_a_fitted_policy_comes_near_the_prior(world, policy):
    probability = policy.distribution(2).exp().detach()
    assert ((probability * world.common).sum(dim=1) - 0.2).abs().max() < 0.1
    again = fitted_policy(world, seed=0, steps=60)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), again.parameters(), strict=True))


def test_measures_follow_from_the_distribution(world, policy):
    measured = trial(world, policy).measure(0)
    probability = policy.distribution(2).double().exp().detach()
    right, rare = (probability * world.right).sum(dim=1), (probability * world.rare).sum(dim=1)
    assert measured["pass@1"] == pytest.approx(right.mean().item())
    assert measured["rare_share"] == pytest.approx((rare / right).mean().item())
    assert measured["rare@64"] == pytest.approx((1 - (1 - rare) ** 64).mean().item())
    assert measured["coverage"] == measured["right_found"] == measured["rare_found"] == 0


def test_what_was_sampled_is_what_is_counted(world, policy):
    run = trial(world, policy)
    rollout = run._rollout(world.sequences[world.rare.nonzero()[:1, 1]].expand(16, -1), step=0)
    assert rollout.correct[:8].tolist() == [1.0] * 8 and rollout.answers[0] is not None
    measured = run.measure(1)
    assert measured["rare_found"] == 0.5 and measured["coverage"] == pytest.approx(1 / 96)


def test_the_rollout_holds_the_policys_own_features(world, policy, monkeypatch):
    run, seen = trial(world, policy), []
    monkeypatch.setattr(run.bonuses, "score", lambda rollout: seen.append(rollout) or [])
    run.train_step(0)
    (rollout,) = seen
    assert isinstance(rollout, Rollout) and len(rollout) == 16
    sequences = rollout.completion_ids - 1
    hidden, distribution = policy(run.problems, sequences)
    torch.testing.assert_close(rollout.features["hidden"], hidden.detach())
    torch.testing.assert_close(rollout.features["frozen_hidden"], hidden.detach())
    uniform = torch.full((7,), 1 / 7)
    kl = (uniform * (uniform.log() - distribution[0, 0].detach())).sum()
    torch.testing.assert_close(rollout.features["self_certainty"][0, 0], kl)
    assert rollout.completions[0] == world.texts[0][world.all.index(tuple(sequences[0].tolist()))]


@pytest.mark.parametrize("name", ["no", *sorted(REGISTRY), "shuffle:rnd"])
def test_every_bonus_runs_and_is_deterministic(name, world, policy, monkeypatch):
    monkeypatch.setattr(CachedEncoder, "__call__", lambda self, texts: torch.eye(8)[[len(text) % 8 for text in texts]])
    first, second = trial(world, policy, name).run(), trial(world, policy, name).run()
    assert first == second and first[-1]["step"] == 5 and np.isfinite(list(first[-1].values())).all()


def test_plain_grpo_learns_here(world, policy):
    curve = trial(world, policy, steps=40, learning_rate=1e-2).run()
    assert curve[-1]["pass@1"] > curve[0]["pass@1"] + 0.2


@pytest.fixture
def curves():
    """Two seeds of "no" and of a bonus that finds the rare strategy more often; before training all is half as much."""

    def run(*values):
        last = dict(zip(COLUMNS, values, strict=True))
        return [{name: value / 2 for name, value in last.items()} | {"step": 0}, last | {"step": 10}]

    plain = [run(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), run(0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]
    return {"no": plain, "rnd": [run(0.2, 0.2, 0.7, 0.4, 0.5, 0.6), run(0.4, 0.4, 0.9, 0.6, 0.7, 0.8)]}


def test_table_has_means_intervals_and_paired_differences(curves):
    mean, half = interval(final(curves["no"], "pass@1"))
    assert mean == pytest.approx(0.2) and half == pytest.approx(12.706 * 0.1, rel=1e-3)
    lines = table(curves).splitlines()
    cells = [f"{value:.3f} ± 1.271" for value in (0.3, 0.3, 0.8, 0.5, 0.6, 0.7)]
    assert lines[3] == f"| `rnd` | {' | '.join(cells)} | +0.400 ± 0.000 |" and lines[2].endswith("|  |")
    before = "pass@1 0.125, rare_share 0.150, rare@64 0.300"
    assert lines[-1] == f"2 seeds, mean ± 95 % t interval over seeds. Before training: {before}."


def test_figure_shows_the_bonus_minus_no(curves, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(known_truth_report.plt, "close", figures.append)
    plot(curves, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    differences = {axis.get_title("left"): axis.lines[0].get_xdata()[0] for axis in figures[0].axes}
    assert list(differences) == list(PANELS.values())
    assert list(differences.values()) == pytest.approx([0.1, 0.4, 0.0])


def test_command_writes_curves_table_and_plot(tmp_path, monkeypatch, capsys):
    flags = ["--problems", "2", "--seeds", "2", "--steps", "2", "--bonuses", "noise", "--output", str(tmp_path / "kt")]
    monkeypatch.setattr("sys.argv", ["known_truth", *flags])
    monkeypatch.setattr(known_truth, "fitted_policy", lambda world, seed: Policy(2))
    known_truth.main()
    found = json.loads((tmp_path / "kt.json").read_text())
    assert list(found["curves"]) == ["no", "noise"] and len(found["curves"]["noise"]) == 2
    assert (tmp_path / "kt.md").read_text() in capsys.readouterr().out and (tmp_path / "kt.png").exists()


@pytest.mark.parametrize("flags", [{"seeds": 1}, {"steps": 0}, {"problems": 0}, {"bonuses": "nothing"}])
def test_bad_flags_are_refused(flags):
    with pytest.raises(UserError, match=str(*flags.values())):
        Options(**flags)
