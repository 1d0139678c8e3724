"""An allocation that really fails, in a real training process."""

import re

import pytest

from tests.processes import train
from training.checkpoint import find_checkpoint

# What saves memory depends on the precision, and its default on the machine.
FLAGS = ["--max_steps", "4", "--save_steps", "2", "--bf16", "false"]


def fail_in_the_third_step(connection):
    """Asks for more memory than any machine has, in the third backward pass."""
    import torch

    from training.trainer import IntrinsicGRPOTrainer

    compute = IntrinsicGRPOTrainer._compute_loss

    def compute_loss(self, model, inputs):
        if self.state.global_step == 2:
            torch.empty(2**60)
        return compute(self, model, inputs)

    IntrinsicGRPOTrainer._compute_loss = compute_loss


def fail_at_once(connection):
    """Asks for more memory than any machine has, in the first step."""
    import torch

    from training.trainer import IntrinsicGRPOTrainer

    IntrinsicGRPOTrainer._compute_loss = lambda self, model, inputs: torch.empty(2**60)


@pytest.mark.fault("F22")
def test_out_of_memory_names_peak_and_flags_and_leaves_the_last_checkpoint(tmp_path):
    folder = tmp_path / "run"
    code, printed = train([*FLAGS, "--output_dir", str(folder)], tmp_path / "log", prepare=fail_in_the_third_step)
    message = printed.splitlines()[-1]
    assert code == 1 and re.match(r"error: out of memory at a peak of \d+\.\d\d GiB \(.*can't allocate memory", message)
    flags = re.findall(r"(--\w+)[ \w]*\(about", message)
    assert flags == ["--micro_batch", "--gradient_checkpointing", "--sampling_batch", "--lora", "--L"]
    checkpoint = find_checkpoint(folder, "auto")
    assert checkpoint.name == "checkpoint-2" and f"{checkpoint} is complete" in message and "--resume auto" in message


@pytest.mark.fault("F22")
def test_the_dry_run_says_so_before_anything_is_written(tmp_path):
    folder = tmp_path / "run"
    flags = ["--dry_run", "--output_dir", str(folder)]
    code, printed = train(flags, tmp_path / "log", prepare=fail_at_once)
    message = printed.splitlines()[-1]
    assert code == 1 and message.startswith("error: out of memory") and message.endswith("Nothing was written.")
    assert not folder.exists()
