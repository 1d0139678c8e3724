"""LaTeX answers compared by math-verify in a process of its own, which a hostile answer cannot hold up for long.

A power tower can keep one C call busy for hours, where neither an alarm nor a thread interrupts it, and math-verify's
alarms work in the main thread alone. So the library runs in a child process with capped memory: its alarms work there,
and whatever they cannot stop is killed with the process. Requests and replies are lines of JSON.

`python -m rewards.latex_worker` is that process. Its libraries do call Python's eval: sympy reads every number that way
(``Integer (18 )``), after latex2sympy's grammar or math-verify's expressions let nothing but digits, operators and
brackets through, and sympy compiles helper functions that it writes itself. So that this rests on no library's grammar,
the process refuses to compile any other text, and to open files for writing, to start programs and to use the network.
"""

import atexit
import importlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from common.errors import RunError

PARSE_SECONDS = VERIFY_SECONDS = 2  # math-verify's own alarms, whole seconds
DEADLINE = 6.0  # seconds until the process is killed
MAX_MEMORY = 4 * 2**30  # bytes of address space
ROOT = Path(__file__).parent.parent

# What sympy compiles: its reading of a number or of plain arithmetic, and functions on the exponents of monomials.
_COMPILED = re.compile(
    r"from sympy import \*|(?:Integer|Float|Rational|log|[0-9eE.,+*/() '-])*"
    r"|def monomial_[a-z]+\([ABk, ]+\):\n[\w\s()=,:+*<>/-]*"
)
_REFUSED = ("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "socket.", "subprocess.", "ctypes.")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """How two texts are read and compared; the fields are arguments of `math_verify.parse` and `verify`.

    Attributes:
        ways: "latex" (environments and boxes), "expr" (plain arithmetic) and "letter" (A to D), any of them.
        whole: the texts are the answers themselves, instead of holding them somewhere.
        units: a unit at the end is taken off; math-verify counts many single letters among the units.
        float_rounding: decimals that floats must share.
        strict: names of variables matter, and sets differ from tuples.
        set_relations: 1 < x < 2 as an answer equals the interval (1, 2) as a gold.
        gold_form: sympy's own text of the gold; an answer with that text is right too.
    """

    ways: tuple[str, ...] = ("latex",)
    whole: bool = False
    units: bool = True
    float_rounding: int = 6
    strict: bool = True
    set_relations: bool = False
    gold_form: str = ""


class _Worker:
    """The child process: started at the first question, and again after it had to be killed."""

    def __init__(self):
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.expired = False

    def ask(self, request: dict) -> bool:
        """The reply to ``request``; False when the process fails or needs more than `DEADLINE` seconds."""
        with self.lock:
            if self.process is None:
                self.process = self._start()
            reply = self._exchange(request)
            if self.expired or not reply:
                self.stop()
            if not reply:
                logger.warning("gave up comparing %.80r with the gold answer %.80r", request["answer"], request["gold"])
            return bool(reply) and json.loads(reply)

    def _exchange(self, request: dict) -> str:
        self.expired = False
        deadline = threading.Timer(DEADLINE, self._expire)
        deadline.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            return self.process.stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            deadline.cancel()
            deadline.join()

    def _expire(self) -> None:
        self.expired = True
        self.process.kill()

    def _start(self) -> subprocess.Popen:
        # A session of its own keeps signals meant for the training (Ctrl-C, SIGTERM to the group) away from it.
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="ascii",
            start_new_session=True,
        )
        if process.stdout.readline() != "ready\n":
            process.kill()
            raise RunError(f"the LaTeX grader's process did not start (exit code {process.wait()}); see its message.")
        return process

    def stop(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


_worker = _Worker()
atexit.register(lambda: _worker.stop())


def _forget_worker() -> None:
    """A forked process must not share the pipes of its parent."""
    global _worker
    _worker = _Worker()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_worker)


@lru_cache(maxsize=4096)
def is_equal(gold: str, answer: str, reading: Reading = Reading()) -> bool:
    """Whether math-verify calls ``answer`` equal to ``gold``, from any thread; False if it cannot say in `DEADLINE`.

    Raises `RunError` when the child process cannot be started.
    """
    return _worker.ask({"gold": gold, "answer": answer, **asdict(reading)})


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def _refuse_code(event: str, arguments: tuple) -> None:
    """Audit hook: raises `PermissionError` on what no comparison needs (see the module's text)."""
    if event == "compile" and str(arguments[1]).startswith("<"):
        source = arguments[0]
        text = source.decode(errors="replace") if isinstance(source, bytes) else source
        refused = isinstance(text, str) and not _COMPILED.fullmatch(text)
    elif event == "open":
        refused = bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    else:
        refused = event.startswith(_REFUSED)
    if refused:
        raise PermissionError(f"the LaTeX grader's process refuses {event}")


def _compare(request: dict) -> bool:
    """The answer to one request (see `Reading`), by math-verify."""
    from math_verify import verify

    gold, answer = _parse(request["gold"], request), _parse(request["answer"], request)
    if request["gold_form"] and request["gold_form"] in map(str, answer):
        return True
    return verify(
        gold or _parse(f"${request['gold']}$", request),
        answer,
        float_rounding=request["float_rounding"],
        strict=request["strict"],
        allow_set_relation_comp=request["set_relations"],
        timeout_seconds=VERIFY_SECONDS,
    )


def _parse(text: str, request: dict) -> list:
    """Candidates that math-verify reads in ``text``: a sympy object, the text it was read from, or none."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse

    normalization = replace(LatexExtractionConfig().normalization_config, units=request["units"])
    configs = {
        "latex": LatexExtractionConfig(boxed_match_priority=0, normalization_config=normalization),
        "expr": ExprExtractionConfig(),
        "letter": StringExtractionConfig(),
    }
    return parse(
        f"\\boxed{{{text}}}" if request["whole"] else text,
        [configs[way] for way in request["ways"]],
        # Of a whole answer no part may stand for it where it cannot be read.
        extraction_mode="first_match" if request["whole"] else "any_match",
        parsing_timeout=PARSE_SECONDS,
    )


def _serve() -> None:
    """Answer requests from standard input, one line of JSON each, until it ends."""
    _limit_memory()
    logging.disable(logging.CRITICAL)
    replies, sys.stdout = sys.stdout, sys.stderr
    # The first use imports sympy and builds the grammar's tables, which must not count against a request's time.
    _compare({"gold": "$\\frac{1}{2}$", "answer": "$\\sqrt{x+1}$", **asdict(Reading())})
    # Its classes are made by compiling text, which comes too late once that is refused.
    importlib.import_module("sympy.integrals.manualintegrate")
    sys.addaudithook(_refuse_code)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(_compare(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    _serve()
