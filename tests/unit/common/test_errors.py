"""How a command ends: its exit code, and what it says."""

import os
import subprocess
import sys

import pytest

from common.errors import READER_GONE, run_cli
from tests.processes import ROOT

TABLE = "print('a line of a table\\n' * 10_000)"


def ended(main, stdout, buffered=True):
    """Exit code and stderr of a command whose ``main`` does what the code says."""
    code = f"""
import sys
from common.errors import RunError, UserError, run_cli
def main():
    {main}
run_cli(main)
"""
    environment = os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1"}
    command, captured = [sys.executable, "-c", code], {"stderr": subprocess.PIPE, "text": True}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=stdout, check=False, **captured)
    return done.returncode, done.stderr


@pytest.fixture
def unread():
    """The writing end of a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_has_gone_leaves_no_traceback(unread, buffered):
    """As in ``python -m analysis.summary RUNS | head -1``, while the text is written or at the end."""
    assert ended(TABLE, unread, buffered) == (READER_GONE, "")
    assert ended("print('short')", unread, buffered) == (0 if buffered else READER_GONE, "")


def test_a_reader_that_has_gone_hides_no_other_end(unread):
    assert ended("print('x'); raise UserError('bad')", unread) == (2, "error: bad\n")
    assert ended("print('x'); raise RunError('ended')", unread) == (1, "error: ended\n")
    assert ended("print('x'); sys.exit(3)", unread) == (3, "")


def test_a_command_without_stdout_ends_as_others():
    assert ended("sys.stdout = None", None) == (0, "")


def test_the_broken_pipe_of_a_worker_is_a_fault():
    def main():
        raise BrokenPipeError("worker")

    with pytest.raises(BrokenPipeError, match="worker"):
        run_cli(main)
