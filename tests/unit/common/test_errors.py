"""How a command ends: its exit code, and what it says."""

import os
import subprocess
import sys

import pytest

from common.errors import READER_GONE, run_cli
from tests.processes import ROOT


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_gone_ends_a_command_without_a_traceback(lines):
    """As in ``python -m analysis.summary RUNS | head -1``, whether the text is written at the end or before."""
    code = f"from common.errors import run_cli; run_cli(lambda: print('a line of a table\\n' * {lines}))"
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (READER_GONE, "")


def test_the_broken_pipe_of_a_worker_is_a_fault():
    def main():
        raise BrokenPipeError("worker")

    with pytest.raises(BrokenPipeError, match="worker"):
        run_cli(main)
