"""Metric or mechanism on Countdown: records of the sweep are read by the rules of the plan."""

import json

import pytest

from analysis.evaluated import RECORD_VERSION
from analysis.outcomes import Outcomes
from analysis.sweep import read_sweep
from benchmarks.metric_or_mechanism import EXACT, IDENTICAL
from benchmarks.metric_or_mechanism_countdown import NAMES, RECORDS, ROOT, empty_cells, logged, plot, report
from common.files import write_json

PROBLEMS, SAMPLES = 24, 64
# arm -> of 40 right samples of a problem, how many take the rarer of two ways; of an even problem one more
RARE = {"no": 0, "rarity": 20, "rarity_answer": 20, "rarity_bigram": 12, "rarity_embedding": 19}
RARE |= {"maxrl": 2, "repexp": 9}


def write_record(folder, arm, seed, rare):
    counts = [[40 - rare - place % 2, rare + place % 2] for place in range(PROBLEMS)]
    right = [[True] * 40 + [False] * 24] * PROBLEMS
    none, texts = [[False] * SAMPLES] * PROBLEMS, {place: f"{place:08x}" for place in range(PROBLEMS)}
    approaches = [[count for count in pair if count] for pair in counts]
    packed = Outcomes(texts, right, none, none, [[9] * SAMPLES] * PROBLEMS, approaches).packed()
    bonus, _, partition = arm.partition("_")
    figures = {"agreement": [1.0, 0.5 + seed / 10], "correlation": [RARE.get(arm, 0) / 40], "share_of_advantage": [0.0]}
    record = {
        "version": RECORD_VERSION,
        "task": "countdown",
        "seed": seed,
        "flags": {"use_ir": bonus, "rarity_partition": partition or "exact"},
        "commit": "c0ffee",
        "steps": 2,
        "minutes": 1.0,
        "machine": {"system": "Linux", "cores": 2},
        "curves": {f"ir/rarity/{name}": values for name, values in figures.items()} if bonus == "rarity" else {},
        "evaluations": {"before": packed, "after": packed},
    }
    write_json(folder / f"{arm}_seed{seed}.json", record)


@pytest.fixture
def folder(tmp_path):
    for arm, rare in RARE.items():
        for seed in (0, 1):
            write_record(tmp_path / "records", arm, seed, rare + seed)
    return tmp_path / "records"


def test_levels_families_and_empty_cells_follow_from_the_records(folder, tmp_path):
    sweep = read_sweep(folder)
    text = report(sweep)
    assert "| coverage@32 minus `no` | difference | p | Holm |" in text
    assert "| pass@32 minus `rarity exact` | difference | p | Holm |" in text
    assert logged(sweep)["rarity bigram"]["agreement"] == pytest.approx([0.75, 0.8])
    assert "`rarity answer` is the exact partition on this task, and gave the same numbers." in text
    assert "rarity likelihood: 5 of 5" in text and "no: 3 of 5" in text and "By the plan's rules on" not in text
    plot(sweep, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_the_plan_gives_a_name_once_every_cell_is_there(folder):
    for arm in ("rarity_likelihood", "rarity_random", *RARE):
        for seed in range(5):
            write_record(folder, arm, seed, RARE.get(arm, 0) + seed % 2)
    sweep = read_sweep(folder)
    assert empty_cells(sweep) == []
    assert "By the plan's rules on coverage@32: **the metric matters**, **proxies suffice**." in report(sweep)


def test_arms_and_seeds_that_the_plan_does_not_have_change_nothing_but_a_line(folder):
    for arm in ("rarity_likelihood", "rarity_random", *RARE):
        for seed in range(5):
            write_record(folder, arm, seed, RARE.get(arm, 0) + seed % 2)
    before = report(read_sweep(folder))
    for arm, seed in (("no", 7), ("rarity", 7), ("cfn", 0)):
        write_record(folder, arm, seed, 0)
    after = report(read_sweep(folder))
    line = "Not of the plan, and left out: cfn_seed0, no_seed7, rarity_seed7.\n\n"
    assert line in after and after.replace(line, "") == before


def test_steps_without_a_figure_do_not_count(folder):
    path = folder / "rarity_bigram_seed0.json"
    record = json.loads(path.read_text())
    record["curves"]["ir/rarity/agreement"] = [None, 0.25, float("nan")]
    path.write_text(json.dumps(record))
    assert logged(read_sweep(folder))["rarity bigram"]["agreement"][0] == 0.25


def test_two_names_of_one_partition_that_differ_are_told(folder):
    write_record(folder, "rarity_answer", 1, 3)
    assert f"`{IDENTICAL}` is the exact partition on this task, and did NOT give" in report(read_sweep(folder))
    (folder / "rarity_seed0.json").unlink()
    text = report(read_sweep(folder))
    assert f"minus `{EXACT}`" not in text, "no two seeds in common"
    assert f"{EXACT}: 4 of 5" in text


def test_the_committed_report_is_that_of_the_committed_records():
    sweep = read_sweep(RECORDS)
    assert {arm.label for arm in sweep.arms} <= NAMES.keys()
    committed = ROOT / "benchmarks" / "results" / "metric_or_mechanism_countdown.md"
    assert report(sweep) == committed.read_text(encoding="utf-8")
