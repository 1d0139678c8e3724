"""LaTeX answers compared by math-verify in a process of its own, which a hostile answer cannot hold up for long.

A power tower can keep one C call busy for hours, where neither an alarm nor a thread interrupts it, and math-verify's
alarms work in the main thread alone and count the time that other programs take. So the library runs without them in a
child process with capped memory and a limit on its processor time: an exception first, and the end of the process for
what no exception stops.

`python -m rewards.latex_worker` is that process. Its libraries do call Python's eval: sympy reads every number that way
(``Integer (18 )``), after latex2sympy's grammar or math-verify's expressions let nothing but digits, operators and
brackets through, and sympy compiles helper functions that it writes itself. So that this rests on no library's grammar,
the process refuses to compile any other text, and to open files for writing, to start programs and to use the network.
"""

import importlib
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from rewards.worker_process import READY, WorkerProcess

CPU_SECONDS = 4.0  # of processor time for one comparison; one and a half times that end the process
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


_worker = WorkerProcess([sys.executable, "-m", __name__], "compares LaTeX", cwd=ROOT)


@lru_cache(maxsize=4096)
def is_equal(gold: str, answer: str, reading: Reading = Reading()) -> bool:
    """Whether math-verify calls ``answer`` equal to ``gold``, from any thread; False if `CPU_SECONDS` do not suffice.

    Raises `RunError` when the child process cannot be started.
    """
    reply = _worker.ask({"gold": gold, "answer": answer, "seconds": CPU_SECONDS, **asdict(reading)})
    if reply is None or reply["expired"]:
        logger.warning("gave up comparing %.80r with the gold answer %.80r", answer, gold)
    return reply is not None and reply["equal"]


class _Expired(BaseException):
    """The processor time of a comparison is used up; not an `Exception`, as sympy catches those."""


def _expire(number, frame):
    raise _Expired


@contextmanager
def _limit_cpu(seconds: float) -> Iterator[None]:
    """While open: `_Expired` after so much processor time, and the end of the process after half as much again."""
    if not hasattr(signal, "setitimer"):  # not on Windows, where the caller's wall clock ends the process
        yield
        return
    signal.signal(signal.SIGPROF, _expire)
    signal.setitimer(signal.ITIMER_VIRTUAL, 1.5 * seconds)  # its signal is not handled
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


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
        timeout_seconds=None,
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
        parsing_timeout=None,
    )


def _reply(request: dict) -> dict:
    try:
        with _limit_cpu(request["seconds"]):
            return {"equal": bool(_compare(request)), "expired": False}
    except _Expired:
        return {"equal": False, "expired": True}


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
    print(READY, file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(_reply(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    _serve()
