"""kill -9 at random moments of saving: the newest complete checkpoint always loads, and no finished save is lost."""

import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.state import load_state, save_state
from tests.processes import PATIENCE, context
from training.checkpoint import find_checkpoint, list_checkpoints, rotate, saving, step_of

KILLS = 50
LONGEST_LIFE = 0.05  # seconds after the first save of a process, several saves long
KEEP = 2


def policy_of(step: int) -> dict[str, torch.Tensor]:
    """4 MB of weights that tell the step they were saved at."""
    return {"weight": torch.full((1000, 1000), float(step)), "bias": torch.full((1000,), float(step))}


def memory_of(step: int) -> dict:
    return {"memory": {"keys": torch.full((step, 384), float(step)), "texts": [f"answer {step}"] * step}, "step": step}


def save(folder, step: int) -> None:
    with saving(folder):
        folder.mkdir(exist_ok=True)
        save_file(policy_of(step), folder / "model.safetensors")
        torch.save({"moments": torch.full((100_000,), float(step))}, folder / "optimizer.pt")
        save_state(memory_of(step), folder)


def save_for_ever(output_dir, connection) -> None:
    """Go on from the newest checkpoint as a run does, and report each save that is finished."""
    torch.set_num_threads(1)
    newest = find_checkpoint(output_dir, "auto", report=lambda reason: None)
    step = step_of(newest) if newest else 0
    while True:
        step += 1
        save(output_dir / f"checkpoint-{step}", step)
        connection.send(step)
        rotate(output_dir, KEEP)


def assert_holds_its_step(folder) -> None:
    """Policy, optimiser and memory of ``folder`` load, and all are of the step that its name says."""
    step = step_of(folder)
    policy, memory = load_file(folder / "model.safetensors"), load_state(folder)
    moments = torch.load(folder / "optimizer.pt", weights_only=True)["moments"]
    assert all(torch.equal(policy[name], tensor) for name, tensor in policy_of(step).items())
    assert (moments == step).all() and memory["step"] == step
    assert torch.equal(memory["memory"]["keys"], memory_of(step)["memory"]["keys"])
    assert memory["memory"]["texts"] == memory_of(step)["memory"]["texts"]


@pytest.mark.fault("F24")
@pytest.mark.fault("F25")
def test_killed_at_random_moments_the_newest_complete_checkpoint_always_loads(tmp_path):
    moments, passed_over = random.Random(0), []
    for _ in range(KILLS):
        connection, theirs = context.Pipe(duplex=False)
        saver = context.Process(target=save_for_ever, args=(tmp_path, theirs))
        saver.start()
        theirs.close()
        assert connection.poll(PATIENCE)
        saver.join(timeout=moments.uniform(0, LONGEST_LIFE))
        saver.kill()
        saver.join(PATIENCE)
        finished = 0
        while connection.poll():
            try:
                finished = connection.recv()
            except EOFError:
                break
        newest = find_checkpoint(tmp_path, "auto", report=passed_over.append)
        assert step_of(newest) >= finished > 0
        assert_holds_its_step(newest)
        assert len(list_checkpoints(tmp_path)) <= KEEP + 2
    # Else the kills would have missed the saves, and nothing would have been tested.
    assert len(passed_over) >= KILLS // 10
