"""Figures of a run folder: written, not blank, and never broken by what a run did not log."""

import json
import math
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.panels import TOPICS, held_out, verdict_panels
from analysis.plots import main, plot_comparison, plot_run
from analysis.runs import read_run
from analysis.style import STYLE, save_figure
from common.errors import UserError


def record(step, steps=20):
    """One logged step with every metric that a run with two bonuses logs."""
    share = step / steps
    values = {
        "step": step,
        "reward": share,
        "reward_std": 0.3,
        "frac_reward_zero_std": 0.5,
        "entropy": 1 - share / 2,
        "kl": 0.01 * share,
        "completions/mean_length": 200 - step,
        "completions/clipped_ratio": 0.1,
        "rewards/correctness/mean": share,
        "rewards/format/mean": 0.1,
        "verdict/right": share,
        "verdict/wrong": 1 - share,
        "verdict/unparsable": 0.0,
    }
    for prefix in ("ir/knn+", "ir/knn+/exploit", "ir/knn+/explore", "ir/cfn"):
        values |= {f"{prefix}/raw_right": share, f"{prefix}/raw_wrong": 1 - share}
    for bonus in ("knn+", "cfn"):
        values |= {f"ir/{bonus}/share_of_advantage": 0.3, f"ir/{bonus}/weight": share}
        values |= {f"ir/{bonus}/advantage_right": 0.1, f"ir/{bonus}/advantage_wrong": -0.1}
    return values


def make_run(folder, records, evals=True):
    (folder / "eval").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    (folder / "run.json").write_text(json.dumps({"flags": {"use_ir": "knn+,cfn"}, "seed": 0}))
    if evals:
        for name, step, mean in (("before", 0, 0.1), ("step_10", 10, 0.2), ("after", 20, 0.4)):
            metric = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": 100}
            metrics = {"accuracy": metric, "pass@8": {**metric, "mean": mean + 0.02}}
            (folder / "eval" / f"{name}.json").write_text(json.dumps({"step": step, "metrics": metrics}))
    return folder


def assert_drawn(file):
    image = matplotlib.image.imread(file)[..., :3]
    assert min(image.shape[:2]) > 200
    assert (image.min(axis=2) < 0.95).mean() > 0.005, f"{file} is blank"


def coloured_share(file):
    """Share of the pixels that are not grey."""
    image = matplotlib.image.imread(file)[..., :3]
    return (np.ptp(image, axis=2) > 0.2).mean()


def test_a_full_run_gets_a_figure_per_topic_and_an_overview(tmp_path):
    files = plot_run(read_run(make_run(tmp_path / "run", [record(step) for step in range(1, 21)])))
    assert {file.stem for file in files} == {"overview", *TOPICS}
    assert {file.parent for file in files} == {tmp_path / "run" / "plots"}
    for file in files:
        assert_drawn(file)


@pytest.mark.parametrize("missing", [key for key in record(1) if key != "step"])
def test_a_metric_that_is_missing_or_null_is_left_out(tmp_path, missing):
    records = [{**record(step), missing: None if step % 2 else math.nan} for step in range(1, 4)]
    run = read_run(make_run(tmp_path / "run", records, evals=False))
    assert not len(run.series(missing))
    for _, build in TOPICS.values():
        build(run)


def test_nothing_but_one_metric_makes_one_panel_without_empty_ones(tmp_path):
    files = plot_run(read_run(make_run(tmp_path / "run", [{"step": 1, "entropy": 0.5}, {"step": 2}], evals=False)))
    assert {file.stem for file in files} == {"overview", "entropy"}


def test_one_logged_step_is_drawn_as_dots_and_a_block(tmp_path):
    """A line or an area over a single step has no extent: it would leave the axes empty."""
    shares = {"verdict/right": 0.3, "verdict/wrong": 0.7}
    files = plot_run(read_run(make_run(tmp_path / "run", [{"step": 1, "entropy": 0.5, **shares}], evals=False)))
    coloured = {file.stem: coloured_share(file) for file in files}
    assert coloured["entropy"] > 5e-5
    assert coloured["verdicts"] > 0.3


def test_evaluations_without_training_are_drawn(tmp_path):
    files = plot_run(read_run(make_run(tmp_path / "run", [])))
    assert {file.stem for file in files} == {"overview", "accuracy"}


def test_a_kind_of_verdict_that_never_occurs_takes_no_label(tmp_path):
    kinds = {"verdict/correct": 0.25, "verdict/new_kind": 0.25, "verdict/no_answer": 0.5, "verdict/syntax": 0.0}
    (panel,) = verdict_panels(read_run(make_run(tmp_path / "run", [{"step": 1, **kinds}, {"step": 2, **kinds}])))
    ax = Figure().add_subplot()
    panel(ax)
    assert [label.get_text() for label in ax.texts] == ["correct", "new_kind", "no_answer"]


def test_infinite_values_are_gaps(tmp_path):
    records = [{"step": step, "entropy": math.inf if step == 2 else 0.5} for step in (1, 2, 3)]
    run = read_run(make_run(tmp_path / "run", records, evals=False))
    assert list(run.series("entropy").index) == [1, 3]
    plot_run(run)


def test_a_dollar_in_the_name_of_a_run_is_no_formula(tmp_path):
    assert_drawn(plot_run(read_run(make_run(tmp_path / "cost_$x_{$", [{"step": 1, "kl": 0.1}], evals=False)))[0])


def test_a_picture_is_what_matplotlib_writes_and_a_failed_one_leaves_that_before_it(tmp_path, monkeypatch):
    def write_some(path, **settings):
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(1, 1))
        figure.savefig(tmp_path / "expected.png", dpi=50, metadata={"records": "digest"})
        path = save_figure(figure, tmp_path / "new" / "out.png", dpi=50, metadata={"records": "digest"})
    assert path.read_bytes() == (tmp_path / "expected.png").read_bytes() and not plt.get_fignums()
    figure = plt.figure()
    monkeypatch.setattr(figure, "savefig", write_some)
    with pytest.raises(OSError, match="no space left"):
        save_figure(figure, path)
    assert path.read_bytes() == (tmp_path / "expected.png").read_bytes() and not plt.get_fignums()
    assert list(path.parent.iterdir()) == [path]


def test_a_comparison_overlays_runs_of_one_name(tmp_path):
    folders = [make_run(tmp_path / parent / "run", [record(s) for s in range(1, 6)]) for parent in "abcdefghij"]
    assert_drawn(plot_comparison([read_run(folder) for folder in folders], tmp_path / "new" / "out.png"))


def test_a_comparison_with_a_run_without_bonus_and_without_evaluation(tmp_path):
    plain = make_run(tmp_path / "plain", [{"step": 1, "reward": 2.0}, {"step": 2, "reward": 3.0}], evals=False)
    full = make_run(tmp_path / "full", [record(1), record(2)])
    assert_drawn(plot_comparison([read_run(plain), read_run(full)], tmp_path / "out.png"))


@pytest.mark.parametrize(
    "arguments", [["{run}", "--out", "a.png"], ["{run}", "{run}"], ["{run}", "{run}", "--out", "a"]]
)
def test_the_command_line_refuses_a_wrong_out(tmp_path, monkeypatch, arguments):
    run = str(make_run(tmp_path / "run", [record(1)]))
    monkeypatch.setattr("sys.argv", ["plots", *(argument.format(run=run) for argument in arguments)])
    with pytest.raises(UserError, match="--out"):
        main()


def test_a_step_logged_again_after_a_resume_counts_once(tmp_path):
    lines = [{"step": 1, "entropy": 1.0, "kl": 0.5}, {"step": 2, "entropy": 2.0}, {"step": 1, "entropy": 3.0}]
    run = read_run(make_run(tmp_path / "run", lines))
    assert list(run.series("entropy").items()) == [(1, 3.0), (2, 2.0)]
    assert list(run.series("kl").items()) == [(1, 0.5)]


def test_a_last_line_cut_off_by_a_kill_is_left_out_with_a_warning(tmp_path, caplog):
    folder = make_run(tmp_path / "run", [record(1)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "entr')
    assert read_run(folder).last_step == 1
    assert "cut off" in caplog.text


@pytest.mark.parametrize("line", ["{broken\n", "[]\n", '{"entropy": 1.0}\n', '{"step": null}\n', '{"step": "1"}\n'])
def test_a_damaged_log_is_named_with_its_line(tmp_path, line):
    folder = make_run(tmp_path / "run", [record(1)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(UserError, match="line 2"):
        read_run(folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        read_run(tmp_path / "missing")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"metrics": 1}'])
def test_a_damaged_evaluation_is_named(tmp_path, content):
    folder = make_run(tmp_path / "run", [record(1)])
    (folder / "eval" / "after.json").write_text(content)
    with pytest.raises(UserError, match="after.json"):
        read_run(folder)


def test_text_and_lists_in_the_log_are_no_numbers(tmp_path):
    lines = [{"step": 1, "entropy": 0.5, "note": "x", "list": [1], "map": {"a": 1}}]
    run = read_run(make_run(tmp_path / "run", lines, evals=False))
    assert not any(len(run.series(column)) for column in ("note", "list", "map"))
    plot_run(run)


def test_evaluation_files_win_over_the_logged_accuracy_at_a_step(tmp_path):
    records = [{**record(step), "eval_accuracy": 0.9} for step in (10, 15)]
    frame = held_out(read_run(make_run(tmp_path / "run", records)))
    assert frame["mean"].to_dict() == pytest.approx({0: 0.1, 10: 0.2, 15: 0.9, 20: 0.4})
    assert np.allclose(frame.loc[[0, 10, 20], ["below", "above"]], 0.05)
