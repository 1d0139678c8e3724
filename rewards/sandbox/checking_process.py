"""T, the process of the tests: runs them on the answer of another process, and gives the verdict."""

import ast
import builtins
import hashlib
from typing import Any

from plain_values import ValueRefused, canonical, decode, encode
from wire import MessageRefused, receive, send


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


class Answer:
    """The answer at the other end of ``pipe``. ``values``: the hash of all that it has returned or raised."""

    def __init__(self, pipe: tuple[int, int]):
        self.inlet, self.outlet = pipe
        self.values = hashlib.sha256()

    def next_message(self) -> tuple[bytes, bytes]:
        """(kind, data) of it. Raises `Broken`."""
        try:
            message = receive(self.inlet)
        except MessageRefused:  # C says by a message when a value is too large; this one is no message
            raise Broken("error") from None
        if message is None:
            raise Broken("error")
        return message

    def call(self, arguments: tuple, named: dict):
        """What its entry point returns. Raises what that raised, as far as it is a builtin exception, or `Broken`."""
        try:
            send(self.outlet, b"C", encode((arguments, named)))
        except BrokenPipeError:
            raise Broken("error") from None
        kind, data = self.next_message()
        value = None
        if kind == b"V":
            try:
                value = decode(data)
            except ValueRefused:
                raise Broken("error") from None
        returned = canonical(value) if kind == b"V" else data
        self.values.update(kind + len(returned).to_bytes(4, "big") + returned)
        if kind == b"V":
            return value
        if kind == b"X":
            known = getattr(builtins, data.decode("ascii", "replace"), None)
            raise known() if _is_plain_exception(known) else AnswerError(data)
        raise Broken("output_limit" if kind == b"L" else "error")


def run_tests(tests: dict, pipe: tuple[int, int]) -> dict:
    """The verdict on the answer at the other end of ``pipe``."""
    answer, counts = Answer(pipe), {"passed": 0, "total": 0}

    def result(verdict: str) -> dict:
        digest = answer.values.hexdigest() if counts["total"] else None
        return {"verdict": verdict, **counts, "digest": digest}

    def asserted(value) -> None:
        counts["total"] += 1
        counts["passed"] += bool(value)

    # A plain function and no method: tests may set its attributes, and pass an argument named self.
    def proxy(*arguments, **named):
        return answer.call(arguments, named)

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
        kind, _ = answer.next_message()
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
