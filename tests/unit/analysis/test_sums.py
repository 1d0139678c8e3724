"""Countdown problems that adding all numbers solves, and the others, in the records of a sweep."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.arms import Arm
from analysis.comparison import compare_arms
from analysis.evaluated import EvaluatedRun
from analysis.outcomes import digest_of_problem
from analysis.sums import adding_solves, sums_table
from analysis.sweep import Sweep
from common.errors import UserError
from tasks.countdown.problems import ProblemSpace, generate

FLAGS = {"data": "generate", "min_numbers": 2, "max_numbers": 3, "max_number": 9, "train_problems": 50}
SPACE = ProblemSpace(min_numbers=2, max_numbers=3, max_number=9)
HELD_OUT = generate(20, "validation", 0, SPACE)
SUMS = np.array([sum(problem["numbers"]) == problem["target"] for problem in HELD_OUT])


def evaluated(seed: int, right_on_sums: float, right_on_others: float) -> EvaluatedRun:
    problems = {
        str(place): digest_of_problem({"numbers": row["numbers"], "target": row["target"]})
        for place, row in enumerate(HELD_OUT)
    }
    scores = {"accuracy": np.where(SUMS, right_on_sums, right_on_others)}
    return EvaluatedRun(Path(f"{seed}"), "countdown", seed, FLAGS, "commit", problems, scores)


def test_a_lead_on_sums_is_told_from_a_lead_on_other_problems():
    plain = Arm("no", {seed: evaluated(seed, 0.5, 0.25) for seed in (0, 1)})
    adds = Arm("sc", {seed: evaluated(seed, 1.0, 0.0) for seed in (0, 1)})
    sweep = Sweep("toy", [evaluated(0, 0.4, 0.2)], [plain, adds], compare_arms([plain, adds], plain), [], "")
    table, sentence = sums_table(sweep).split("\n\n")
    heads, _, floor, before, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    ]
    assert (heads[2], heads[5]) == (
        f"right on the {SUMS.sum()} that adding solves, %",
        f"right on the {(~SUMS).sum()} others, %",
    )
    assert [row[2] for row in (floor, before, *rows)] == ["100.0", "40.0", "50.0", "100.0"]
    assert [row[5] for row in (floor, before, *rows)] == ["0.0", "20.0", "25.0", "0.0"]
    assert rows[1][3].startswith("+50.0 [") and rows[1][6].startswith("-25.0 [")
    trained = generate(50, "train", 0, SPACE)
    share = 100 * np.mean([sum(problem["numbers"]) == problem["target"] for problem in trained])
    assert f"{100 * SUMS.mean():.1f} % of these 20 problems, and {share:.1f} % of the 50" in sentence


def test_problems_that_the_flags_do_not_generate_are_refused():
    run = evaluated(0, 1.0, 1.0)
    assert (adding_solves(run) == SUMS).all() and 0 < SUMS.sum() < 20
    for other, said in (
        (replace(run, flags=FLAGS | {"max_number": 12}), "not the one that its flags generate"),
        (replace(run, flags=FLAGS | {"data": "own.jsonl"}), "not of generated Countdown problems"),
        (replace(run, task="sql"), "not of generated Countdown problems"),
    ):
        with pytest.raises(UserError, match=said):
            adding_solves(other)
