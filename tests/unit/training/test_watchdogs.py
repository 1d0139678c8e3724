"""The watchdog callback: episodes, log line, file, resume, evaluations; and the two metrics of texts."""

import json
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from intrinsic.focal import Focal
from intrinsic.nsr import NegativeSamples
from intrinsic.rollout import Rollout
from training.run_folder import MetricsFile
from training.watchdogs.callback import (
    WARNINGS_FILE,
    Watchdog,
    WatchdogCallback,
    identical_share,
    judged,
    repetition_rate,
    text_metrics,
)
from training.watchdogs.checks import IDENTICAL, REPETITION
from training.watchdogs.thresholds import Thresholds

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
CLIPPED = "completions/clipped_ratio"

# ---- episodes


def test_one_warning_per_episode_and_a_new_one_after_the_condition_cleared():
    dog = Watchdog(lambda value: value, patience=2)
    seen = [dog.look(value) for value in ("a", "b", None, "c", None, "d", None, None, "e", "f")]
    assert seen == ["a", None, None, None, None, None, None, None, "e", None]


# ---- the callback


def test_a_bonus_that_multiplies_is_not_blamed_for_the_accuracy_that_sets_its_factor():
    assert judged([NegativeSamples(), Focal()]) == ["nsr"]


def state(step):
    return types.SimpleNamespace(global_step=step)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Session:
    """A callback driven as the trainer drives it; what it printed is in ``lines``."""

    def __init__(self, folder, start=0, **arguments):
        self.lines = []
        self.callback = WatchdogCallback(folder, ["knn"], out=self.lines.append, **arguments)
        self.callback.on_train_begin(None, state(start), None)

    def log(self, rows):
        for row in rows:
            logs = {key: value for key, value in row.items() if key != "step"}
            self.callback.on_log(None, state(row["step"]), None, logs=logs)
        return self


def rows_with(truncated):
    """Eighty logged records in which the share of truncated completions becomes ``truncated`` after step 30."""
    return [{"step": step, CLIPPED: 0.05 if step <= 30 else truncated, "entropy": 0.4} for step in range(1, 81)]


def two_failures():
    """Truncation from step 30 on, and a loss of entropy from step 60 on."""
    return [row | ({"entropy": 0.01} if row["step"] > 60 else {}) for row in rows_with(truncated=0.8)]


def evaluation(step, mean, half_width=0.04):
    accuracy = {"mean": mean, "low": mean - half_width, "high": mean + half_width}
    return {"name": f"step_{step:06d}", "step": step, "metrics": {"accuracy": accuracy}}


def test_a_warning_is_one_line_in_the_log_and_one_in_the_file(tmp_path):
    session = Session(tmp_path).log(rows_with(truncated=0.8))
    (line,), (record,) = session.lines, MetricsFile(tmp_path / WARNINGS_FILE).read()
    assert line.startswith(f"warning at step {record['step']}: length runaway: ") and "\n" not in line
    assert f"{record['numbers']['clipped_ratio_after']:.1%} of completions" in line
    assert record["watchdog"] == "length runaway" and "--L" in record["advice"]


def test_a_healthy_run_leaves_an_empty_file_and_no_line(tmp_path):
    session = Session(tmp_path).log(rows_with(truncated=0.1))
    assert session.lines == [] and (tmp_path / WARNINGS_FILE).read_text() == ""


def test_a_resumed_run_warns_as_if_it_had_never_stopped(tmp_path):
    rows = two_failures()
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
    expected = Session(whole).log(rows).lines
    first, second = (record["step"] for record in MetricsFile(whole / WARNINGS_FILE).read())
    assert first < second
    # The first session went on beyond the checkpoint, and warned of what the second will warn of again.
    Session(resumed).log(rows)
    write_lines(resumed / "metrics.jsonl", rows)
    checkpoint = (first + second) // 2
    again = Session(resumed, start=checkpoint).log(rows[checkpoint:])
    assert again.lines == expected[1:]
    assert (resumed / WARNINGS_FILE).read_bytes() == (whole / WARNINGS_FILE).read_bytes()


def test_a_fresh_run_forgets_what_an_earlier_one_left(tmp_path):
    rows = rows_with(truncated=0.8)
    write_lines(tmp_path / "metrics.jsonl", rows)
    Session(tmp_path).log(rows)
    again = Session(tmp_path)
    assert again.lines == [] and (tmp_path / WARNINGS_FILE).read_text() == ""


def test_evaluations_are_watched_and_read_back_on_resume(tmp_path):
    session = Session(tmp_path)
    for step, mean in ((0, 0.2), (50, 0.45), (100, 0.2)):
        session.callback.add_evaluation(evaluation(step, mean))
    assert [line.split(":")[:2] for line in session.lines] == [["warning at step 100", " held-out accuracy fell"]]
    (tmp_path / "eval").mkdir()
    for name, report in (("before", evaluation(0, 0.2)), ("step_000050", evaluation(50, 0.45))):
        (tmp_path / "eval" / f"{name}.json").write_text(json.dumps(report))
    # Of the branch that was given up, and of the end of it: not part of the resumed run.
    (tmp_path / "eval" / "step_000100.json").write_text(json.dumps(evaluation(100, 0.9)))
    (tmp_path / "eval" / "after.json").write_text(json.dumps(evaluation(60, 0.9)))
    again = Session(tmp_path, start=60)
    again.callback.add_evaluation(evaluation(100, 0.4))
    assert again.lines == []
    again.callback.add_evaluation(evaluation(150, 0.2))
    assert "45.0%" in again.lines[0]


def test_only_the_main_process_speaks(tmp_path):
    session = Session(tmp_path, is_main=False).log(two_failures())
    session.callback.add_evaluation(evaluation(0, 0.9))
    session.callback.add_evaluation(evaluation(10, 0.1))
    assert session.lines == [] and list(tmp_path.iterdir()) == []


# ---- texts


@pytest.mark.parametrize(
    ("text", "rate"),
    [("", 0.0), ("a b c", 0.0), ("a b c d", 0.0), ("a b a b a b a", 0.5), ("one two three four five", 0.0)],
)
def test_repetition_rate_is_the_share_of_repeated_fourgrams(text, rate):
    assert repetition_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["a" * 400, "the " * 60, "\n" * 60, "哈" * 400, " " * 200, "so 3 + 4 = 7. " * 20])
def test_a_loop_is_repetition_whatever_repeats(text):
    assert repetition_rate(text) > 0.75


def test_real_solutions_lie_far_below_the_threshold():
    """The threshold rests on this: what models write on GSM8K is no repetition."""
    path = DATA / "gsm8k" / "model_solutions.jsonl"
    if not path.exists():
        pytest.skip("no shared data")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    solutions = [value["solution"] for row in rows for value in row.values() if isinstance(value, dict)]
    rates = [repetition_rate(solution) for solution in solutions]
    assert len(rates) == 2640
    assert np.mean(rates) == pytest.approx(0.09, abs=0.01)
    assert np.quantile(rates, 0.99) < Thresholds().repetition


def test_identical_completions_count_within_their_group_only():
    assert identical_share(["a", "a", "b", "c", "c", "d", "e", "f"], num_generations=4) == pytest.approx(2 / 8)
    assert identical_share(["a", "a", "a", "b"], num_generations=4) == pytest.approx(3 / 4)


def test_text_metrics_of_a_rollout():
    texts = ["a b a b a b a", "a b a b a b a", "one two three four", "five"]
    rollout = Rollout(["q"] * 4, texts, torch.zeros(4), torch.zeros(4), num_generations=4)
    assert text_metrics(rollout) == {REPETITION: pytest.approx(0.25), IDENTICAL: pytest.approx(0.5)}
