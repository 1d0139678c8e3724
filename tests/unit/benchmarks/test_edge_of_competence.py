"""The edge of competence: the plan's cells and names, problems in turn, and gains by base probability."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.evaluated import EvaluatedRun
from analysis.statistics import crossed_difference
from benchmarks import edge_figure
from benchmarks.edge_cells import BONUSES, CELLS, CONTROL, GROUPS, PRIORS, Cell, contrasts, gains, left_out
from benchmarks.edge_figure import countdown_gains, countdown_records, known_gains, plot
from benchmarks.edge_of_competence import ARMS, COMPLETIONS, EdgeTrial, report
from benchmarks.known_truth import Options, fresh_pipeline
from benchmarks.known_truth_env import Policy, World

EDGE = {(0.01, 16), (0.01, 32), *((0.05, group) for group in GROUPS), (0.2, 4), (0.2, 8), (0.5, 4)}
SEEDS = range(4)


def curves_of(gain):
    """Curves in which ``gain`` (bonus, cell) is what a bonus brings, beside noise per seed that it shares with `no`."""
    noise = np.random.default_rng(0).normal(0.0, 0.1, len(SEEDS))
    own = np.random.default_rng(1).normal(0.0, 0.001, (len(BONUSES) + 1, len(SEEDS)))
    curves = {}
    for cell in CELLS:
        for place, bonus in enumerate(("no", *BONUSES)):
            start = {"pass@1": cell.prior, "rare@64": 0.3}
            ends = [0.5 + noise[s] + own[place, s] + (gain(bonus, cell) if place else 0) for s in SEEDS]
            curves[cell.label(bonus)] = {s: [dict(start), {"pass@1": ends[s], "rare@64": 0.2}] for s in SEEDS}
    return curves


def test_the_cells_at_the_edge_are_those_of_the_plan():
    assert {(cell.prior, cell.group) for cell in CELLS if cell.is_edge} == EDGE and len(CELLS) == 16
    assert len({arm.label for arm in ARMS}) == len(ARMS) == 7 * 16


@pytest.fixture(scope="module")
def worlds():
    """Four problems at the lowest and at the highest prior."""
    ends = {prior: next(arm.world for arm in ARMS if f" {prior:g} " in arm.label) for prior in (PRIORS[0], PRIORS[-1])}
    return {prior: World(4, **world) for prior, world in ends.items()}


def test_a_prior_is_the_mass_of_right_texts(worlds):
    for prior, world in worlds.items():
        torch.testing.assert_close((world.prior * world.right).sum(dim=1), torch.full((4,), prior))
        torch.testing.assert_close(world.prior.sum(dim=1), torch.ones(4))


def test_updates_have_equally_many_completions_and_problems_come_in_turn(worlds):
    arms = {arm.options["num_generations"]: arm for arm in ARMS if arm.bonus == "no"}
    for group in (8, 16, 32):
        options, batches = Options(bonuses="no", steps=4, problems=4, num_generations=group), []
        bonuses = fresh_pipeline(arms[group].intrinsic)
        run = EdgeTrial(worlds[PRIORS[0]], Policy(4), bonuses, options, 0, None)
        for step in range(4):
            rollout = run.train_step(step).rollout
            assert len(rollout.completions) == COMPLETIONS and rollout.num_generations == group
            assert all(len(set(rollout.questions[at : at + group])) == 1 for at in range(0, COMPLETIONS, group))
            batches += rollout.questions
        assert [batches.count(question) for question in set(batches)] == [COMPLETIONS] * 4


@pytest.mark.parametrize(
    ("gain", "name"),
    [
        (lambda cell: 0.1 * cell.is_edge, "gains at the edge"),
        (lambda cell: 0.1, "gains everywhere"),
        (lambda cell: 0.1 if cell.is_edge else 0.15, "gains, where is open"),
        (lambda cell: -0.1, "costs"),
        (lambda cell: 0.0, "no gain of 0.02"),
    ],
)
def test_what_the_plan_calls_an_outcome(gain, name):
    curves = curves_of(lambda bonus, cell: gain(cell) if bonus == "passk" else 0.0)
    row, _ = (line for line in report(curves, ["c0ffee"], len(SEEDS)).splitlines() if line.startswith("| `passk` | "))
    assert row.endswith(f"| {name} |")
    edge = contrasts(gains(curves, "pass@1"))["A"]["passk"]
    assert edge["mean"] == pytest.approx(gain(Cell(0.05, 8)), abs=0.002)
    assert row.split(" | ")[1].startswith(f"{edge['mean']:+.3f} ± ")


@pytest.mark.filterwarnings("ignore:Precision loss")  # here B is the same on every seed
def test_the_cells_whose_policies_were_fitted_again_are_also_left_out():
    curves = curves_of(lambda bonus, cell: 0.1 * cell.is_edge - 0.5 * (cell.prior == 0.01) if bonus == "rnd" else 0.0)
    with_them, without = [line for line in report(curves, [], 4).splitlines() if line.startswith("| `rnd` | ")]
    assert with_them.split(" | ")[1].startswith("-0.01") and without.split(" | ")[1].startswith("+0.1")
    assert without.endswith(" |  |"), "the plan has no name for it"


def test_no_name_is_given_where_a_cell_is_empty_or_the_control_gains():
    curves = curves_of(lambda bonus, cell: 0.1)
    assert "| no verdict |" in report(curves, [], len(SEEDS))
    control, _ = (line for line in report(curves, [], len(SEEDS)).splitlines() if line.startswith(f"| `{CONTROL}` | "))
    assert "gains everywhere" in control
    del curves[Cell(0.2, 8).label("rnd")]
    text = report(curves, [], len(SEEDS))
    assert "verdict" not in text and "gains everywhere" not in text and "rnd 0.2 8: 4 of 4" in text
    assert report({}, [], 2).endswith("Code: no record yet.\n")


def test_a_seed_whose_policy_misses_the_prior_counts_nowhere_at_that_prior():
    curves = curves_of(lambda bonus, cell: 0.0)
    curves[Cell(0.2, 16).label("no")][2][0]["pass@1"] = 0.14
    assert left_out(curves) == {0.01: [], 0.05: [], 0.2: [2], 0.5: []}
    found = gains(curves, "pass@1")["knn+"]
    assert list(found[Cell(0.2, 4)]) == [0, 1, 3] and list(found[Cell(0.05, 4)]) == [0, 1, 2, 3]


def run_of(bonus, seed, scores, group=4, level="advantage"):
    flags = {"use_ir": bonus, "num_generations": group, "ir_level": level}
    problems = {place: "00" for place in range(len(scores))}
    return EvaluatedRun(Path(f"{bonus}_{seed}"), "countdown", seed, flags, "c0ffee", problems, {"accuracy": scores})


def test_gains_on_countdown_are_by_the_share_of_all_samples_before_training():
    rng = np.random.default_rng(2)
    before = [run_of("no", seed, scores) for seed, scores in enumerate(rng.integers(0, 9, (3, 40)) / 8)]
    after = {(bonus, seed): rng.integers(0, 9, 40) / 8 for bonus in ("no", "rnd") for seed in (0, 1)}
    runs = [run_of(bonus, seed, scores) for (bonus, seed), scores in after.items()]
    others = [run_of("rnd", 5, after["rnd", 0]), run_of("sc", 0, after["no", 0]), run_of("rnd", 1, after["no", 0], 16)]
    found = countdown_gains(before, [*runs, *others, run_of("rnd", 0, after["no", 0], level="reward")])
    assert found[16] == found[32] == {} and list(found[4]) == ["rnd"]
    shares = sum(run.scores["accuracy"] for run in before) / 3
    inside = [place for place in range(40) if 0.3 <= shares[place] < 0.6]
    by_hand = np.mean([[after["rnd", s][place] - after["no", s][place] for place in inside] for s in (0, 1)])
    gain, low, high = found[4]["rnd"][3]
    assert gain == pytest.approx(by_hand) and len(inside) > 5
    table = np.stack([after["rnd", seed][inside] - after["no", seed][inside] for seed in (0, 1)])
    assert (low, high) == tuple(crossed_difference(table)[name] for name in ("low", "high"))


def test_variants_of_plain_grpo_are_no_plain_grpo_of_the_figure(tmp_path):
    arms_of = {"countdown": "no no_temperature1.2 knn+ knn+_reward sc", "edge_of_competence": "no_G16 rnd_G4"}
    for sweep, arms in arms_of.items():
        (tmp_path / "results" / sweep).mkdir(parents=True)
        for arm in arms.split():
            (tmp_path / "results" / sweep / f"{arm}_seed0.json").touch()
    names = [path.stem for path in countdown_records(tmp_path)]
    assert names == ["knn+_seed0", "no_seed0", "no_G16_seed0", "rnd_G4_seed0"]


def test_the_figure_shows_what_there_is_and_says_where_nothing_is(tmp_path, monkeypatch):
    written, seen = [], edge_figure._draw
    monkeypatch.setattr(edge_figure, "_draw", lambda ax, found, *rest: (written.append(found), seen(ax, found, *rest)))
    plot(curves_of(lambda bonus, cell: 0.1 * cell.is_edge), tmp_path / "edge.png", root=tmp_path)
    assert (tmp_path / "edge.png").stat().st_size > 10_000
    assert [bool(found) for found in written] == [True] * 4 + [False] * 4
    alone = known_gains({name: {0: runs[0]} for name, runs in curves_of(lambda *_: 0.1).items()})
    gain, low, high = alone[8]["knn+"][1]
    assert gain == pytest.approx(0.1, abs=0.01) and low is None and high is None
