"""Records of runs hold what their folders say, and the pages say what the records hold."""

import json

import pytest

from analysis import results
from analysis.evaluated import read_evaluated
from analysis.outcomes import Outcomes
from analysis.records import record_of
from analysis.results import pages, stale, table
from analysis.sweep import read_sweep
from common.errors import UserError
from common.files import write_json
from tests.unit.analysis.test_compare_runs import drawn, write_run

PAGE = "# Results\n<!-- results: toy table -->\n<!-- end of results -->\n<!-- results: toy arm rnd -->\nold\n"

METRICS = {"accidental": {"mean": 0.25, "low": 0.2, "high": 0.3, "n": 4}, "mean_length": 7.0, "passes": "sampled"}


@pytest.fixture
def folders(tmp_path):
    """Three run folders with evaluations before and after training: two seeds of plain GRPO, one of a bonus."""
    made = []
    for name, seed, share in (("no", 0, 0.4), ("no", 1, 0.5), ("rnd", 0, 0.6)):
        folder = tmp_path / "runs" / f"{name}_seed{seed}"
        write_run(folder, name, seed, drawn(seed + 10, share))
        report = json.loads((folder / "eval" / "after.json").read_text()) | {"metrics": METRICS}
        for evaluation in ("before", "after"):
            (folder / "eval" / f"{evaluation}.json").write_text(json.dumps(report))
        (folder / "metrics.jsonl").write_text('{"step": 2, "seconds": 90, "rewards/correctness/mean": 0.123456}\n')
        run = json.loads((folder / "run.json").read_text()) | {"machine": {"system": "Linux", "cores": 2}}
        (folder / "run.json").write_text(json.dumps(run))
        made.append(folder)
    return made


@pytest.fixture
def root(folders, tmp_path):
    """A project with records of these runs and a page that shows them."""
    (tmp_path / "results" / "toy").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
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
    texts = pages(root, {})
    (text,) = texts.values()
    assert "| `rnd` | 1 | " in text and "1 seed: " in text and "old" not in text and text.endswith("results -->\nend\n")
    assert [path.name for path in stale(texts)] == ["page.md"]
    (root / "docs" / "page.md").write_text(text)
    assert stale(pages(root, {})) == []
    (root / "results" / "toy" / "rnd_seed0.json").unlink()
    with pytest.raises(UserError, match="there is one arm"):
        pages(root, {})


def test_a_difference_is_paired_by_seed(root):
    sweep = read_sweep(root / "results" / "toy")
    plain, bonus = (sweep.result["outcomes"]["accuracy"][name] for name in ("no", "rnd"))
    assert bonus["difference"] == pytest.approx(bonus["mean"] - plain["by_seed"][0])
    assert f"{100 * bonus['difference']:+.1f} [" in table(sweep)


def test_metrics_of_an_evaluation_are_averaged_over_seeds(root):
    text = results.metrics_table(read_sweep(root / "results" / "toy"), "accidental mean_length")
    assert text.splitlines()[2:] == ["| before training | 3 | 0.25 | 7 |", "| `no` | 2 | 0.25 | 7 |"] + [
        "| `rnd` | 1 | 0.25 | 7 |"
    ]
    with pytest.raises(UserError, match="no record has the metric 'pass@9'; they have accidental, mean_length"):
        results.metrics_table(read_sweep(root / "results" / "toy"), "pass@9")


def test_a_block_that_asks_for_what_there_is_not_is_named(root):
    page = root / "docs" / "page.md"
    page.write_text(page.read_text().replace("arm rnd", "arm cfn"))
    with pytest.raises(UserError, match="no arm 'cfn'"):
        pages(root, {})
    page.write_text(page.read_text().replace("toy arm cfn", "toy plot"))
    with pytest.raises(UserError, match="asks for 'plot'"):
        pages(root, {})


def test_the_pages_of_the_project_say_what_its_records_hold():
    assert [str(path.relative_to(results.ROOT)) for path in stale(pages(results.ROOT, {}))] == []
