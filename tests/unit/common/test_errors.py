"""How a command ends: its exit code, and what it says; and what it says of a number out of range."""

import math
import os
import re
import subprocess
import sys

import pytest

from common.errors import READER_GONE, UserError, check_number, run_cli
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


@pytest.mark.parametrize(
    ("value", "limits", "words"),
    [
        (0, {"least": 1}, "at least 1"),
        (-0.5, {"least": 0}, "a finite number, at least 0"),
        (math.inf, {"least": 0}, "a finite number, at least 0"),
        (math.nan, {}, "a finite number"),
        (-math.inf, {}, "a finite number"),
        (0.0, {"above": 0, "most": 1}, "above 0 and at most 1"),
        (math.nan, {"least": 0, "below": 1}, "at least 0 and below 1"),
        (7, {"least": 2, "most": 6}, "at least 2 and at most 6"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_allowed_ones(value, limits, words):
    with pytest.raises(UserError, match=re.escape(f"--size={value} must be {words}.")):
        check_number("size", value, **limits)


@pytest.mark.parametrize("value, limits", [(1, {"least": 1, "most": 1}), (1e-9, {"above": 0}), (10**400, {"least": 0})])
def test_a_number_at_its_limit_is_taken(value, limits):
    check_number("size", value, **limits)
