"""The world of the known-truth benchmark: its verdicts, its exact measures, and trials that are run once, in pieces."""

import json
import math

import numpy as np
import pytest
import torch

from benchmarks import known_truth
from benchmarks.cached_encoder import CachedEncoder
from benchmarks.known_truth import SETTINGS, Options, Trial, pipeline_of
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
from benchmarks.known_truth_records import Records, Row, curves_by_row, rows_of
from common.errors import UserError
from intrinsic import REGISTRY
from intrinsic.base import LEVELS
from intrinsic.options import IntrinsicOptions
from intrinsic.rollout import Rollout


@pytest.fixture(scope="module")
def world():
    return World(2)


@pytest.fixture(scope="module")
def policy(world):
    return fitted_policy(world, seed=0, steps=60)


def trial(world, policy, name="no", seed=0, level=LEVELS[0], **settings):
    options = Options(problems=2, **{"steps": 5, "seeds": 2, "bonuses": name} | settings)
    intrinsic = IntrinsicOptions(**SETTINGS)
    bonuses = pipeline_of(Row(name, level), intrinsic)
    return Trial(world, policy, bonuses, options, seed, CachedEncoder(intrinsic.encoder))


def test_every_problem_has_exactly_two_strategies():
    problems = find_problems(8)
    assert len({problem.question for problem in problems}) == 8
    for problem in problems:
        assert strategies(problem.numbers)[problem.target] == {problem.common, problem.rare}


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
    assert rollout.verdicts[0] == "correct" and not rollout.truncated.any()
    silent = run._rollout(world.sequences[:1].expand(16, -1), step=0)
    assert set(silent.verdicts) == {"no_answer"} and not silent.valid.any()
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


def test_mass_is_matched_as_in_training(world, policy):
    """Without a bonus nothing changes; MaxRL, whose advantages are larger than GRPO's, gets other steps."""
    for name, is_same in (("no", True), ("maxrl", False)):
        free, matched = trial(world, policy, name), trial(world, policy, name)
        matched.matches_mass = True
        assert (free.run() == matched.run()) is is_same


def test_plain_grpo_learns_here(world, policy):
    curve = trial(world, policy, steps=40, learning_rate=1e-2).run()
    assert curve[-1]["pass@1"] > curve[0]["pass@1"] + 0.2


def test_bonuses_of_the_reward_have_a_row_per_level_and_others_one():
    rows = rows_of(["knn+", "cfn", "shuffle:knn+", "memoryr+", "no"], LEVELS)
    labels = ["no", "knn+", "knn+ (reward)", "cfn", "shuffle:knn+", "shuffle:knn+ (reward)"]
    assert [row.label for row in rows] == labels
    assert [row.label for row in rows_of(["knn+", "cfn"], ["reward"])] == ["no", "knn+ (reward)", "cfn"]


def test_a_row_is_run_at_its_level(world, policy):
    intrinsic = IntrinsicOptions(**SETTINGS)
    placements = [pipeline_of(Row("ppl", level), intrinsic).bonuses[0].placement for level in LEVELS]
    assert placements == ["advantage", "reward"]


def test_a_seed_is_claimed_by_one_process_and_free_again_after_it(tmp_path):
    records, row = Records(tmp_path, {"steps": 2}), Row("knn+", "reward")
    other = Records(tmp_path, {"steps": 2})
    with records.claim(3) as first, other.claim(3) as second, other.claim(4) as third:
        assert first and third and not second
    with other.claim(3) as again:  # what was interrupted is free
        assert again and not other.has(row, 3)
        later = {"step": 10, "pass@1": 1 / 3, "agreement": math.nan, "alike": 1.0}
        other.save(row, 3, [{"step": 0, "pass@1": 0.5}, later])
    assert records.has(row, 3) and not records.has(row, 4) and not records.has(Row("knn+"), 3)
    kept = [{"step": 0, "pass@1": 0.5}, {"step": 10, "pass@1": 0.333333, "alike": 1.0}]
    assert curves_by_row(records.read()) == {"knn+ (reward)": {3: kept}}, "six digits; what has no value is left out"


def test_records_of_other_settings_and_damaged_ones_are_refused(tmp_path):
    Records(tmp_path, {"steps": 2, "ir_weight": ""}).save(Row("no"), 0, [])
    with pytest.raises(UserError, match="no_seed0.json was made with steps=2, not 3"):
        Records(tmp_path, {"steps": 3, "ir_weight": ""})
    (tmp_path / "rnd_seed0.json").write_text(json.dumps({"bonus": "rnd"}))
    with pytest.raises(UserError, match="rnd_seed0.json has no 'level'"):
        Records(tmp_path, {"steps": 2, "ir_weight": ""})
    whole = json.loads((tmp_path / "no_seed0.json").read_text()) | {"curve": [{"step": 0}]}
    (tmp_path / "rnd_seed0.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match="rnd_seed0.json has a curve that is no table of columns; delete it"):
        Records(tmp_path, {"steps": 2, "ir_weight": ""})


def settings_of(folder):
    """The settings of the records in a folder."""
    return json.loads(next(folder.glob("*.json")).read_text())["settings"]


def test_command_goes_on_where_it_stopped_and_reports_all_records(tmp_path, monkeypatch, capsys):
    runs = []
    monkeypatch.setattr(known_truth, "fitted_policy", lambda world, seed: Policy(2))
    monkeypatch.setattr(Trial, "run", lambda self, run=Trial.run: runs.append(1) or run(self))

    def command(*flags):
        flags = ["--problems", "2", "--steps", "2", "--records", f"{tmp_path}/records", *flags]
        monkeypatch.setattr("sys.argv", ["known_truth", *flags, "--output", f"{tmp_path}/kt"])
        known_truth.main()
        return capsys.readouterr().out

    shown = command("--seeds", "2", "--bonuses", "ppl")
    assert len(runs) == 6 and "| `ppl (reward)` | 2 |" in shown and shown.endswith((tmp_path / "kt.md").read_text())
    shown = command("--seeds", "3", "--bonuses", "ppl,cfn", "--levels", "advantage")
    assert len(runs) == 6 + 2 + 3 and "| `cfn` | 3 |" in shown and "| `ppl (reward)` | 2 |" in shown
    assert (tmp_path / "kt.png").exists() and len(list((tmp_path / "records").glob("*.json"))) == 11
    with pytest.raises(UserError, match="learning_rate"):
        command("--learning_rate", "0.1")
    (tmp_path / "records" / "cfn_seed1.json").unlink()
    with Records(tmp_path / "records", settings_of(tmp_path / "records")).claim(1):
        assert "1 trials have no record yet" in command("--seeds", "3", "--bonuses", "cfn")
    assert len(runs) == 11


@pytest.mark.parametrize("flags", [["--use_ir", "knn"], ["--ir_level", "reward"]])
def test_flags_that_the_rows_set_are_refused(flags, monkeypatch):
    monkeypatch.setattr("sys.argv", ["known_truth", *flags])
    with pytest.raises(UserError, match=f"{flags[0]}=.*use --(bonuses|levels)"):
        known_truth.main()


@pytest.mark.parametrize(
    "flags", [{"seeds": 1}, {"steps": 0}, {"problems": 0}, {"bonuses": "nothing"}, {"levels": "token"}]
)
def test_bad_flags_are_refused(flags):
    with pytest.raises(UserError, match=str(*flags.values())):
        Options(**flags)
