"""The parquet file of a generation batch: every completion with its own prompt, verdict, rewards, scores, advantage."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from intrinsic.pipeline import ScoredBonus
from training.completion_table import BonusColumn, write_completions

PROMPTS = [[{"role": "user", "content": f"question {number}"}] for number in range(3)]


@pytest.fixture
def frame(rollout_factory, tmp_path):
    settings = {"questions": ["q0", "q1", "q2"], "num_generations": 3, "approaches": ["1+2", None, "3"]}
    rollout = rollout_factory(["a", "bb", "cccc"], [1.0, 0.0, 1.0], **settings)
    logs = {
        "prompt": PROMPTS,
        "extra": {"verdict": ["yes", "no", "yes"], "approach": ["1+2", "", "3"]},
        "rewards": {"correctness": [1.0, 0.0, 1.0], "ir_mine_near": [0.1, 0.2, 0.3]},
        "advantages": [0.5, -1.0, 0.75],
    }
    tokens = torch.tensor([[4.0, 9, 9, 9, 9, 9], [2.0, 6, 9, 9, 9, 9], [1.0, 2, 3, 6, 9, 9]])
    raw = {"near": torch.tensor([7.0, 8.0, 9.0]), "far": tokens}
    scored = [ScoredBonus(SimpleNamespace(name="mine"), raw, {}, weight=0.5, nonfinite=0)]
    write_completions(tmp_path / "completions", 7, logs, rollout, scored)
    return pd.read_parquet(tmp_path / "completions" / "step_000007.parquet")


def test_a_row_holds_what_was_asked_said_paid_and_learnt(frame):
    assert [json.loads(prompt) for prompt in frame["prompt"]] == PROMPTS
    columns = {
        "step": [7, 7, 7],
        "question": ["q0", "q1", "q2"],
        "completion": ["a", "bb", "cccc"],
        "correct": [True, False, True],
        "verdict": ["yes", "no", "yes"],
        "right_approaches": [2, 2, 2],
        "coverage@2": pytest.approx([4 / 3] * 3),  # of the three pairs one holds both ways, and two one
        "correctness": [1.0, 0.0, 1.0],
        "ir_mine_near": [0.1, 0.2, 0.3],
        "advantage": [0.5, -1.0, 0.75],
    }
    assert {name: frame[name].tolist() for name in columns} == columns


def test_raw_scores_have_a_column_per_part_and_are_means_over_tokens(frame):
    assert frame["raw_ir_mine_near"].tolist() == [7.0, 8.0, 9.0]
    assert frame["raw_ir_mine_far"].tolist() == [4.0, 4.0, 3.0]


def test_a_bonus_of_one_part_has_a_column_of_its_name_that_starts_at_zero():
    column = BonusColumn("rnd", "rnd")
    assert column.__name__ == "ir_rnd" and column(["a", "b"]) == [0.0, 0.0]
