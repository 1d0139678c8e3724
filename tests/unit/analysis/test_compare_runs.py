"""Comparing runs: arms are told apart by their flags, paired by seed and problem, and broken folders are named."""

import json
from pathlib import Path

import numpy as np
import pytest

from analysis import compare_runs
from analysis.arms import Arm, check_same_problems, group_arms
from analysis.comparison import choose_baseline, compare_arms, comparison_table
from analysis.evaluated import EvaluatedRun, read_evaluated
from analysis.statistics import crossed_difference
from common.errors import UserError

SAMPLES = 2
WORDS = {True: "correct", False: "wrong_value", None: "no_answer"}


def write_run(folder, bonus, seed, answers, name="after", questions=None, commit="c0ffee", **flags):
    """A run folder whose evaluation has ``answers``: per problem the samples, True right, False wrong, None absent."""
    records = [
        {
            "id": place,
            "question": (questions or range(len(answers)))[place],
            "pass": "sampled",
            "sample": sample,
            "medium": bool(answer),
            "verdict": WORDS[answer],
            "length": 10 + place,
            "truncated": answer is None,
        }
        for place, row in enumerate(answers)
        for sample, answer in enumerate(row)
    ]
    if seed % 2:
        records.reverse()
    # A second pass and the names of a run are no part of what is compared.
    records.append(records[0] | {"pass": "greedy", "medium": not records[0]["medium"]})
    options = {"intrinsic": {"use_ir": bonus, **flags}, "grpo": {"seed": seed, "output_dir": str(folder), "L": 128}}
    (folder / "eval").mkdir(parents=True)
    git = {"commit": commit, "dirty": False}
    run = {"seed": seed, "options": options, "git": git, "resumed": []}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "eval" / f"{name}.json").write_text(json.dumps({"task": "countdown", "records": records}))
    return folder


def drawn(seed, share, problems=30):
    rng = np.random.default_rng(seed)
    return [[bool(value) for value in row] for row in rng.random((problems, SAMPLES)) < share]


def arms_of(folders):
    runs = [read_evaluated(folder, "after") for folder in folders]
    check_same_problems(runs)
    return group_arms(runs)


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["compare_runs", *map(str, arguments)])
    compare_runs.main()


@pytest.fixture
def by_hand(tmp_path):
    """Two arms, two seeds, two problems; rnd answers what no leaves open, once rightly and once wrongly."""
    yes, wrong, none = True, False, None
    plain = {0: [[yes, none], [none, none]], 1: [[yes, yes], [none, wrong]]}
    bonus = {0: [[yes, yes], [wrong, none]], 1: [[yes, yes], [yes, wrong]]}
    return [
        write_run(tmp_path / f"{name}{seed}", name, seed, answers)
        for name, runs in (("no", plain), ("rnd", bonus))
        for seed, answers in runs.items()
    ]


def test_a_case_by_hand(by_hand):
    arms = arms_of(by_hand)
    result = compare_arms(arms, choose_baseline(arms, "no"))
    assert [arm.label for arm in arms] == ["no", "rnd"] and result["problems"] == 2
    accuracy = result["outcomes"]["accuracy"]
    assert accuracy["no"]["by_seed"] == {0: 0.25, 1: 0.5} and accuracy["rnd"]["by_seed"] == {0: 0.5, 1: 0.75}
    expected = crossed_difference([[0.5, 0.0], [0.0, 0.5]])
    assert accuracy["rnd"] | expected == accuracy["rnd"] and accuracy["rnd"]["difference"] == 0.25
    claims = result["outcomes"]["false_claims"]
    assert claims["no"]["mean"] == 0.125 and claims["rnd"]["mean"] == 0.25
    assert claims["rnd"]["difference"] == pytest.approx(0.125)
    assert result["outcomes"]["truncated"]["no"]["mean"] == 0.5 and result["outcomes"]["length"]["no"]["mean"] == 10.5
    assert "pass@8" not in result["outcomes"]  # of two samples
    assert accuracy["rnd"]["above"]["chance"] == 0.875  # of .5 and .75 against .25 and .5: three above, one tie
    text = comparison_table(result)
    assert "| 0.88 [" in text
    assert "| rnd | 2     | 62.5 | 62.5 | +25.0" in text and "2 paired seeds: with fewer than 5" in text


def test_pass_at_k_comes_with_enough_samples(tmp_path):
    folder = write_run(tmp_path / "a", "no", 0, [[True, False, False, False], [False] * 4])
    assert read_evaluated(folder, "after").scores["pass@4"].tolist() == [1.0, 0.0]


def test_pairing_by_seed_narrows_the_interval(tmp_path):
    """A seed that is hard for one arm is hard for the other; what they share drops out, unless the labels are mixed."""
    rows = []
    for shift in (0, 1):
        folders = []
        for seed, share in enumerate([0.2, 0.8, 0.5, 0.35, 0.65]):
            plain = drawn(seed, share)
            better = [[True, True] if place % 3 == 0 else row for place, row in enumerate(plain)]
            folders += [write_run(tmp_path / f"{shift}no{seed}", "no", seed, plain)]
            folders += [write_run(tmp_path / f"{shift}rnd{seed}", "rnd", (seed + shift) % 5, better)]
        arms = arms_of(folders)
        rows.append(compare_arms(arms, choose_baseline(arms, "no"))["outcomes"]["accuracy"]["rnd"])
    paired, mixed = (row["high"] - row["low"] for row in rows)
    assert rows[0]["difference"] == pytest.approx(rows[1]["difference"])
    assert mixed > 2 * paired and rows[0]["p"] < 0.05 < rows[1]["p"]


def test_p_is_adjusted_over_the_methods_of_an_outcome_and_over_its_controls(tmp_path):
    shares = {"no": 0.3, "rnd": 0.4, "cfn": 0.6, "sc": 0.35, "noise": 0.33, "shuffle:rnd": 0.31}
    folders = [
        write_run(tmp_path / f"{name}{seed}", name, seed, drawn(100 * place + seed, share))
        for place, (name, share) in enumerate(shares.items())
        for seed in range(5)
    ]
    arms = arms_of(folders)
    rows = compare_arms(arms, choose_baseline(arms, "no"))["outcomes"]["accuracy"]
    p = {name: rows[name]["p"] for name in ("rnd", "cfn", "sc")}
    assert rows["cfn"]["p_holm"] == pytest.approx(3 * p["cfn"]) and p["cfn"] == min(p.values())
    assert max(rows[name]["p_holm"] for name in p) >= max(p.values())
    assert "p" not in rows["no"]
    first = min(("noise", "shuffle:rnd"), key=lambda name: rows[name]["p"])
    assert rows[first]["p_holm"] == pytest.approx(min(1, 2 * rows[first]["p"]))
    whole = compare_arms(arms, choose_baseline(arms, "no"), controls_apart=False)["outcomes"]["accuracy"]
    assert whole["cfn"]["p_holm"] == pytest.approx(5 * p["cfn"])


@pytest.mark.parametrize(
    ("flags", "control"),
    [
        ({"use_ir": "shuffle:knn+"}, True),
        ({"use_ir": "noise"}, True),
        ({"use_ir": "rarity", "rarity_partition": "random"}, True),
        ({"use_ir": "rarity", "rarity_partition": "exact"}, False),
        ({"use_ir": "knn+,noise", "ir_weight": ""}, False),
        ({"use_ir": "knn+,noise", "ir_weight": "1"}, False),
        ({"use_ir": "knn+, noise", "ir_weight": "0,1"}, True),
        ({"use_ir": "noise,knn+", "ir_weight": "1, 0.0"}, True),
        ({"use_ir": "rarity,noise", "rarity_partition": "random", "ir_weight": "1,2"}, True),
        ({"use_ir": "knn+", "ir_weight": "0"}, False),  # plain GRPO
        ({"use_ir": "no"}, False),
    ],
)
def test_controls_are_what_should_be_no_better_than_plain_grpo(flags, control):
    run = EvaluatedRun(Path("run"), "countdown", 0, flags, "c0ffee", {0: "00"}, {"accuracy": np.zeros(1)})
    assert Arm("arm", {0: run}).is_control == control


def test_arms_are_named_by_the_flags_that_differ(tmp_path):
    settings = [("no", "advantage"), ("knn+", "advantage"), ("knn+", "reward")]
    folders = [
        write_run(tmp_path / f"{bonus}_{level}_{seed}", bonus, seed, drawn(seed, 0.5), ir_level=level)
        for bonus, level in settings
        for seed in (0, 1)
    ]
    arms = arms_of(folders)
    labels = ["no, ir_level=advantage", "knn+, ir_level=advantage", "knn+, ir_level=reward"]
    assert [arm.label for arm in arms] == labels and all(list(arm.runs) == [0, 1] for arm in arms)
    assert choose_baseline(arms, "no") is arms[0] and choose_baseline(arms, labels[2]) is arms[2]
    for wrong, number in (("knn+", 2), ("cfn", 0)):
        with pytest.raises(UserError, match=rf"names {number} arms.*ir_level=reward"):
            choose_baseline(arms, wrong)


def test_a_run_that_went_on_with_other_flags_counts_with_those(tmp_path):
    folder = write_run(tmp_path / "a", "no", 0, drawn(0, 0.5))
    run = json.loads((folder / "run.json").read_text())
    again = json.loads(json.dumps(run))
    again["options"]["grpo"]["L"] = 256
    (folder / "run.json").write_text(json.dumps(run | {"resumed": [again]}))
    assert read_evaluated(folder, "after").flags == {"use_ir": "no", "L": 256}


def test_unequal_seeds_and_code_are_paired_where_common_and_said(tmp_path):
    folders = [write_run(tmp_path / f"no{seed}", "no", seed, drawn(seed, 0.5)) for seed in range(3)]
    folders += [write_run(tmp_path / f"rnd{seed}", "rnd", seed, drawn(seed, 0.6), commit="new") for seed in (1, 2, 7)]
    folders += [
        write_run(tmp_path / "sc", "sc", 9, drawn(9, 0.5)),
        write_run(tmp_path / "cfn", "cfn", 0, drawn(0, 0.5)),
    ]
    arms = arms_of(folders)
    result = compare_arms(arms, choose_baseline(arms, "no"))
    rows, notes = result["outcomes"]["accuracy"], comparison_table(result)
    assert rows["rnd"]["paired_seeds"] == [1, 2] and list(rows["rnd"]["by_seed"]) == [1, 2, 7]
    assert rows["sc"]["difference"] is None and rows["sc"]["p_holm"] is None
    assert rows["cfn"]["p"] is None and rows["cfn"]["low"] is not None
    for words in ("sc: no seed in common", "the seeds that no has too: 1, 2", "over problems alone", "c0ffee, new"):
        assert words in notes


def test_runs_on_other_problems_are_refused(tmp_path):
    first = write_run(tmp_path / "a", "no", 0, drawn(0, 0.5, 4))
    fewer = write_run(tmp_path / "b", "rnd", 0, drawn(0, 0.5, 3))
    other = write_run(tmp_path / "c", "rnd", 0, drawn(0, 0.5, 4), questions=[0, 1, 3, 2])
    for folder, count in ((fewer, "4 and 3, 3 in common"), (other, "4 and 4, 2 in common")):
        with pytest.raises(UserError, match=rf"{folder}.*{count}"):
            arms_of([first, folder])


def test_the_same_run_twice_and_a_single_arm_are_refused(tmp_path):
    folders = [write_run(tmp_path / f"no{place}", "no", 0, drawn(0, 0.5)) for place in range(2)]
    with pytest.raises(UserError, match="no0.*no1.*--seed 0"):
        arms_of(folders)
    with pytest.raises(UserError, match="one arm"):
        arms_of(folders[:1])


def test_command_leaves_out_unfinished_runs_and_writes_both_files(by_hand, tmp_path, monkeypatch, capsys):
    unfinished = write_run(tmp_path / "late", "rnd", 5, drawn(0, 0.5), name="before")
    command(monkeypatch, *by_hand, unfinished, "--out", tmp_path / "x" / "table.md")
    shown = capsys.readouterr()
    assert shown.out == (tmp_path / "x" / "table.md").read_text() and "false_claims, per cent" in shown.out
    assert "left out" in shown.err and "late has no eval/after.json" in shown.err
    command(monkeypatch, *by_hand, "--out", tmp_path / "table.json")
    found = json.loads((tmp_path / "table.json").read_text())
    assert found["task"] == "countdown" and found["outcomes"]["accuracy"]["rnd"]["difference"] == 0.25
    assert found["runs"]["no"] == {"0": str(by_hand[0]), "1": str(by_hand[1])}


def test_best_is_the_evaluation_that_chose_the_policy(by_hand, tmp_path, monkeypatch, capsys):
    for folder in by_hand:
        (folder / "eval" / "after.json").rename(folder / "eval" / "step_000005.json")
        (folder / "best").mkdir()
        (folder / "best" / "held_out.json").write_text(json.dumps({"name": "step_000005", "step": 5}))
    command(monkeypatch, *by_hand, "--which", "best")
    assert "+25.0" in capsys.readouterr().out


def damage_run(folder):
    (folder / "run.json").write_text("{nonsense")


def damage_options(folder):
    (folder / "run.json").write_text(json.dumps({"seed": 0, "options": [1], "resumed": []}))


def damage_resumed(folder):
    (folder / "run.json").write_text(json.dumps({"seed": 0, "options": {}, "resumed": 3}))


def damage_seed(folder):
    (folder / "run.json").write_text(json.dumps({"seed": None, "options": {}, "resumed": []}))


def damage_evaluation(folder):
    (folder / "eval" / "after.json").write_text("[]")


def damage_record(folder):
    record = {"id": 0, "medium": "yes", "verdict": "correct", "length": None, "truncated": False}
    (folder / "eval" / "after.json").write_text(json.dumps({"task": "countdown", "records": [record]}))


def damage_identity(folder):
    record = {"id": [0], "medium": True, "verdict": "correct", "length": 1, "truncated": False}
    (folder / "eval" / "after.json").write_text(json.dumps({"task": "countdown", "records": [record]}))


def remove_run(folder):
    (folder / "run.json").unlink()


DAMAGES = [damage_run, damage_options, damage_resumed, damage_seed, damage_evaluation, damage_record, damage_identity]


@pytest.mark.parametrize("damage", [*DAMAGES, remove_run])
def test_a_broken_folder_is_named(damage, by_hand, monkeypatch):
    damage(by_hand[2])
    with pytest.raises(UserError, match="rnd0"):
        command(monkeypatch, *by_hand)


@pytest.mark.parametrize(
    "arguments, words",
    [(["--which", "step_9"], "step_9"), (["--out", "x.csv"], "x.csv.*.md or .json"), (["--baseline", "sc"], "'sc'")],
)
def test_bad_arguments_are_refused(arguments, words, by_hand, monkeypatch):
    with pytest.raises(UserError, match=words):
        command(monkeypatch, *by_hand, *arguments)
