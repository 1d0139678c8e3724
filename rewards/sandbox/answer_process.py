"""C, the process of the answer: the one file that runs a policy's Python, once the process is confined."""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any

from plain_values import decode, encode
from wire import MAX_MESSAGE, receive, send


def module_space(name: str) -> dict[str, Any]:
    """The names of a new module, which can be found by its name, as dataclasses and pickles do."""
    sys.modules[name] = type(sys)(name)
    return sys.modules[name].__dict__


def compiled(code: str) -> CodeType | None:
    """The program that ``code`` is; None where it does not compile."""
    try:
        return compile(code, "<answer>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def run_function(code: str, pipe: tuple[int, int], entry_point: str) -> None:
    """Define the answer, then serve calls of its entry point: one message for the definition, one per call."""
    inlet, outlet = pipe
    space = module_space("answer")
    program = compiled(code)
    if program is None:
        send(outlet, b"U")
        return
    try:
        exec(program, space)
        function = space[entry_point]
        send(outlet, b"D")
    except BaseException as error:
        send(outlet, b"X", type(error).__name__.encode("ascii", "replace")[:80])
        return
    while (message := receive(inlet)) is not None:
        try:
            arguments, named = decode(message[1])
            value = encode(function(*arguments, **named))
        except BaseException as error:
            send(outlet, b"X", type(error).__name__.encode("ascii", "replace")[:80])
            continue
        if len(value) >= MAX_MESSAGE:
            send(outlet, b"L")
        else:
            send(outlet, b"V", value)


def run_program(code: str, status: int) -> int:
    """Run a whole program as Python runs a file without arguments, to the end of its threads and of its exit functions.

    Returns its exit code. Writes "U" to ``status`` where it does not compile.
    """
    program = compiled(code)
    if program is None:
        os.write(status, b"U")
        return 1
    space = module_space("__main__")
    space |= {"exit": sys.exit, "quit": sys.exit}  # of `site`, which the server starts without
    sys.argv = [""]
    try:
        exec(program, space)
        exit_code = 0
    except SystemExit as error:
        exit_code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        exit_code = 1
    return (exit_code if _finish(space) else exit_code or 1) & 255


def _finish(space: dict[str, Any]) -> bool:
    """What Python does at a program's end, in its order; whether what stood in `sys.stdout` could be written."""
    _succeeds(threading._shutdown)  # type: ignore[attr-defined]  # waits for all threads but daemons
    _succeeds(atexit._run_exitfuncs)
    whole = _flushes(getattr(sys, "stdout", None))
    sys.stdout = sys.__stdout__
    _succeeds(space.clear)  # files that the program opened are written as it lets go of them
    _flushes(sys.stdout)
    return whole


def _flushes(stream) -> bool:
    """Whether ``stream`` has nothing left to write; one that is missing or closed has nothing."""
    return _succeeds(lambda: stream is None or getattr(stream, "closed", False) or stream.flush())


def _succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except BaseException:  # an answer's own code, which must not reach the caller
        return False
    return True


def count_compiling(code: str) -> int:
    """How many lines of ``code``, from its start, are the longest part that compiles."""
    lines = code.split("\n")
    for length in range(len(lines), 0, -1):
        if compiled("\n".join(lines[:length])) is not None:
            return length
    return 0
