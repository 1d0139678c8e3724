"""Intervals in the prose of a page stand in a record; runs are shown one by one with the intervals they printed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.prose import intervals, unsupported
from analysis.records import record_of
from analysis.results import ROOT, Results
from analysis.results_tables import interval_cell
from analysis.run_tables import runs_table
from common.errors import UserError
from common.files import write_json
from evaluation.metrics import mean_interval, paired_difference
from tests.unit.analysis.test_compare_runs import drawn
from tests.unit.analysis.test_results import folders, root, run_folder  # noqa: F401

REPORT = "| `rnd` | 0.152 ± 0.119 | -3.10 [-15.24, +9.04] | 1250 [900, 1600] |"
PAGE = Path("page.md")


@pytest.mark.parametrize(
    "told",
    [
        *("+.152 ± .119", ".15 ± .12", "15.2 ± 11.9 points", "0.15±0.12", "-.152 ± .119", "15 ± 11.9 %"),
        *(
            "-3.1 points [-15.2, +9.0]",
            "3.1 points below [-9.0, 15.2]",
            "−3.1 %\n  [−15.2 %,\n9 %]",
            "-3.10 [-15.24, +9.04]",
        ),
        *("-.0310 [-.1524, .0904]", "1,250 [900, 1,600]", "1,250 ms [900, 1,600]"),
    ],
)
def test_prose_may_round_turn_all_signs_and_speak_in_per_cent(told):
    assert intervals(told) and unsupported({PAGE: f"Ends {told}."}, [REPORT]) == []


@pytest.mark.parametrize(
    "told",
    [
        *(".152 ± .118", "+.1520 ± .1190", "15.20 ± 11.90", ".153 ± .119", "152 ± 119", ".152 [-.119, .119]"),
        *("-3.1 [-15.2, +9.1]", "-3.2 [-15.2, +9.0]", "3.100 [-9.040, 15.240]", "250 ± 50"),
        *("3.1 [-15.2, 9.0]", "3.1 [9.0, 15.2]", "-3.1 points [-15.2, -9.0]"),  # clear of 0, which the record is not
    ],
)
def test_what_no_record_says_is_named_with_its_line(told):
    ((path, found),) = unsupported({PAGE: f"One line.\n\nThen {told}."}, [REPORT])
    assert (path, found.line, found.text) == (PAGE, 3, told)


@pytest.mark.parametrize("text", ["at 1e-3 ± 2e-4", "version 1.2.3 ± 1", "see [1](a.md) and 2 [a](b.md)", "x2 ± 3"])
def test_what_is_no_interval_is_left_alone(text):
    assert intervals(text) == []


def test_what_a_paper_reports_needs_no_record_of_ours():
    page = "# Card\n\n## What the paper reports\n36.0±2.6 on GSM8K.\n\n## What we measured\n.5 ± .4\n"
    assert [(found.text, found.line) for _, found in unsupported({PAGE: page}, [REPORT])] == [(".5 ± .4", 7)]


def test_a_page_tells_what_stands_in_its_own_blocks_or_in_a_report(root):  # noqa: F811
    (root / "benchmarks" / "results").mkdir(parents=True)
    (root / "benchmarks" / "results" / "report.md").write_text(REPORT)
    block = "<!-- results: toy table -->\n| 1.0 [0.5, 1.5] |\n<!-- end of results -->\n"
    (root / "docs" / "page.md").write_text(f"It is 1.0 [0.5, 1.5], .15 ± .12.\n{block}Not 2.0 [0.5, 1.5].\n")
    assert Results(root).untold() == ["docs/page.md:5: 2.0 [0.5, 1.5]"]


def test_every_interval_that_the_pages_of_the_project_tell_stands_in_a_record():
    assert Results(ROOT).untold() == []


def test_a_run_by_itself_has_the_intervals_over_its_problems(root):  # noqa: F811
    """Those of the evaluation, to the digit; of a metric without samples only its values."""
    folder = root / "results" / "toy"
    shutil.rmtree(folder)
    run = run_folder(root / "more", "sc", 3, 0.4)
    report = json.loads((run / "eval" / "after.json").read_text())
    for record in report["records"]:
        record["medium"] |= record["id"] < 10
    (run / "eval" / "after.json").write_text(json.dumps(report))
    write_json(folder / "sc_seed3.json", record_of(run))
    heads, _, row = Results(root).block("toy runs accuracy mean_length").splitlines()
    assert heads == "| arm | seed | right before, % | right after, % | right, gain | `mean_length` before, after |"
    before = np.mean(drawn(13, 0.4), axis=1)
    after = np.where(np.arange(30) < 10, 1.0, before)
    gain = paired_difference(before, after)
    cells = [_text(mean_interval(shares[:, None])) for shares in (before, after)]
    cells.append(_text(gain | {"mean": gain["difference"]}, "+"))
    assert row == f"| `sc` | 3 | {' | '.join(cells)} | 7, 7 |"
    with pytest.raises(UserError, match="no outcome and no metric 'pass@9'; it has .*accuracy.*mean_length"):
        runs_table(folder, "pass@9")


def test_what_is_not_defined_is_a_hyphen():
    """As the interval of a gain that no problem has, or a ratio whose divisor may be 0."""
    assert interval_cell({"mean": 0.0, "low": float("nan"), "high": None}, sign="+") == "+0.0 [-, -]"
    assert interval_cell({"mean": None, "low": None, "high": None}) == "-"


def _text(interval: dict, sign: str = "") -> str:
    mean, low, high = (f"{100 * interval[name]:{sign}.1f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
