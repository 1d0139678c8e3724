"""Real processes at the price of a fork: a server imports the entry scripts once and forks for every run.

Four things differ from an interpreter of its own. The report of a training run is left out, which takes longer than the
run, and what the server has imported can hide a missing import: so each script's happy path is run ``fresh``, with its
report and with the project's own modules imported anew. All forks of a server share a hash seed, and environment
variables that are read at import are those of pytest; where that counts, and for one run of each kind (training,
supervised training, evaluation), `run_python` starts an interpreter as a user does.
"""

import gc
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
ROOMS = sorted(file.parent for file in ROOT.glob("*/__init__.py"))  # the folders of the sources
PATIENCE = 300  # seconds after which a process counts as hung
TOY = ["--bs", "2", "--num_generations", "4", "--L", "12", "--train_problems", "64", "--do_eval", "0", "--seed", "3"]
TOY += ["--use_ir=knn+", "--explore_warmup", "1", "--encoder", "policy", "--eval_problems", "8"]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}

context = multiprocessing.get_context("forkserver")
scripts = sorted(path.stem for path in ROOT.glob("run_*.py"))
OURS = {"tests", *scripts, *(room.name for room in ROOMS)}  # first parts of the names of the project's modules
# And what they import only once they need it: text encoder, adapters, evaluation.
PRELOADED = [*scripts, "sentence_transformers", "peft", "evaluation.checkpoint", "pytest"]
# The server looks for it in the folder that pytest was started in; what it does not find is imported by each fork,
# which takes longer.
context.set_forkserver_preload(["tests.preloaded"])


class ScriptProcess:
    """An entry script in a process of its own, what it prints going to files.

    Args:
        script: its file name in the root of the repository, or the name of a module that is run as with ``-m``.
        flags: its command line.
        stdout: file for standard output.
        stderr: file for standard error; by default that for standard output.
        cwd: the folder it runs in.
        prepare: called in the process before the script, with its end of the pipe ``connection``.
        max_file_size: bytes; larger files cannot be written, as under a quota.
        fresh: whether it imports the project's modules itself instead of finding them imported by the server, and
            writes its report.
        environment: variables set before it begins.
    """

    def __init__(
        self,
        script: str,
        flags: Sequence,
        stdout: Path,
        stderr: Path | None = None,
        cwd: Path = ROOT,
        prepare=None,
        max_file_size: int | None = None,
        fresh: bool = False,
        environment: dict[str, str] | None = None,
    ):
        self.files = (stdout, stderr or stdout)
        self.connection, theirs = context.Pipe()
        arguments = [script, *map(str, flags)]
        settings = (arguments, self.files, cwd, theirs, prepare, max_file_size, fresh, environment or {})
        self.process = context.Process(target=_run, args=settings)
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
        """Standard output, then standard error where that goes to a file of its own."""
        return "".join(path.read_text(encoding="utf-8") for path in dict.fromkeys(self.files) if path.exists())


def run_script(
    script: str, *flags, code: int = 0, cwd: Path = ROOT, fresh: bool = False
) -> subprocess.CompletedProcess:
    """A whole run of an entry script, forked; it must end with the exit code ``code``."""
    with tempfile.TemporaryDirectory() as folder:
        files = (Path(folder) / "stdout", Path(folder) / "stderr")
        run = ScriptProcess(script, flags, *files, cwd=cwd, fresh=fresh)
        result = subprocess.CompletedProcess(
            [script, *flags], run.finish(), *(path.read_text("utf-8") for path in files)
        )
    return _checked(result, code)


def run_python(*arguments, code: int = 0, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """A whole run of an interpreter of its own, as a user starts it; it must end with the exit code ``code``."""
    command = [sys.executable, *map(str, arguments)]
    settings = {"capture_output": True, "text": True, "cwd": cwd, "env": os.environ | ENVIRONMENT, "timeout": 300}
    return _checked(subprocess.run(command, **settings), code)


def run_ranks(module: str, *arguments, log: Path, environment: dict[str, str] | None = None) -> None:
    """``python -m module`` as the two processes that a launcher would start, what both print going to files at ``log``.

    Where one fails, the other is not waited for.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    runs = []
    for rank in ("0", "1"):
        variables = (environment or {}) | world | {"RANK": rank, "LOCAL_RANK": rank}
        runs.append(ScriptProcess(module, arguments, log.with_name(f"{log.name}{rank}"), environment=variables))
    running = {run.process.sentinel: run for run in runs}
    try:
        while running:
            ended = wait(list(running), PATIENCE)
            assert ended, f"both processes hang: {[run.printed for run in runs]}"
            for sentinel in ended:
                run = running.pop(sentinel)
                assert run.finish() == 0, run.printed[-3000:]
    finally:
        for run in running.values():
            run.process.kill()


def accelerate_launch(config: str, module: str, *arguments, log: Path) -> None:
    """``accelerate launch --config_file config -m module``; only the processes that torch would start are forks."""
    from accelerate.commands.launch import launch_command, launch_command_parser

    def start(args) -> None:
        run_ranks(args.training_script, *args.training_script_args, log=log, environment=dict(os.environ))

    command = ["--config_file", str(ROOT / config), "--main_process_port", "0", "-m", module, *map(str, arguments)]
    with mock.patch("torch.distributed.run.run", start):
        launch_command(launch_command_parser().parse_args(command))


def _checked(result: subprocess.CompletedProcess, code: int) -> subprocess.CompletedProcess:
    assert result.returncode == code, result.stderr[-3000:] + result.stdout[-1000:]
    return result


def start_training(flags: list[str], log: Path, **settings) -> ScriptProcess:
    """run_countdown.py at toy size, all that it prints going to ``log``."""
    return ScriptProcess("run_countdown.py", [*TOY, *flags], log, **settings)


def train(flags: list[str], log: Path, **settings) -> tuple[int, str]:
    """Exit code and output of a whole run of `start_training`."""
    run = start_training(flags, log, **settings)
    return run.finish(), run.printed


def _run(
    arguments: list[str], files, cwd: Path, connection: Connection, prepare, max_file_size, fresh, environment
) -> None:
    import torch

    gc.freeze()  # walking what the server has imported would take longer than a toy run, and copy its pages
    for path, descriptor in zip(files, (1, 2), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), descriptor)
    os.chdir(cwd)
    os.environ.update(environment | ENVIRONMENT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests are a shell's background job
    torch.set_num_threads(1)
    if max_file_size is not None:
        import resource  # which Windows lacks

        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, max_file_size))
    if prepare is not None:
        prepare(connection)
    sys.path.insert(0, str(ROOT))
    if fresh:
        for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
            del sys.modules[name]
    else:
        import analysis.report

        analysis.report.write_report = lambda folder: folder / "report.html"
    script = arguments[0]
    if script.endswith(".py"):
        sys.argv = [str(ROOT / script), *arguments[1:]]
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        sys.argv = arguments
        runpy.run_module(script, run_name="__main__", alter_sys=True)
