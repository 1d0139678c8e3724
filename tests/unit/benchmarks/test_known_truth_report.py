"""The known-truth report counts what it says: paired differences, p adjusted for all rows, and words that follow it."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks import known_truth_report
from benchmarks.known_truth_records import Records, curves_by_row
from benchmarks.known_truth_report import COLUMNS, LEVEL, PANELS, comparisons, plot, report
from tests.processes import ROOT


def run(**last):
    """Before training all is half of the last measurement."""
    last = dict.fromkeys(COLUMNS, 0.4) | last
    return [{name: value / 2 for name, value in last.items()} | {"step": 0}, last | {"step": 10}]


@pytest.fixture
def curves():
    """Five seeds of "no", of a bonus that is clear of it, of one that is so before Holm alone, and of a control."""
    spread = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])
    gains = {"cfn": 0.1 + spread / 2, "rnd": 0.018 + spread, "noise": spread}
    base = np.array([0.1, 0.5, 0.3, 0.2, 0.4])
    found = {"no": {seed: run(**{"rare@64": value}) for seed, value in enumerate(base)}}
    for name, gain in gains.items():
        found[name] = {seed: run(**{"rare@64": value}) for seed, value in enumerate(base + gain)}
    return found


def test_differences_are_paired_by_seed_and_p_is_adjusted_for_all_rows(curves):
    found = comparisons(curves, "rare@64")
    p = stats.ttest_1samp([-0.002, 0.008, 0.018, 0.028, 0.038], 0.0).pvalue
    assert found["rnd"]["p"] == pytest.approx(p) and p < 0.07
    assert found["rnd"]["difference"] == pytest.approx(0.018) and found["rnd"]["half"] == pytest.approx(
        0.0196, abs=1e-4
    )
    assert found["rnd"]["p_holm"] == pytest.approx(2 * p) and found["cfn"]["p_holm"] == pytest.approx(
        3 * found["cfn"]["p"]
    )


def test_words_follow_the_adjusted_p(curves):
    for runs in curves["rnd"].values():
        runs[-1]["rare@64"] += 0.004  # p = .036 by itself
    found = comparisons(curves, "rare@64")
    assert found["rnd"]["p"] < 0.05 < found["rnd"]["p_holm"] and found["rnd"]["verdict"] == "indistinguishable"
    assert found["cfn"]["verdict"] == "more" and found["noise"]["verdict"] == "indistinguishable"
    lines = report(curves, ["c0ffee"]).splitlines()
    assert any(line.startswith("| `cfn` | +0.100 ± 0.010 |") and " more |" in line for line in lines)
    assert "| `no` | 5 | 0.400 ± 0.000 | 0.400 ± 0.000 | 0.300 ± 0.196 |" in "\n".join(lines)
    assert "adjusted for the 3 rows" in lines[-3] and lines[-1] == "Code: c0ffee."


def test_seeds_that_were_added_after_a_look_cost_p_as_much_again(curves):
    """Each look at a table is a chance to stop at what chance brought."""
    once, twice = (comparisons(curves, "rare@64", looks=looks) for looks in (1, 2))
    assert all(twice[label]["p_holm"] == min(1.0, 2 * once[label]["p_holm"]) for label in once)
    assert 0 < once["cfn"]["p_holm"] < LEVEL / 2 and once["rnd"]["p_holm"] > 0
    many = comparisons(curves, "rare@64", looks=10**6)
    assert once["cfn"]["verdict"] == "more" and {row["verdict"] for row in many.values()} == {"indistinguishable"}
    assert "and, as seeds were added after a look at the first ones, times 3 looks;" in report(curves, ["c"], looks=3)
    assert "looks" not in report(curves, ["c"])


def test_losses_are_called_less(curves):
    curves["no"], curves["cfn"] = curves["cfn"], curves["no"]
    assert comparisons(curves, "rare@64")["cfn"]["verdict"] == "less"


def test_rows_are_paired_over_common_seeds_and_left_out_below_two(curves):
    curves["rnd"] = {seed: curves["rnd"][seed] for seed in (1, 3)} | {9: curves["rnd"][0]}
    curves["sc"] = {0: curves["cfn"][0]}
    text = report(curves, ["c0ffee"])
    assert "Left out, with fewer than two seeds in common with `no`: sc." in text and "`sc`" not in text
    assert comparisons({"no": curves["no"], "rnd": curves["rnd"]}, "rare@64")["rnd"]["difference"] == pytest.approx(
        0.018
    )
    assert "fewer than two seeds yet" in report({"rnd": curves["rnd"]}, [])


def test_figure_shows_differences_filled_where_clear_after_holm(curves, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(known_truth_report.plt, "close", figures.append)
    plot(curves, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    axis = next(axis for axis in figures[0].axes if axis.get_title("left") == PANELS["rare@64"])
    points = [line for line in axis.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == pytest.approx([0.1, 0.018, 0.0])
    assert [line.get_markerfacecolor() != "white" for line in points] == [True, False, False]
    plot({"no": curves["no"]}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_committed_report_is_that_of_the_committed_records():
    folder = ROOT / "benchmarks" / "results" / "known_truth"
    settings = json.loads(next(folder.glob("no_seed*.json")).read_text())["settings"]
    found = Records(folder, settings).read()
    commits = sorted({str(record["commit"]) for record in found})
    assert report(curves_by_row(found), commits, looks=2) == folder.with_suffix(".md").read_text(encoding="utf-8")
