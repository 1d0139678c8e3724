"""The sandbox's server: it forks the confined processes that run and check a policy's Python, and runs none itself.

Started as ``python -I -S child.py MODE`` with an empty environment. **C** (`answer_process`) runs the answer. **T**
(`checking_process`) runs the tests, in which the entry point is a proxy: its arguments go to C as plain values, and a
plain value comes back. The verdict is T's alone. Code and tests are read from standard input by the process that needs
them, so neither the server nor C ever holds a test. C and T talk through two pipes of their own; the server holds the
clock. An exit code is never a verdict. Every import comes before the first fork: a confined process cannot read this
folder.

Request: `HEADER` (kind, bytes of code, bytes of the rest, CPU seconds, bytes of output), code, rest. The rest is
JSON {"helpers", "test", "entry_point"} for a function, the standard input for a program. Reply: 4 bytes of length, then
JSON with verdict, passed, total, digest (functions) or output (programs), and starved: whether the wall clock ran out
while the process was waiting for a processor.
"""

import json
import os
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import confine  # noqa: E402
from answer_process import count_compiling, run_function, run_program  # noqa: E402
from checking_process import run_tests  # noqa: E402
from job_head import FUNCTION, HEADER, PROGRAM  # noqa: E402
from processes import WALL_PER_CPU, end, fork_child, is_starved, read_until, started  # noqa: E402
from wire import MAX_MESSAGE, read_exactly, write_all  # noqa: E402

COMMON = (
    "bisect,cmath,collections,copy,datetime,decimal,fractions,functools,heapq,itertools,math,operator,random,re,"
    "statistics,string,typing,dataclasses,enum,queue,array,textwrap,unicodedata,abc,contextlib,numbers,io"
)


def serve_function(mode: str, code_length: int, rest_length: int, seconds: int) -> dict:
    """Fork C and T, joined by two pipes, and return T's verdict, or what became of them."""
    calls, values, verdict, ready = (os.pipe() for _ in range(4))

    def read_code():
        entry_point, code = read_exactly(0, code_length).split(b"\0", 1)
        os.write(ready[1], b"r")
        return code.decode("utf-8", "surrogatepass"), (calls[0], values[1]), entry_point.decode()

    def read_tests():
        tests = json.loads(read_exactly(0, rest_length))
        os.write(ready[1], b"r")
        return (tests,)

    def test(tests):
        write_all(verdict[1], json.dumps(run_tests(tests, (values[0], calls[1]))).encode())

    answer = fork_child([calls[0], values[1]], mode, seconds, run_function, read_code)
    started(ready)
    tester = fork_child([values[0], calls[1], verdict[1]], mode, WALL_PER_CPU * seconds, test, read_tests)
    started(ready)
    for descriptor in (*calls, *values, verdict[1], *ready):
        os.close(descriptor)
    data, whole = read_until(verdict[0], MAX_MESSAGE, time.monotonic() + WALL_PER_CPU * seconds)
    os.close(verdict[0])
    starved = not whole and is_starved(answer)
    found = json.loads(data) if whole and data else {"verdict": "error" if whole else "timeout"}
    # Where C closed its pipe it is about to end; how it ends says more than T can.
    how, _ = end(answer, seconds, grace=0.5 if found["verdict"] == "error" else 0.0)
    end(tester, WALL_PER_CPU * seconds)
    if found["verdict"] == "error" and how in ("killed", "timeout"):
        found["verdict"] = how
    return {"passed": 0, "total": 0, "digest": None, **found, "starved": starved and how != "timeout"}


def serve_program(mode: str, code_length: int, rest_length: int, seconds: int, most: int) -> dict:
    """Fork a process that runs a program on its standard input, and return what it wrote to standard output."""
    output, status, ready = os.pipe(), os.pipe(), os.pipe()

    def read_request():
        code, given = read_exactly(0, code_length), read_exactly(0, rest_length)
        os.write(ready[1], b"r")
        source = os.memfd_create("input")
        write_all(source, given)
        os.lseek(source, 0, os.SEEK_SET)
        os.dup2(source, 0)
        os.dup2(output[1], 1)
        return (code.decode("utf-8", "surrogatepass"),)

    def run(code):
        for stream in (sys.stdin, sys.stdout):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
        os._exit(run_program(code, status[1]))

    program = fork_child([0, 1, status[1]], mode, seconds, run, read_request)
    started(ready)
    for descriptor in (output[1], status[1], *ready):
        os.close(descriptor)
    data, whole = read_until(output[0], most + 1, time.monotonic() + WALL_PER_CPU * seconds)
    os.close(output[0])
    too_long = len(data) > most
    starved = not whole and not too_long and is_starved(program)
    how, exit_code = end(program, seconds, grace=0.5 if whole else 0.0)
    refused, _ = read_until(status[0], 1, time.monotonic())
    os.close(status[0])
    if too_long:
        verdict = "output_limit"
    elif refused == b"U":
        verdict = "unparsable"
    elif how == "ended":
        verdict = "ended" if exit_code == 0 else "error"
    else:
        verdict = "timeout" if how == "stopped" else how
    return {
        "verdict": verdict,
        "output": data.decode("utf-8", "replace"),
        "starved": starved and how != "timeout",
    }


def serve_compiles(mode: str, code_length: int, rest_length: int, seconds: int) -> dict:
    """How many lines of a text, from its start, are the longest part that compiles."""
    lines, ready = os.pipe(), os.pipe()

    def read_code():
        code = read_exactly(0, code_length)
        read_exactly(0, rest_length)
        os.write(ready[1], b"r")
        return (code.decode("utf-8", "surrogatepass"),)

    def count(code):
        os.write(lines[1], str(count_compiling(code)).encode())

    process = fork_child([lines[1]], mode, seconds, count, read_code)
    started(ready)
    for descriptor in (lines[1], *ready):
        os.close(descriptor)
    data, _ = read_until(lines[0], 16, time.monotonic() + WALL_PER_CPU * seconds)
    os.close(lines[0])
    end(process, seconds)
    return {"lines": int(data or b"0")}


def main(mode: str) -> None:
    """Say which mechanisms there are, then answer requests until standard input ends."""
    for name in COMMON.split(","):
        __import__(name)  # names of the list above: forks need not import them again
    confine.hide_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer's interrupt reaches its whole group
    found = {"landlock": confine.landlock_abi(), "seccomp": confine.has_seccomp()}
    reply(found if mode != "process" else dict.fromkeys(found, 0))
    while len(head := read_exactly(0, HEADER.size)) == HEADER.size:
        kind, code_length, rest_length, seconds, most = HEADER.unpack(head)
        if kind == FUNCTION:
            reply(serve_function(mode, code_length, rest_length, seconds))
        elif kind == PROGRAM:
            reply(serve_program(mode, code_length, rest_length, seconds, most))
        else:
            reply(serve_compiles(mode, code_length, rest_length, seconds))


def reply(found: dict) -> None:
    data = json.dumps(found).encode()
    write_all(1, struct.pack("=I", len(data)) + data)


if __name__ == "__main__":
    main(sys.argv[1])
