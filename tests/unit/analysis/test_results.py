"""Records of runs hold what their folders say, and the pages say what the records hold."""

import json
import shutil

import numpy as np
import pytest

from analysis.comparison import choose_baseline, compare_arms
from analysis.evaluated import read_evaluated
from analysis.half_budget import half_table
from analysis.outcomes import Outcomes
from analysis.records import record_of
from analysis.report_tables import cost_sentence, known_truth_rows
from analysis.results import ROOT, Results, drawn_from
from analysis.results_figure import _look, draw_sweep
from analysis.results_tables import MANY, ONE_SEED, answer, gains_table, main_table, metrics_table, other_table
from analysis.style import UNPARSABLE
from analysis.sweep import digest_of, read_sweep
from common.errors import UserError
from common.files import write_json
from tests.unit.analysis.test_compare_runs import drawn, write_run

PAGE = "# Results\n<!-- results: toy table -->\n<!-- end of results -->\n<!-- results: toy arm rnd -->\nold\n"


METRICS = {"accidental": {"mean": 0.25, "low": 0.2, "high": 0.3, "n": 4}, "mean_length": 7.0, "passes": "sampled"}


def run_folder(runs, name, seed, share):
    """A run folder with evaluations before and after training."""
    folder = runs / f"{name}_seed{seed}"
    write_run(folder, name, seed, drawn(seed + 10, share))
    report = json.loads((folder / "eval" / "after.json").read_text()) | {"metrics": METRICS}
    for evaluation in ("before", "after"):
        (folder / "eval" / f"{evaluation}.json").write_text(json.dumps(report))
    (folder / "metrics.jsonl").write_text('{"step": 2, "seconds": 90, "rewards/correctness/mean": 0.123456}\n')
    run = json.loads((folder / "run.json").read_text()) | {"machine": {"system": "Linux", "cores": 2}}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


@pytest.fixture
def folders(tmp_path):
    """Three run folders: two seeds of plain GRPO, one of a bonus."""
    made = (("no", 0, 0.4), ("no", 1, 0.5), ("rnd", 0, 0.6))
    return [run_folder(tmp_path / "runs", *which) for which in made]


@pytest.fixture
def root(folders, tmp_path):
    """A project with records of these runs and a page that shows them."""
    (tmp_path / "results" / "toy").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "toy.sh").write_text("arms=${1:-no rnd sc shuffle:knn+}")
    (tmp_path / "docs" / "page.md").write_text(PAGE + "<!-- end of results -->\nend\n")
    for folder in folders:
        write_json(tmp_path / "results" / "toy" / f"{folder.name}.json", record_of(folder))
    return tmp_path


def test_a_record_gives_the_scores_of_its_run_folder(folders, tmp_path):
    record = record_of(folders[1])
    assert (record["steps"], record["minutes"], record["curves"]) == (2, 1.5, {"rewards/correctness/mean": [0.1235]})
    assert record["metrics"]["after"] == {"accidental": 0.25, "mean_length": 7.0}
    write_json(tmp_path / "record.json", record)
    kept, run = read_evaluated(tmp_path / "record.json", "after"), read_evaluated(folders[1], "after")
    assert kept.problems == run.problems and kept.flags == run.flags and kept.scores.keys() == run.scores.keys()
    assert all((kept.scores[name] == run.scores[name]).all() for name in run.scores)


def test_packing_keeps_ids_that_are_texts_and_problems_with_fewer_samples():
    outcomes = Outcomes(
        {"b": "00000001", "c": "0000000a"},
        *[[[True, False, True], [flag]] for flag in (True, False, True)],
        [[7, 0, 70_000], [9]],
        [[2], []],
    )
    found = Outcomes.unpacked(json.loads(json.dumps(outcomes.packed())))
    assert found.length == [[7, 0, 65_535], [9]]
    assert (found.problems, found.right, found.truncated) == (outcomes.problems, outcomes.right, outcomes.truncated)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 0}, "no record of a run of version 1"),
        ({"evaluations": {"after": {"ids": 30, "samples": 2, "problems": ""}}}, "is damaged"),
        ({"flags": None, "evaluations": {}}, "has no evaluation 'after'"),
    ],
)
def test_a_damaged_record_is_named(change, said, folders, tmp_path):
    write_json(tmp_path / "record.json", record_of(folders[0]) | change)
    with pytest.raises(Exception, match=said):
        read_evaluated(tmp_path / "record.json", "after")


def test_a_page_shows_what_the_records_hold_and_is_stale_once_they_change(root):
    (page, text), *_ = Results(root).pages().items()
    assert "| `rnd` | 1 | " in text and "1 seed: right " in text and "old" not in text
    assert text.endswith("results -->\nend\n")
    assert [path.name for path in Results(root).stale()] == ["page.md", "toy.png"]
    page.write_text(text)
    picture = root / "docs" / "figures" / "toy.png"
    draw_sweep(Results(root).sweep("toy"), picture)
    assert Results(root).stale() == [] and drawn_from(picture) == digest_of(root / "results" / "toy")
    (root / "results" / "toy" / "no_seed1.json").unlink()
    assert [path.name for path in Results(root).stale()] == ["page.md", "toy.png"]


def test_half_of_the_rollouts_are_held_against_the_end_of_plain_grpo(root):
    ramp = [step / 20 for step in range(1, 21)]  # .475 in the tenth before the middle, .975 in the last
    for path in (root / "results" / "toy").glob("*.json"):
        curve = [0.0] * 7 + [1.0] * 13 if path.stem.startswith("rnd") else ramp
        write_json(path, json.loads(path.read_text()) | {"curves": {"rewards/correctness/mean": curve}})
    _, _, plain, bonus = half_table(read_sweep(root / "results" / "toy")).splitlines()
    assert plain == "| `no` | 2 | 47.5 | -50.0 [-50.0, -50.0] |  | 100 |"
    assert bonus == f"| `rnd` | 1 | 100.0 | +2.5, {ONE_SEED} |  | 45 |"


def test_a_sweep_without_records_of_an_arm_and_of_the_baseline_says_so(root):
    page = root / "docs" / "page.md"
    page.write_text(page.read_text().replace("arm rnd", "arm shuffle:knn+"))
    (text,) = Results(root).pages().values()
    assert "Not run: `bash sweeps/toy.sh shuffle:knn+`." in text
    (root / "results" / "toy" / "rnd_seed0.json").unlink()
    (text,) = Results(root).pages().values()
    assert "Too few arms run to compare: `bash sweeps/toy.sh`." in text and Results(root).pictures() == {}


def test_a_difference_is_paired_by_seed_and_one_seed_has_no_interval(root):
    sweep = read_sweep(root / "results" / "toy")
    plain, bonus = (sweep.result["outcomes"]["accuracy"][name] for name in ("no", "rnd"))
    assert bonus["difference"] == pytest.approx(bonus["mean"] - plain["by_seed"][0])
    shown = f"{100 * bonus['difference']:+.1f}"
    assert f"| {shown} ({ONE_SEED}) |  | " in main_table(sweep)
    assert f"({ONE_SEED})" in other_table(sweep) and "pass@" not in other_table(sweep)  # of two samples
    (right,) = answer(sweep).splitlines()[2:]  # every answer that is not right is a false claim here
    assert right == f"| right, `toy`, 1 seed | none | none | none | `rnd` {shown} |"


def test_a_picture_shows_controls_in_grey_whatever_their_name():
    others = {"knn+": False, "rarity": False, "rarity_random": True, "noise": True}
    looks = {label: _look(label, others) for label in ("no", *others)}
    assert [label for label, look in looks.items() if look[0] == UNPARSABLE] == ["rarity_random", "noise"]
    assert len(set(looks.values())) == len(looks), "no two arms look alike"


def test_an_answer_names_the_extremes_of_many_arms(root):
    folder = root / "results" / "toy"
    for number, name in enumerate(["cfn", "sc", "ppl", "knn", "knn+", "repexp", "maxrl"][: MANY - 1]):
        for seed in (0, 1):
            record = record_of(run_folder(root / "more", name, seed, 0.42 + 0.01 * number))
            write_json(folder / f"{name}_seed{seed}.json", record)
    sweep = read_sweep(folder)
    undecided = answer(sweep).splitlines()[2].split(" | ")[3]
    assert undecided.count("`") == 2 * (MANY - 1) and "arms, from" not in undecided
    for seed in (0, 1):
        write_json(folder / f"risk_seed{seed}.json", record_of(run_folder(root / "more", "risk", seed, 0.44)))
    found = answer(sweep := read_sweep(folder)).splitlines()[2].split(" | ")[3]
    rows = {name: row["difference"] for name, row in sweep.result["outcomes"]["accuracy"].items() if name != "no"}
    least, most = (pick((n for n in rows if n != "rnd"), key=rows.get) for pick in (min, max))
    assert found.startswith(f"{MANY} arms, from `{least}` ") and f"to `{most}` " in found


def test_a_planned_family_has_its_own_baseline_and_arms_and_shows_those_without_records(root):
    for which in (("rnd", 1, 0.6), ("cfn", 0, 0.7), ("cfn", 1, 0.7)):
        folder = run_folder(root / "runs", *which)
        write_json(root / "results" / "toy" / f"{folder.name}.json", record_of(folder))
    sweep = read_sweep(root / "results" / "toy")
    two = Results(root).block("toy contrast accuracy rnd no sc").splitlines()[2:]
    mean = 100 * sweep.result["outcomes"]["accuracy"]["rnd"]["mean"]
    assert two[0] == f"| `rnd` | 2 | {mean:.1f} |  |  |" and two[2] == "| `sc` | 0 |  |  |  |"
    against = compare_arms(sweep.arms, choose_baseline(sweep.arms, "rnd"))["outcomes"]["accuracy"]["no"]
    assert f"{100 * against['difference']:+.1f} [" in two[1] and two[1].endswith(f"| {against['p']:.3f} |")
    with pytest.raises(UserError, match="no record has the outcome 'coverage@32'"):
        Results(root).block("toy contrast coverage@32 rnd no")


def test_controls_are_a_family_of_their_own_in_every_table(root, folders):
    """Three control runs change no p value of a method, however many comparisons there are."""
    folder = root / "results" / "toy"

    def p_values():
        sweep = read_sweep(folder)
        tables = (main_table(sweep), other_table(sweep), gains_table(sweep), half_table(sweep))
        rows = [line.split(" | ") for table in tables for line in table.splitlines()]
        return [row for row in rows if row[0] == "| `rnd`"]

    def add(name, seed):
        better = 0.2 * (name == "rnd")
        record = record_of(run_folder(root / "more", name, seed, 0.3 + 0.1 * seed + better))
        record["evaluations"]["before"] = record_of(folders[0])["evaluations"]["before"]
        curve = np.random.default_rng([seed, len(name)]).random(20) + better
        record["curves"] = {"rewards/correctness/mean": curve.tolist()}
        write_json(folder / f"{name.replace(':', '-')}_seed{seed}.json", record)

    for seed in range(3):
        for name in ("no", "rnd", "cfn"):
            add(name, seed)
    found = p_values()
    for seed in range(3):
        add("noise", seed)
        add("shuffle:rnd", seed)
    assert len(found) == 4 and p_values() == found


def test_an_answer_over_several_sweeps_leaves_out_those_without_records(root):
    (root / "sweeps" / "later.sh").write_text("arms=${1:-no rnd}\n")
    alone = Results(root).block("toy answer")
    assert Results(root).block("later answer toy") == Results(root).block("toy answer later") == alone
    shutil.copytree(root / "results" / "toy", root / "results" / "later")
    both = Results(root).block("toy answer later").splitlines()
    assert both == [*alone.splitlines(), *alone.replace("`toy`", "`later`").splitlines()[2:]]
    with pytest.raises(UserError, match="there is no sweeps/nowhere.sh"):
        Results(root).block("toy answer nowhere")


def test_metrics_of_an_evaluation_are_averaged_over_seeds(root):
    text = metrics_table(read_sweep(root / "results" / "toy"), "accidental mean_length")
    assert text.splitlines()[2:] == ["| before training | 3 | 0.25 | 7 |", "| `no` | 2 | 0.25 | 7 |"] + [
        "| `rnd` | 1 | 0.25 | 7 |"
    ]
    with pytest.raises(UserError, match="no record has the metric 'pass@9'; they have accidental, .*mean_length"):
        Results(root).block("toy metrics pass@9")


def test_metrics_that_samples_say_are_those_of_the_other_tables(root):
    """Records keep their metrics in four digits, and means of these end in another digit now and then."""
    for path in (root / "results" / "toy").glob("*.json"):
        record = json.loads(path.read_text())
        for metrics in record["metrics"].values():
            metrics["accuracy"] = 0.99
        path.write_text(json.dumps(record))
    sweep = read_sweep(root / "results" / "toy")
    main = {row.split("|")[1]: row.split("|")[3].strip() for row in main_table(sweep).splitlines()[2:]}
    rows = [row.split("|") for row in metrics_table(sweep, "accuracy").splitlines()[3:]]
    assert {row[1]: row[3].strip().removesuffix(" %") for row in rows} == main


def test_gains_are_after_minus_before_and_paired_by_seed(root):
    """Training gained nothing in the records; seed 0 of rnd then gains what one problem is worth."""
    path = root / "results" / "toy" / "rnd_seed0.json"
    assert "| +0.0 [+0.0, +0.0] |" in gains_table(read_sweep(path.parent))
    record = json.loads(path.read_text())
    outcomes = Outcomes.unpacked(record["evaluations"]["after"])
    before = float(outcomes.scores()["accuracy"].mean())
    outcomes.right[0] = [not all(outcomes.right[0])] * len(outcomes.right[0])
    after = float(outcomes.scores()["accuracy"].mean())
    record["evaluations"]["after"] = outcomes.packed()
    path.write_text(json.dumps(record))
    gain = f"{100 * (after - before):+.1f} ({ONE_SEED})"
    row = f"| `rnd` | 1 | {100 * before:.1f} | {100 * after:.1f} | {gain} | {gain} |  |"
    assert row in gains_table(read_sweep(path.parent))


def test_runs_that_start_from_policies_of_their_own_seed_are_one_arm(root):
    """As in BRIDGE, where the seed is that of the supervised start too; the arm is called as its runs."""
    folder = root / "results" / "toy"
    for name, policy in (("no_seed0", "plain"), ("no_seed1", "plain"), ("rnd_seed0", "injected")):
        record = json.loads((folder / f"{name}.json").read_text())
        record["flags"] |= {"use_ir": "no", "model_name": f"start/{policy}_seed{record['seed']}/final"}
        (folder / f"{name.replace('no', 'plain').replace('rnd', 'injected')}.json").write_text(json.dumps(record))
        (folder / f"{name}.json").unlink()
    sweep = read_sweep(folder)
    assert {arm.label: list(arm.runs) for arm in sweep.arms} == {"plain": [0, 1], "injected": [0]}
    assert sweep.result["baseline"] == "plain"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("rnd_seed0", "rnd-seed0", "is not named ARM_seedN"), ("no_seed1", "sc_seed1", "same settings and different")],
)
def test_a_record_with_the_name_of_another_arm_is_refused(old, new, said, root):
    folder = root / "results" / "toy"
    (folder / f"{old}.json").rename(folder / f"{new}.json")
    with pytest.raises(UserError, match=said):
        Results(root).pages()


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("toy arm cfn", "the arm 'cfn'; sweeps/toy.sh has none"),
        ("toy plot", "asks for 'plot'"),
        ("other table", "no sweeps/other.sh"),
        ("other report", "other.md is missing"),
        ("short report", "short.md has no table"),
        ("short2 report 2", "table '2' of .*short2.md, which has 1"),
    ],
)
def test_a_block_that_asks_for_what_there_is_not_is_named(block, said, root):
    page, reports = root / "docs" / "page.md", root / "benchmarks" / "results"
    page.write_text(page.read_text().replace("toy arm rnd", block))
    reports.mkdir(parents=True)
    (reports / "short.md").write_text("Nothing.\n")
    (reports / "short2.md").write_text("| a |\n|---|\n| 1 |\n")
    with pytest.raises(UserError, match=said):
        Results(root).pages()


def test_cards_show_rows_of_the_report_of_known_truth():
    report = ROOT / "benchmarks" / "results" / "known_truth.md"
    text = known_truth_rows(report, "knn; knn (reward)")
    # By hand from the report: level, difference and Holm's p, of pass@1 and of rare@64.
    row = "| `knn (reward)` | 0.951 ± 0.002 | +0.009 ± 0.002 | 0.0000 | 0.099 ± 0.019 | -0.082 ± 0.027 | 0.0004 |"
    assert row in text and "20 seeds" in text and "for 37 comparisons by Holm and for 2 looks at the seeds;" in text
    with pytest.raises(UserError, match="no row `sent`"):
        known_truth_rows(report, "sent")


def test_a_card_names_what_its_bonus_costs_on_both_policies(tmp_path):
    head = "| bonus | seconds per step | ratio | bonus | peak MB | ratio |\n|---|---|---|---|---|---|\n"
    rows = {"bonus_overhead_all": "| cfn | 2.2 | 1.23 | 23.5% | 1355 | 1.040 |\n| sc | 2 | 1 | 0.8% | 9 | 1.035 |\n"}
    rows["bonus_overhead_smollm2"] = "| cfn | 21 | 1.23 | 9.7% | 5395 | 1.104 |\n"
    for name, text in rows.items():
        (tmp_path / f"{name}.md").write_text(head + text)
    said = cost_sentence(tmp_path / "bonus_overhead.md", "cfn")
    assert "23.5 % with the embedded policy and 9.7 % with SmolLM2; peak memory 1.040 and 1.104 times" in said
    assert "SmolLM2" not in cost_sentence(tmp_path / "bonus_overhead.md", "sc")
    with pytest.raises(UserError, match="no report of bonus_overhead_all, bonus_overhead_smollm2 has a row 'knn'"):
        cost_sentence(tmp_path / "bonus_overhead.md", "knn")


def test_the_pages_and_pictures_of_the_project_say_what_its_records_hold():
    assert [str(path.relative_to(ROOT)) for path in Results(ROOT).stale()] == []
