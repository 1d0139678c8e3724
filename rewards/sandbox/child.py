"""The one file that runs a policy's Python: a server that forks two confined processes per answer.

Started as ``python -I -S child.py MODE`` with an empty environment. **C** runs the answer. **T** runs the tests, in
which the entry point is a proxy: its arguments go to C as plain values, and a plain value comes back. The verdict is
T's alone. Code and tests are read from standard input by the
process that needs them, so neither the server nor C ever holds a test. C and T talk through two pipes of their own; the
server holds the clock. An exit code is never a verdict.

Request: `HEADER` (kind, bytes of code, bytes of the rest, CPU seconds, bytes of output), code, rest. The rest is
JSON {"helpers", "test", "entry_point"} for a function, the standard input for a program. Reply: 4 bytes of length, then
JSON with verdict, passed, total, digest (functions) or output (programs), and starved: whether the wall clock ran out
while the process was waiting for a processor.
"""

import ast
import builtins
import hashlib
import itertools
import json
import os
import select
import signal
import struct
import sys
import time
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import confine  # noqa: E402
from job_head import FUNCTION, HEADER, PROGRAM  # noqa: E402
from plain_values import ValueRefused, canonical, decode, encode  # noqa: E402

MAX_MESSAGE = 4 << 20
WALL_PER_CPU = 4  # the wall clock is a backstop
HIGH = 1024  # a child closes the descriptors below, but for those it is given
COMMON = (
    "bisect,cmath,collections,copy,datetime,decimal,fractions,functools,heapq,itertools,math,operator,random,re,"
    "statistics,string,typing,dataclasses,enum,queue,array,textwrap,unicodedata,abc,contextlib,numbers,io"
)


def read_exactly(descriptor: int, count: int) -> bytes:
    """``count`` bytes; fewer at the end of the stream."""
    parts = []
    while count:
        part = os.read(descriptor, min(count, 1 << 20))
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def send(descriptor: int, kind: bytes, data: bytes = b"") -> None:
    """One message: 4 bytes of length, one of kind, the data."""
    write_all(descriptor, struct.pack("=I", 1 + len(data)) + kind + data)


def receive(descriptor: int) -> tuple[bytes, bytes] | None:
    """(kind, data) of one message; None at the end of the stream. Raises `ValueRefused` for one that is too long."""
    head = read_exactly(descriptor, 4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("=I", head)
    if not 1 <= length <= MAX_MESSAGE:
        raise ValueRefused("message too long")
    data = read_exactly(descriptor, length)
    return None if len(data) < length else (data[:1], data[1:])


# ---- C: the answer


def module_space(name: str) -> dict[str, Any]:
    """The names of a new module, which can be found by its name, as dataclasses and pickles do."""
    sys.modules[name] = type(sys)(name)
    return sys.modules[name].__dict__


def run_function(code: str, pipe: tuple[int, int], entry_point: str) -> None:
    """Define the answer, then serve calls of its entry point: one message for the definition, one per call."""
    inlet, outlet = pipe
    space = module_space("answer")
    try:
        program = compile(code, "<answer>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
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
    """Run a whole program; returns its exit code. Writes "U" to ``status`` where it does not compile."""
    try:
        program = compile(code, "<answer>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        os.write(status, b"U")
        return 1
    try:
        exec(program, module_space("__main__"))
        exit_code = 0
    except SystemExit as error:
        exit_code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        exit_code = 1
    try:
        sys.stdout.flush()
    except BaseException:
        exit_code = exit_code or 1
    return exit_code & 255


# ---- T: the tests


class AnswerError(Exception):
    """An exception of the answer that is no builtin one."""


class Broken(BaseException):
    """The answer is gone or sent something that is no message; the tests end."""

    def __init__(self, verdict: str):
        self.verdict = verdict


class CountAsserts(ast.NodeTransformer):
    """Every ``assert`` becomes a call that counts it, so that none is passed over and later ones still run."""

    def visit_Assert(self, node):
        call = ast.Call(ast.Name("__asserted__", ast.Load()), [node.test], [])
        return ast.copy_location(ast.Expr(call), node)


def run_tests(tests: dict, pipe: tuple[int, int]) -> dict:
    """The verdict on the answer at the other end of ``pipe``."""
    inlet, outlet = pipe
    counts, values = {"passed": 0, "total": 0}, hashlib.sha256()

    def result(verdict: str) -> dict:
        digest = values.hexdigest() if counts["total"] else None
        return {"verdict": verdict, **counts, "digest": digest}

    def asserted(value) -> None:
        counts["total"] += 1
        counts["passed"] += bool(value)

    def answered() -> tuple[bytes, bytes]:
        try:
            message = receive(inlet)
        except ValueRefused:  # C says by a message when a value is too large; this one is no message
            raise Broken("error") from None
        if message is None:
            raise Broken("error")
        return message

    def proxy(*arguments, **named):
        try:
            send(outlet, b"C", encode((arguments, named)))
        except BrokenPipeError:
            raise Broken("error") from None
        kind, data = answered()
        value = None
        if kind == b"V":
            try:
                value = decode(data)
            except ValueRefused:
                raise Broken("error") from None
        returned = canonical(value) if kind == b"V" else data
        values.update(kind + len(returned).to_bytes(4, "big") + returned)
        if kind == b"V":
            return value
        if kind == b"X":
            known = getattr(builtins, data.decode("ascii", "replace"), None)
            raise known() if _is_plain_exception(known) else AnswerError(data)
        raise Broken("output_limit" if kind == b"L" else "error")

    space: dict[str, Any] = {"__name__": "tests"}
    for helpers in (tests["helpers"], tests["helpers"].rstrip() + "\n    pass\n"):  # a prompt may end in a docstring
        try:
            program = compile(helpers, "<prompt>", "exec")
        except SyntaxError:
            continue
        exec(program, space)
        break
    tree = ast.fix_missing_locations(CountAsserts().visit(ast.parse(tests["test"])))
    program = compile(tree, "<tests>", "exec")
    space |= {tests["entry_point"]: proxy, "__asserted__": asserted}
    try:
        kind, _ = answered()
        if kind != b"D":
            return result("unparsable" if kind == b"U" else "error")
        exec(program, space)
    except Broken as broken:
        return result(broken.verdict)
    except BaseException:
        return result("wrong" if counts["passed"] < counts["total"] else "error")
    return result("correct" if counts["passed"] == counts["total"] > 0 else "wrong")


def _is_plain_exception(known) -> bool:
    """Whether it can be raised without arguments, and ends no loop of the tests, as `StopIteration` would."""
    refused = (UnicodeError, StopIteration, StopAsyncIteration)
    return isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, refused)


# ---- the server


def fork_child(keep: list[int], mode: str, seconds: int, body, prepare=None) -> int:
    """Fork a confined process that runs ``body(*what prepare read)`` and ends; returns its id.

    ``prepare`` reads from standard input before anything of it is closed; ``keep``: the descriptors that stay open.
    """
    child = os.fork()
    if child:
        return child
    try:
        given = prepare() if prepare else ()
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            if descriptor not in keep:
                os.dup2(null, descriptor)
        kept = sorted({2, HIGH, *keep} - {0, 1})
        for low, high in itertools.pairwise(kept):
            os.closerange(low + 1, high)
        confine.limit(seconds)
        if mode != "process":
            confine.confine(landlock=confine.landlock_abi() > 0, seccomp=confine.has_seccomp())
        body(*given)
        os._exit(0)
    except BaseException:
        os._exit(1)


def is_starved(process: int) -> bool:
    """Whether ``process`` wants a processor rather than sleeps."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] == b"R"
    except OSError:
        return False


def read_until(descriptor: int, most: int, deadline: float) -> tuple[bytes, bool]:
    """(what comes from ``descriptor`` until its end, ``most`` bytes or the ``deadline``, whether the end was seen)."""
    parts: list[bytes] = []
    count = 0
    while count < most and select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(descriptor, min(most - count, 1 << 16))
        if not part:
            return b"".join(parts), True
        parts.append(part)
        count += len(part)
    return b"".join(parts), False


def end(process: int, seconds: int, grace: float = 0.0) -> tuple[str, int | None]:
    """Kill ``process``, if it does not end within ``grace`` seconds, and wait for it.

    Returns (how it ended, its exit code): "timeout" where it used up its CPU time, "killed" by another signal than
    ours, "ended" by itself, "stopped" by us.
    """
    deadline = time.monotonic() + grace
    while True:
        done, status, usage = os.wait4(process, os.WNOHANG)
        if done or time.monotonic() >= deadline:
            break
        time.sleep(0.001)
    how = "ended"
    if not done:
        os.kill(process, signal.SIGKILL)
        _, status, usage = os.wait4(process, 0)
        how = "stopped"
    elif os.WIFSIGNALED(status):
        how = "killed"
    spent = usage.ru_utime + usage.ru_stime >= 0.9 * seconds  # as where the answer ignores the signal
    if how != "ended" and (spent or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)):
        how = "timeout"
    return how, os.WEXITSTATUS(status) if os.WIFEXITED(status) else None


def started(ready: tuple[int, int]) -> None:
    """Wait until the child forked last has read its part of the request; the server ends where it could not."""
    if os.read(ready[0], 1) != b"r":
        sys.exit(1)


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
        text = code.split("\n")
        for length in range(len(text), 0, -1):
            try:
                compile("\n".join(text[:length]), "<answer>", "exec")
            except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
                continue
            os.write(lines[1], str(length).encode())
            return

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
