"""SIGTERM and SIGINT to a real training process, in the middle of a generation and of an optimiser step."""

import hashlib
import os
import signal

import pytest

from tests.processes import start_training, train
from training.checkpoint import find_checkpoint, list_checkpoints

FLAGS = ["--max_steps", "4", "--save_steps", "4"]


def pause_before(owner: type, method: str, call: int, connection) -> None:
    """Make the given call of ``owner.method`` say so through the pipe and wait for a word to go on."""
    original, calls = getattr(owner, method), 0

    def paused(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            connection.send("paused")
            connection.recv()
        return original(self, *args, **kwargs)

    setattr(owner, method, paused)


def pause_in_generation(connection):
    """Stops before the third token of the second generation, whose completions have 12 tokens each."""
    from transformers import GenerationMixin

    pause_before(GenerationMixin, "prepare_inputs_for_generation", 15, connection)


def pause_in_optimiser_step(connection):
    """Stops in the second optimiser step, between gradients and weights."""
    from torch.optim import AdamW

    pause_before(AdamW, "step", 2, connection)


def pause_in_closing_evaluation(connection):
    """Stops between the end of training and the second evaluation."""
    from evaluation.evaluate import HeldOut

    pause_before(HeldOut, "evaluate", 2, connection)


def pause_and_confirm_signals(connection):
    """As `pause_in_generation`; says when a signal was taken, and a second one counts from then on."""
    from training.callbacks import InterruptCallback

    take = InterruptCallback._handle

    def confirmed(self, number, frame):
        take(self, number, frame)
        connection.send("taken")

    InterruptCallback._handle, InterruptCallback.REPEAT_SECONDS = confirmed, 0.0
    pause_in_generation(connection)


def digests(folder, step=4):
    """SHA-256 of what a finished run has learnt: its policy and its memory."""
    paths = (folder / "final" / "model.safetensors", folder / f"checkpoint-{step}" / "intrinsic_state.safetensors")
    return [digest(path) for path in paths]


def digest(path):
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    code, printed = train([*FLAGS, "--output_dir", str(folder / "run")], folder / "log")
    assert code == 0, printed
    return digests(folder / "run")


@pytest.mark.fault("F23")
@pytest.mark.parametrize(
    ("pause", "number", "exit_code"),
    [(pause_in_generation, signal.SIGTERM, 143), (pause_in_optimiser_step, signal.SIGINT, 130)],
    ids=["TERM in a generation", "INT in an optimiser step"],
)
def test_a_signal_ends_in_a_checkpoint_from_which_the_run_goes_on_as_if_never_stopped(
    pause, number, exit_code, uninterrupted, tmp_path
):
    folder, flags = tmp_path / "run", [*FLAGS, "--output_dir", str(tmp_path / "run")]
    stopped = start_training(flags, tmp_path / "log", prepare=pause)
    assert stopped.wait_for_message() == "paused"
    os.kill(stopped.process.pid, number)
    stopped.connection.send("go on")
    assert stopped.finish() == exit_code, stopped.printed
    assert signal.Signals(number).name in stopped.printed and "Traceback" not in stopped.printed
    (checkpoint,) = list_checkpoints(folder)
    assert find_checkpoint(folder, "auto") == checkpoint == folder / "checkpoint-2"
    code, printed = train([*flags, "--resume", "auto"], tmp_path / "log")
    assert code == 0 and "resuming from" in printed, printed
    assert digests(folder) == uninterrupted


@pytest.mark.fault("F23")
def test_a_second_signal_ends_the_process_at_once(tmp_path):
    flags = [*FLAGS, "--output_dir", str(tmp_path / "run")]
    stopped = start_training(flags, tmp_path / "log", prepare=pause_and_confirm_signals)
    assert stopped.wait_for_message() == "paused"
    os.kill(stopped.process.pid, signal.SIGTERM)
    assert stopped.wait_for_message() == "taken"
    os.kill(stopped.process.pid, signal.SIGTERM)
    assert stopped.finish() == 143
    assert list_checkpoints(tmp_path / "run") == []


@pytest.mark.fault("F23")
def test_interrupted_after_training_the_run_is_evaluated_and_saved_by_the_same_command(tmp_path, uninterrupted):
    flags = [*FLAGS, "--do_eval", "1", "--eval_greedy", "0", "--output_dir", str(tmp_path / "run")]
    run = start_training(flags, tmp_path / "log", prepare=pause_in_closing_evaluation)
    assert run.wait_for_message() == "paused"
    os.kill(run.process.pid, signal.SIGINT)
    assert run.finish() == 130
    assert "--resume auto" in run.printed and "Traceback" not in run.printed
    assert not (tmp_path / "run" / "final").exists()
    code, printed = train([*flags, "--resume", "auto"], tmp_path / "again")
    assert code == 0 and "all 4 steps are trained" in printed and "step 5" not in printed
    assert digests(tmp_path / "run") == uninterrupted
    assert not (tmp_path / "run" / "unevaluated").exists()
    assert not (tmp_path / "run" / "checkpoint-5").exists() and (tmp_path / "run" / "eval" / "after.json").exists()


@pytest.mark.fault("F23")
def test_interrupted_after_training_a_run_without_checkpoints_has_its_policy_in_a_folder_of_its_own(
    tmp_path, uninterrupted
):
    folder = tmp_path / "run"
    flags = [*FLAGS, "--save_strategy", "no", "--do_eval", "1", "--eval_greedy", "0", "--output_dir", str(folder)]
    run = start_training(flags, tmp_path / "log", prepare=pause_in_closing_evaluation)
    assert run.wait_for_message() == "paused"
    os.kill(run.process.pid, signal.SIGINT)
    assert run.finish() == 130
    assert str(folder / "unevaluated") in run.printed and "Traceback" not in run.printed
    assert not (folder / "final").exists()
    assert digest(folder / "unevaluated" / "model.safetensors") == uninterrupted[0]
