"""Code: does the answer of a completion pass its tests? It runs in `rewards.sandbox` alone."""

import ast
import hashlib
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from common.errors import UserError
from rewards.code_text import MAX_CODE, continued_code, fenced_code, is_code_well_formed, loose_code, with_imports
from rewards.format import completion_text, cut_thinking, last_answer
from rewards.grade import Grade, log_grades
from rewards.sandbox.pool import function_job, program_job, sandbox

SLACK_OUTPUT = 65_536  # bytes that a program may write beside 4 times what it should
TOLERANCE = 1e-6  # of numbers for which the gold output has a decimal point


class CodeVerdict(StrEnum):
    """What the answer at its place is; `CORRECT` alone makes the medium tier true. No exit code is a verdict."""

    CORRECT = "correct"
    WRONG = "wrong"
    ERROR = "error"
    KILLED = "killed"
    TIMEOUT = "timeout"
    OUTPUT_LIMIT = "output_limit"
    UNPARSABLE = "unparsable"
    MULTIPLE_ANSWERS = "multiple_answers"
    NO_ANSWER = "no_answer"


def same_output(found: str, gold: str) -> bool:
    """Whether two outputs are the same line by line, spaces at line ends and empty lines at the end aside.

    A number for which the gold has a decimal point may differ by `TOLERANCE`, absolutely or relatively.
    """
    left, right = ([line.split() for line in text.rstrip().split("\n")] for text in (found, gold))
    return len(left) == len(right) and all(
        len(a) == len(b) and all(map(_same_token, a, b)) for a, b in zip(left, right, strict=True)
    )


def _same_token(found: str, gold: str) -> bool:
    if found == gold:
        return True
    if "." not in gold:
        return False
    try:
        value, target = float(found), float(gold)
    except ValueError:
        return False
    return abs(value - target) <= TOLERANCE * max(1.0, abs(target))


class Ran(NamedTuple):
    """What came of running an answer: its verdict, a hash of what it returned or printed (None where nothing ran), and
    the share of the asserts, or inputs, that it passed."""

    verdict: str
    answer: str | None
    share: float


def run_answer(code: str, row: dict, all_inputs: bool = False) -> Ran:
    """``code`` on the tests of ``row``; a program stops at the first wrong output, but for ``all_inputs``."""
    if len(code) > MAX_CODE or "\0" in code:
        return Ran(CodeVerdict.UNPARSABLE, None, 0.0)
    if row["io"]:
        return _run_program(code, row["io"], all_inputs)
    whole = with_imports(row["imports"], row["helpers"], code)
    helpers = "\n".join(filter(None, (row["imports"], row["helpers"])))
    reply = sandbox().run(function_job(whole, helpers, row["test"], row["entry_point"]))
    right = reply["verdict"] == CodeVerdict.CORRECT
    # An exception ends the tests, so those that did not run count as failed.
    share = 1.0 if right else reply["passed"] / max(1 + reply["passed"], reply["total"], asserts_in(row["test"]))
    return Ran(reply["verdict"], reply["digest"], share)


@lru_cache(maxsize=4096)
def asserts_in(test: str) -> int:
    """How many asserts ``test`` has, those in a loop once."""
    return sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(test)))


def _run_program(code: str, pairs: list, all_inputs: bool) -> Ran:
    outputs, verdict, passed = hashlib.sha256(), CodeVerdict.CORRECT, 0
    for given, gold in pairs:
        reply = sandbox().run(program_job(code, given, 4 * len(gold.encode()) + SLACK_OUTPUT))
        outputs.update(reply.get("output", "").strip().encode("utf-8", "surrogatepass") + b"\0")
        right = reply["verdict"] == "ended" and same_output(reply["output"], gold)
        passed += right
        if not right and verdict == CodeVerdict.CORRECT:
            verdict = CodeVerdict.WRONG if reply["verdict"] == "ended" else reply["verdict"]
        if not right and not all_inputs:
            break
    ran = verdict in (CodeVerdict.CORRECT, CodeVerdict.WRONG)
    return Ran(verdict, outputs.hexdigest() if ran else None, passed / len(pairs))


def grade_code(completion: str, row: dict) -> Grade:
    """`Grade` of ``completion`` by running it on the tests of ``row``; see `judge_code`."""
    return judge_code(completion, row)[0]


def judge_code(completion: str, row: dict, all_inputs: bool = False) -> tuple[Grade, float]:
    """(`Grade` of ``completion`` by running it on the tests of ``row``, share of these that it passes at its place).

    medium: the code at its place passes. Its place is the one answer block, or the text outside the thinking, and there
    the last complete Python fence that defines the entry point (`fenced_code`); a block without a fence counts whole.
    Where ``row["prefix"]`` is a text, the completion goes on with it instead (`continued_code`). strict: medium, and
    `is_code_well_formed`. loose: medium, or, where no code stands there, `loose_code` passes. The answer is a hash of
    the values returned in the tests, or of the outputs, so that programs which do the same count as the same.

    Args:
        row: entry_point, test (asserts), helpers (Python that the tests may use), imports (lines run before either), or
            io (pairs of input and output) for a program; prefix.

    Raises `UserError` where the row has no tests, as the records of an evaluation have none.
    """
    if "test" not in row and "io" not in row:
        raise UserError("records of code hold no tests, so they cannot be judged again; evaluate the policy again.")
    row = {"test": "", "io": [], "helpers": "", "imports": "", "prefix": "", "entry_point": ""} | row
    if row["prefix"]:
        ran = run_answer(continued_code(row["prefix"], completion), row, all_inputs)
        right = ran.verdict == CodeVerdict.CORRECT
        return Grade(right, right, right, ran.answer, str(ran.verdict), True), ran.share
    well_formed = is_code_well_formed(completion)
    outside = cut_thinking(completion)
    block = last_answer(outside)
    code, ran = None, Ran(CodeVerdict.NO_ANSWER, None, 0.0)
    if block is not None and block.repeated:
        ran = ran._replace(verdict=CodeVerdict.MULTIPLE_ANSWERS)
    else:
        code = fenced_code(outside if block is None else block.text, row["entry_point"])
        if code is None and block is not None and block.text.strip():
            code = block.text.strip("\n")
    if code is not None:
        ran = run_answer(code, row, all_inputs)
    medium = loose = ran.verdict == CodeVerdict.CORRECT
    answer = ran.answer
    if code is None and (other := loose_code(completion, row["entry_point"])) is not None:
        found = run_answer(other, row)
        answer, loose = found.answer, found.verdict == CodeVerdict.CORRECT
    return Grade(medium and well_formed, medium, loose, answer, str(ran.verdict), well_formed), ran.share


class CodeReward:
    """TRL reward column "correctness": 1.0 where the answer passes all its tests (medium tier), else 0.0.

    Answers are run on all workers of the sandbox at once. Logs verdict and answer of each completion, the share of each
    verdict, and the tiers.

    Args:
        all_inputs: whether programs run on all inputs, for `PassedTestsReward`, and not up to the first wrong output.
    """

    __name__ = "correctness"
    full = 1.0

    def __init__(self, all_inputs: bool = False):
        self.all_inputs = all_inputs
        self.shares: list[float] = []

    def __call__(
        self,
        prompts,
        completions,
        entry_point,
        test,
        io,
        helpers,
        imports,
        prefix,
        log_extra=None,
        log_metric=None,
        **kwargs,
    ) -> list[float]:
        names = ("entry_point", "test", "io", "helpers", "imports", "prefix")
        columns = zip(entry_point, test, io, helpers, imports, prefix, strict=True)
        rows = [dict(zip(names, row, strict=True)) for row in columns]
        pairs = list(zip(map(completion_text, completions), rows, strict=True))
        judged = sandbox().map(lambda pair: judge_code(pair[0], pair[1], self.all_inputs), pairs)
        grades, self.shares = [grade for grade, _ in judged], [share for _, share in judged]
        log_grades(log_extra, log_metric, grades, CodeVerdict)
        return [float(grade.medium) for grade in grades]


class PassedTestsReward:
    """TRL reward column "tests": the share of the asserts, or inputs, that the answer passes, as open-r1 pays it.

    It reads what ``correctness``, which has to be called before it on the same completions, has run.
    """

    __name__ = "tests"
    full = 1.0

    def __init__(self, correctness: CodeReward):
        self.correctness = correctness

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        return list(self.correctness.shares)


class CodeFormatReward:
    """TRL reward column "format": 1.0 for a completion with one Python fence at its end (`is_code_well_formed`)."""

    __name__ = "format"
    full = 1.0

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        return [float(is_code_well_formed(completion_text(completion))) for completion in completions]
