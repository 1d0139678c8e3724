"""Real processes at the price of a fork: a server imports the training script once and forks for every run."""

import multiprocessing
import os
import resource
import sys
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds after which a process counts as hung
TOY = ["--bs", "2", "--num_generations", "4", "--L", "12", "--train_problems", "64", "--do_eval", "0", "--seed", "3"]
TOY += ["--use_ir=knn+", "--explore_warmup", "1", "--encoder", "policy"]

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["run_countdown", "pytest"])


class TrainingProcess:
    """run_countdown.py at toy size in a process of its own, what it prints going to a file.

    Args:
        flags: on top of `TOY`.
        log: file for stdout and stderr.
        prepare: called in the process before the script, with its end of the pipe ``connection``.
        max_file_size: bytes; larger files cannot be written, as under a quota.
    """

    def __init__(self, flags: list[str], log: Path, prepare=None, max_file_size: int | None = None):
        self.log = log
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_train, args=(flags, str(log), theirs, prepare, max_file_size))
        self.process.start()
        theirs.close()

    def wait_for_message(self):
        """What the process sends next through its pipe."""
        assert self.connection.poll(PATIENCE), f"the process is silent: {self.printed}"
        return self.connection.recv()

    def finish(self) -> int:
        """The exit code, once the process has ended."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"the process hangs: {self.printed}")
        return self.process.exitcode

    @property
    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8")


def train(flags: list[str], log: Path, **settings) -> tuple[int, str]:
    """Exit code and output of a whole run."""
    run = TrainingProcess(flags, log, **settings)
    return run.finish(), run.printed


def _train(flags: list[str], log: str, connection: Connection, prepare, max_file_size: int | None) -> None:
    import torch

    import run_countdown
    from training.errors import run_cli

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    if max_file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, max_file_size))
    if prepare is not None:
        prepare(connection)
    sys.argv = ["run_countdown.py", *TOY, *flags]
    run_cli(run_countdown.main)
