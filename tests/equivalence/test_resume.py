"""A run stopped and resumed is the uninterrupted run, bit for bit on CPU, whatever the bonus."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from tests.compare import assert_same_bits
from tests.equivalence.cases import CASES
from tests.equivalence.scripted import build, weights_of


class OneCheckpoint(TrainerCallback):
    """Saves after the first step alone."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save &= state.global_step == 1


@pytest.mark.parametrize("case", CASES)
def test_resumed_run_equals_the_straight_one(case, tmp_path):
    """Stopped after 1 of 3 steps; the second is the last of an epoch."""
    straight = build(CASES[case], tmp_path, max_steps=3, save_strategy="steps", save_steps=1)
    straight.add_callback(OneCheckpoint())
    straight.train()
    resumed = build(CASES[case], tmp_path, max_steps=3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    before = load_file(tmp_path / "checkpoint-1" / "model.safetensors")
    assert any(not torch.equal(before[name], value) for name, value in weights_of(straight).items() if name in before)
    assert_same_bits(weights_of(straight), weights_of(resumed))
    assert_same_bits(straight.bonuses.state_dict(), resumed.bonuses.state_dict())
