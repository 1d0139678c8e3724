"""The sandbox for a policy's code: the labelled cases, golds, escapes, the codec, and what is left behind."""

import json
import os
import re
import sys
from enum import IntEnum
from pathlib import Path

import pytest

from common.errors import UserError
from evaluation.evaluate import record_of
from evaluation.generate import Sample
from rewards.code import CodeReward, PassedTestsReward, grade_code, judge_code, run_answer, same_output
from rewards.sandbox import pool
from rewards.sandbox.plain_values import Opaque, ValueRefused, canonical, decode, encode
from rewards.sandbox.pool import Sandbox, function_job, open_sandbox
from rewards.sandbox.system_calls import DENIED
from run_code import scoring
from tasks.code.options import CodeOptions, load_problems
from tasks.code.problems import load_code
from tasks.code.prompts import PROMPT_TYPES
from tests.processes import ROOT

DATA = ROOT.parent / "shared" / "data"
CASES = DATA / "code_cases.jsonl"


@pytest.fixture(scope="module", autouse=True)
def box():
    try:
        # 2 seconds each: to fill the memory takes .2, and has taken 1 on a machine that had just started.
        box = open_sandbox("auto", 2, 2)
    except UserError as error:
        found = pool.Server("auto").found
        if found["landlock"] and found["seccomp"]:
            raise  # the machine has all it takes, so the sandbox is broken
        pytest.skip(f"no sandbox here: {error}")
    yield box
    box.close()
    pool._active.clear()


def row_of(tests: dict) -> dict:
    return {
        "entry_point": tests.get("entry_point", ""),
        "test": tests.get("test", ""),
        "helpers": tests.get("prompt", ""),
        "io": tests.get("io", []),
    }


def processes() -> set[str]:
    """Names of the children of this process and of theirs."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    mine = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return mine


@pytest.mark.skipif(not CASES.is_file(), reason="the cases are not at ../shared/data")
def test_every_labelled_case_gets_its_verdict_and_leaves_nothing(box):
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    before = processes(), len(os.listdir("/proc/self/fd")), set(os.listdir("/tmp"))
    grades = box.map(lambda case: grade_code(case["input"], row_of(case["tests"])), cases)
    wrong = [
        (case["id"], grade)
        for case, grade in zip(cases, grades, strict=True)
        if grade.verdict not in (case["verdict"], *case.get("also", []))
        or case["options"] != {tier: getattr(grade, tier) for tier in case["options"]}
    ]
    assert wrong == []
    assert (processes(), len(os.listdir("/proc/self/fd"))) == before[:2]
    assert "left-behind" not in set(os.listdir("/tmp")) - before[2]


SUM = "assert total([1, 2]) == 3\nassert total([]) == 0"
# What an answer might try; none is right, and none may pass or hurt.
ESCAPES = {
    "frames": "import sys\ndef total(x):\n    frame = sys._getframe()\n    while frame:\n"
    "        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:\n"
    "            if 'total([' + chr(49) in str(value):\n                return sum(x)\n        frame = frame.f_back",
    "own memory": "import gc\nneedle = 'total([' + chr(49)\ndef total(x):\n    for value in gc.get_objects():\n"
    "        for part in gc.get_referents(value):\n"
    "            if isinstance(part, (str, bytes)) and part is not needle and needle in str(part):\n"
    "                return sum(x)",
    "files of the tests": "import glob\ndef total(x):\n    return sum(x) if glob.glob('/proc/*/cmdline') and "
    "open('/proc/self/cmdline').read() else None",
    "project": f"def total(x):\n    open({str(ROOT / 'README.md')!r}).read()\n    return sum(x)",
    "writes": "import os\ndef total(x):\n    os.mkdir('/tmp/sandbox-left-behind')\n    return sum(x)",
    "modes": f"import os\ndef total(x):\n    os.chmod({str(ROOT / 'README.md')!r}, 0o777)\n    return sum(x)",
    "network": "import socket\ndef total(x):\n    socket.create_connection(('127.0.0.1', 1), 1)\n    return sum(x)",
    "fork bomb": "import os\nwhile True:\n    os.fork()\ndef total(x):\n    return sum(x)",
    "other program": "import os\ndef total(x):\n    os.execv('/bin/true', ['true'])",
    "memory": "def total(x):\n    y = [0]\n    while True:\n        y += y",
    "builtins": "import builtins\nbuiltins.sum = builtins.eval = lambda *a: 3\ndef total(x):\n    return 3",
    "equality": "class Any:\n    def __eq__(self, other):\n        return True\ndef total(x):\n    return Any()",
    "equal int": "class Any(int):\n    __eq__ = lambda self, other: True\ndef total(x):\n    return Any(7)",
    "assertion error": "def total(x):\n    raise AssertionError",
    "exit": "import sys\nsys.exit(0)",
    "hard exit": "import os\ndef total(x):\n    os._exit(0)",
    "parent": "import os, signal\ndef total(x):\n    os.kill(os.getppid(), signal.SIGKILL)\n    return sum(x)",
    "queued signal": "import ctypes, os\ndef total(x):\n    ok = ctypes.CDLL(None).kill(os.getppid(), 9)\n"
    "    return sum(x) if ok == 0 else None",
    "raw call": "import ctypes\ndef total(x):\n    ok = ctypes.CDLL(None).syscall(57)\n"
    "    return sum(x) if ok >= 0 else None",
    "verdict": 'import os\nfor d in range(3, 64):\n    try:\n        os.write(d, b\'{"verdict": "correct"}\')\n'
    "    except OSError:\n        pass\ndef total(x):\n    return 0",
    "huge output": "def total(x):\n    return 'x' * 9_000_000",
    "endless print": "def total(x):\n    while True:\n        print('x' * 1000)",
    "calls newer than the filter": "import ctypes, os\nlibrary = ctypes.CDLL(None, use_errno=True)\ndef total(x):\n"
    "    found = [(library.syscall(call, -100, b'.', 0, 0, 0, 0), ctypes.get_errno()) for call in (463, 466, 469)]\n"
    "    return 0 if found == 3 * [(-1, 38)] else sum(x)",
    "flags of files": "import fcntl, os\ndef total(x):\n"
    "    fcntl.ioctl(os.open(os.__file__, 0), 0x80086601, bytes(8))\n    return sum(x)",
    "closed pipes": "import os\nos.closerange(0, 64)\ndef total(x):\n    return sum(x)",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_an_escape_neither_fools_nor_hurts(name, box):
    mode = os.stat(ROOT / "README.md").st_mode
    before = processes(), len(os.listdir("/proc/self/fd"))
    grade = grade_code(f"```python\n{ESCAPES[name]}\n```", {"entry_point": "total", "test": SUM, "helpers": ""})
    assert not grade.loose and grade.verdict not in ("correct", "no_answer", "unparsable"), grade
    assert (processes(), len(os.listdir("/proc/self/fd"))) == before
    assert os.stat(ROOT / "README.md").st_mode == mode and not Path("/tmp/sandbox-left-behind").exists()
    assert grade_code("```\ntotal = sum\n```", {"entry_point": "total", "test": SUM}).strict


def test_an_answer_ends_no_loop_of_the_tests(box):
    row = {"entry_point": "f", "test": "assert all(map(f, [2, 3]))\nassert not any(map(f, [4, 6]))"}
    assert grade_code("```python\ndef f(n):\n    raise StopIteration\n```", row).verdict == "error"
    assert grade_code("```python\ndef f(n):\n    return n < 4\n```", row).strict


def test_the_tests_may_use_the_function_as_any_other(box):
    test = "f.seen = 1\nassert f(self=f.seen, x=2) == [1, 2]"
    code = "```python\ndef f(self, x):\n    return [self, x]\n```"
    assert grade_code(code, {"entry_point": "f", "test": test}).strict


def test_no_file_of_the_sandbox_hides_a_module_that_an_answer_may_import():
    names = {path.stem for path in pool.SERVER.parent.glob("*.py")}  # their folder comes first on the answer's path
    assert "child" in names and not names & {*sys.stdlib_module_names, "answer"}


def test_the_longest_part_that_compiles_ends_before_the_first_line_that_does_not(box):
    assert box.longest_part("def f():\n    return 1\nThat is all.\nx = 1") == "def f():\n    return 1"
    assert box.longest_part("That is all.") == ""


def test_a_batch_with_hostile_answers_is_paid_in_order():
    good, bad = "```\ntotal = sum\n```", f"```\n{ESCAPES['fork bomb']}\n```"
    texts = [bad if number % 8 == 3 else good for number in range(32)]
    columns = {"entry_point": "total", "test": SUM, "io": [], "helpers": "", "imports": "", "prefix": ""}
    logged = {}
    paid = CodeReward()(
        [""] * 32, texts, log_metric=logged.__setitem__, **{name: [value] * 32 for name, value in columns.items()}
    )
    assert paid == [float(text is good) for text in texts] and logged["verdict/error"] == 4 / 32


def test_plain_values_keep_type_and_value():
    deep = 1
    for _ in range(60):
        deep = [deep]
    values = (None, True, -0.0, float("inf"), 2**4096, "\ud800", b"\xff", (1, [2, {3: {4}}]), 1j, frozenset({1}), deep)
    for value in values:
        back = decode(encode(value))
        assert type(back) is type(value) and repr(back) == repr(value)
    assert repr(decode(encode(float("nan")))) == "nan"
    assert type(decode(encode(IntEnum("Kind", ["A"]).A))) is int
    opaque = decode(encode(object()))
    assert isinstance(opaque, Opaque) and opaque and opaque != opaque and opaque != 1
    for refused in ([deep], 1 << 40_001):
        with pytest.raises(ValueRefused):
            encode(refused)
    for forged in (b"", b"[", b'["i"]', b'["s", ["l"]]', b'["x"]', b"3", b"[" * 100_000, b'["o", 1, 2]'[:-4]):
        with pytest.raises(ValueRefused):
            decode(forged)


def test_equal_values_have_the_same_canonical_bytes():
    for value, other in (
        ({"a", "b", "c", "d"}, {"d", "c", "b", "a"}),
        ({1: {"x"}, 2: 0}, {2: False, 1: frozenset("x")}),
        ([2, -0.0, 3 + 0j, True], [2.0, 0, 3, 1]),
    ):
        assert value == other and canonical(value) == canonical(other)
    for value, other in (
        ([1], (1,)),
        ("1", 1),
        ([[1], 2], [1, 2]),
        (1.5, 1),
        (b"a", "a"),
        (None, 0),
        ({1: 2}, {(1, 2)}),
    ):
        assert canonical(value) != canonical(other)


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations\n\ndef total(x: List[int]) -> int:\n    return sum(x)",
        "def total(x: List[int]) -> int:\n    return sum(x)",
        "from dataclasses import dataclass\n@dataclass\nclass Node:\n    after: 'Node' = None\ntotal = sum",
    ],
)
def test_ordinary_python_is_no_error_behind_the_imports_of_a_prompt(code, box):
    helpers = "from typing import (\n    Dict,\n    List,\n)\nimport os.path, \\\n    sys\n"
    row = {"entry_point": "total", "test": SUM, "helpers": helpers}
    for answer in (f"```python\n{code}\n```", f"<answer>```python\n{code}\n```</answer>"):
        assert grade_code(answer, row).strict


def test_the_share_of_the_tests_that_an_answer_passes_is_paid(box):
    row = {
        "entry_point": "f",
        "test": "assert f(1) == 1\nassert f(2) == 4\nassert f(3) == 9",
        "helpers": "",
        "imports": "",
    }
    shares = {
        "return n * n": 1.0,
        "return 2 * n if n > 1 else 1": 2 / 3,
        "return n / (n - 2)": 0.0,  # wrong, then an exception
        "return 1 / (n - 2) if n > 1 else 1": 1 / 3,
        "return": 0.0,
    }
    rows = [row | {"io": [], "prefix": ""}] * len(shares)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    texts = [f"```python\ndef f(n):\n    {code}\n```" for code in shares]
    correctness = CodeReward()
    assert correctness([""] * len(texts), texts, **columns) == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert PassedTestsReward(correctness)([""] * len(texts), texts) == list(shares.values())
    program = {"io": [["1\n", "2\n"], ["2\n", "4\n"], ["3\n", "6\n"]]}
    half = "```python\nn = int(input())\nprint(2 * n if n != 1 else 0)\n```"
    assert [judge_code(half, program, whole)[1] for whole in (False, True)] == [0.0, 2 / 3]


def test_programs_are_judged_by_all_of_their_output(box):
    row = {"io": [["2 3\n", "5\n"], ["1 1\n", "2\n"]]}
    add = "a, b = map(int, input().split())\nprint(a + b, ' ')"
    verdicts = {
        add: "correct",
        "print(5)": "wrong",
        add + "\nprint()\nprint(1)": "wrong",
        add + "\nraise SystemExit(3)": "error",
        "while True: print('x' * 10000)": "output_limit",
        "print(": "unparsable",
        "import os\nos.kill(os.getpid(), 9)": "killed",
        "while True: pass": "timeout",
        # The kernel's own signal says that the limit was spent, however little the process's clock shows.
        "import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)": "timeout",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass": "timeout",
    }
    assert {code: grade_code(f"```python\n{code}\n```", row).verdict for code in verdicts} == verdicts
    assert same_output("0.3333333\n\n", "0.33333333") and not same_output("1.0", "1") and not same_output("1", "1\n2")


# Programs that read one number and print the next, each ending in a way of its own.
ENDINGS = {
    "exit": "print(int(input()) + 1)\nexit()",
    "quit": "print(int(input()) + 1)\nquit(0)",
    "thread": "import threading\ndef main():\n    print(int(input()) + 1)\nthreading.Thread(target=main).start()",
    "pool": "from concurrent.futures import ThreadPoolExecutor\nn = int(input())\n"
    "ThreadPoolExecutor(1).submit(lambda: print(n + 1))",
    "atexit": "import atexit, io, sys\nsys.stdout = io.StringIO()\n"
    "atexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))\nprint(int(input()) + 1)",
    "arguments": "import sys\nif len(sys.argv) > 1:\n    sys.stdin = open(sys.argv[1])\nprint(int(input()) + 1)",
    "closed": "import sys\nprint(int(input()) + 1)\nsys.stdout.close()",
    "none": "import sys\nprint(int(input()) + 1)\nsys.stdout = None",
    "replaced": "import io, sys\nprint(int(input()) + 1)\nsys.stdout = io.StringIO()",
    "own file": "import sys\nout = open(1, 'w')\nout.write(str(int(input()) + 1))",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_runs_to_its_end_as_in_python(ending, box):
    row = {"io": [["3\n", "4\n"]]}
    assert grade_code(f"```python\n{ENDINGS[ending]}\n```", row).strict


def test_what_runs_at_the_end_of_a_program_is_limited_and_judged_too(box):
    row = {"io": [["", "4\n"]]}
    verdicts = {
        "print(4)\nexit(1)": "error",
        "print(4)\nexit('no')": "error",
        "import atexit\nprint(4)\natexit.register(print, 5)": "wrong",
        "import atexit\nprint(4)\n@atexit.register\ndef last():\n    while True: pass": "timeout",
        "import threading\nprint(4)\ndef run():\n    while True: pass\nthreading.Thread(target=run).start()": "timeout",
        "import threading\nprint(4)\nthreading.Thread(target=threading.Event().wait, daemon=True).start()": "correct",
        "import os, sys\nprint(4)\nos.close(1)": "error",
    }
    assert {code: grade_code(f"```python\n{code}\n```", row).verdict for code in verdicts} == verdicts


def test_a_function_that_a_prompt_begins_ends_where_other_text_begins():
    row = {"entry_point": "f", "test": "assert f(2) == 4", "prefix": "def f(n):\n"}
    assert grade_code("    return 2 * n\n\nprint(f(1))\nf = None", row).strict
    assert not grade_code("    return n\n", row).medium


def test_where_mechanisms_are_missing_the_sandbox_says_so_or_refuses(monkeypatch, box):
    assert "Landlock" in box.describe() and "seccomp" in box.describe()
    open_box = Sandbox("process", 1, 1)
    assert "CAN read files, write files" in open_box.describe() and "Landlock" not in open_box.describe()
    open_box.close()
    monkeypatch.setattr(pool, "STRICT_ABI", 99)
    with pytest.raises(UserError, match="--sandbox=strict: this machine lacks Landlock 99"):
        Sandbox("strict", 1, 1)
    monkeypatch.setattr(Sandbox, "_self_test", lambda self: ["read files"])
    with pytest.raises(UserError, match="does not hold: an answer can read files; .*--sandbox=process"):
        Sandbox("auto", 1, 1)


def test_a_server_that_died_is_replaced(box):
    for server in box.servers:
        server.process.kill()
    job = function_job("def f():\n    return 1", "", "assert f() == 1", "f")
    assert [box.run(job)["verdict"] for _ in range(3)] == ["correct"] * 3


@pytest.mark.skipif(not (DATA / "mbpp").is_dir(), reason="HumanEval and MBPP are not at ../shared/data")
def test_golds_of_humaneval_and_mbpp_pass(box):
    rows = [*load_code(str(DATA / "humaneval"), "test"), *load_code(str(DATA / "mbpp"), "train")]
    assert len(rows) == 284
    verdicts = box.map(lambda row: run_answer(row["gold"], row)[0], rows[::9])
    assert set(verdicts) == {"correct"}


@pytest.mark.parametrize("prompt_type", PROMPT_TYPES)
def test_the_worked_example_is_paid(prompt_type):
    scores = scoring(CodeOptions(prompt_type=prompt_type))
    columns = {name: [value] for name, value in scores.row.items() if name != "prompt"}
    for column in scores.columns:
        assert column([scores.row["prompt"]], [scores.answer], **columns) == [1.0]


def test_test_sets_are_refused_as_training_data_and_bad_rows_are_named(tmp_path):
    with pytest.raises(UserError, match="HumanEval .* has no training part"):
        CodeOptions(data="openai/openai_humaneval")
    for wrong in ({"split": "test"}, {"data": "mbpp/test.jsonl"}, {"eval_data": "a/my-test.jsonl"}):
        with pytest.raises(UserError, match="run_eval.py reports test rows"):
            CodeOptions(**wrong)
    with pytest.raises(UserError, match="--test_seconds=3601 must be at least 1 and at most 3600"):
        CodeOptions(test_seconds=3601)
    path = tmp_path / "rows.jsonl"
    function = {"prompt": "p", "entry_point": "f", "test": "assert f(1)"}
    mbpp = {"prompt": "p", "code": "def f(x): return x", "test_list": ["assert f(1)"]}
    for row, said in (
        ({"prompt": "p", "entry_point": None, "test": "assert 1"}, "entry point None"),
        ({"prompt": "p", "entry_point": "f", "test": " "}, "has no test"),
        ({"prompt": "p", "entry_point": "class", "test": "assert 1"}, "entry point 'class'"),
        ({"prompt": "p", "entry_point": "f", "test": "assert f("}, "a test that is no Python"),
        ({"prompt": "p", "io": [["1"]]}, "no list of .input, output. pairs"),
        ({"prompt": "p", "io": [1, 2]}, "no list of .input, output. pairs"),
        ({"prompt": "p", "code": None, "test_list": ["assert f(1)"]}, "the code None, which is no text"),
        ({"prompt": "p", "code": "def f(x): 1", "test_list": "assert f(1)"}, "which is no list of texts"),
        ({**function, "test": "f(1)"}, "without an assert"),
        (
            {**function, "test": "class T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)"},
            "without an",
        ),
        ({**function, "canonical_solution": 5}, "canonical_solution 5, which is no text"),
        ({**function, "canonical_solution": ["a"]}, "canonical_solution .'a'., which is no text"),
        ({**mbpp, "test_list": ["f(1)"]}, "without an assert"),
        ({**mbpp, "test_imports": "import math"}, "test_imports 'import math', which are no list"),
        ({**mbpp, "test_imports": [None]}, "test_imports .None., which are no list"),
        ({**mbpp, "test_imports": 3}, "test_imports 3, which are no list"),
        ({**mbpp, "test_imports": ["import ("]}, "test_imports that are no Python"),
    ):
        path.write_text(json.dumps(row) + "\n")
        with pytest.raises(UserError, match=f"row 0 of .*{said}"):
            load_code(str(path))
    for prompt, helpers in (
        ("Sort", ""),
        ("Note: sort", ""),
        ("import math\ndef f(x):\n", None),
        ("def f(x): ...", None),
    ):
        path.write_text(json.dumps({**function, "prompt": prompt}) + "\n")
        assert load_code(str(path))["helpers"][0] == (prompt if helpers is None else helpers)
    good = {"task_id": "HumanEval/0", "prompt": "def f(): ", "entry_point": "f", "test": "assert f()"}
    path.write_text(json.dumps(good) + "\n")
    with pytest.raises(UserError, match="HumanEval .* has no training part"):
        load_problems(CodeOptions(data=str(path)), 4, True, 0)


@pytest.mark.skipif(not (DATA / "mbpp").is_dir(), reason="MBPP is not at ../shared/data")
def test_a_folder_validates_on_its_own_validation_split():
    train, validation = load_problems(CodeOptions(data=str(DATA / "mbpp")), 100, True, 0)
    assert (len(train), len(validation)) == (120, 41)  # without the one that measures the interpreter


def test_records_leave_the_tests_out_and_say_so_when_judged_again():
    row = {"question": "q", "prompt": "q", "entry_point": "f", "test": "assert f()", "helpers": "", "io": [["1", "2"]]}
    record = record_of(row, lambda text, row: grade_code("", row), Sample("", 1, False), {"id": 0})
    assert not {"test", "io", "helpers"} & record.keys()
    with pytest.raises(UserError, match="hold no tests"):
        grade_code(record["completion"], record)


def test_the_numbers_of_system_calls_are_those_of_the_headers():
    headers = {0: "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 1: "/usr/include/asm-generic/unistd.h"}
    for column, header in headers.items():
        if not Path(header).is_file():
            continue
        pairs = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", Path(header).read_text())
        known = {name: int(number) for name, number in pairs[::-1]}
        wrong = {name for name, numbers in DENIED.items() if name in known and known[name] != numbers[column]}
        assert not wrong
