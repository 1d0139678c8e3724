"""LaTeX answers: equality, the loose tier's reading, threads, and answers that try to hang the grader."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from common.errors import RunError, UserError
from rewards import latex_worker
from rewards.latex import canonical_latex, grade_latex, last_boxes
from rewards.latex_reading import MAX_LENGTH
from rewards.worker_process import WorkerProcess

ROOT = Path(__file__).resolve().parents[3]
MATH_500 = ROOT / ".." / "shared" / "data" / "math500" / "test.jsonl"
# (gold, answer, whether they are equal)
PAIRS = [
    ("\\frac{1}{2}", "0.5", True),
    ("\\frac{1}{2}", "\\dfrac12", True),
    ("\\frac{1}{3}", "0.333333", False),
    ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt2}", True),
    ("p - q", "-q + p", True),
    ("p - q", "q - p", False),
    ("a + c", "c + a", True),
    ("2h", "2", False),
    ("125\\text{ miles}", "125", True),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)", True),
    ("(1,-2)", "(-2,1)", False),
    ("1,-2", "-2, 1", True),
    ("(a+5)(b+2)", "(b+2)(a+5)", True),
    ("(a+5)(b+2)", "(+5)(b+2)", False),
    ("x \\in [-2,7]", "[-2,7]", True),
    ("[0,9)", "(0,9)", False),
    ("90^\\circ", "90", True),
    ("\\text{Evelyn}", "Evelyn", True),
    ("\\text{Evelyn}", "Carla", False),
    ("12000", "12,000", True),
    ("18", "18.0000001", False),
    ("12345678901234567890", "12345678901234567891", False),
    ("19, 46, 82", "21, 36, 82", False),
    ("7 = 11a + c", "11a + c", False),
]
# What the number grader reads is read here too, with the cautions of mathematics.
PAIRS += [
    *[
        ("24", answer, True)
        for answer in ("Answer: 24", "**Answer**: 24", "The answer is $24$.", "= 24", "20 + 4 = $24.")
    ],
    *[
        ("24", answer, True)
        for answer in ("24 cm^2", "24~cm", "24 m", "24 apples", "2.4e1", "24°", "x = 24", "2 dozen")
    ],
    *[
        ("24", answer, False)
        for answer in ("24m", "24_5", "24 dozen", "24 \\text{ dozen}", "24 and a half", "24 thirds")
    ],
    *[("24", "24 \\text{ and a half}", False), ("2\\sqrt{2}", "2\\sqrt{2} \\text{ dozen}", False)],
    *[
        ("5", answer, False)
        for answer in ("4 or x=5", "4,x=5", "x=2,y=5", "x=2 y=5", "x=2\\\\y=5", "x_1=4,x_2=5", "a+b=2,a=5", "x=2;y=5")
    ],
    *[
        ("12", answer, False)
        for answer in (
            "12\\text{ squared}",
            "12\\text{ tripled}",
            "12\\text{ or more}",
            "12 \\mod 13",
            "12\\text{ five}",
        )
    ],
    *[("12", answer, True) for answer in ("12\\text{ cm squared}", "12\\text{ p.m.}", "12 am")],
    *[
        ("\\ln 2", "ln(2)", True),
        ("\\sin x", "sin(x)", True),
        ("\\cos x", "cos (x)", True),
        ("\\sin x", "cos(x)", False),
    ],
    *[("5", "#### 5", True), ("x+1", "#### x+1", True), ("5", "Rs. 5", True)],
    *[("10\\text{ a.m.}", answer, True) for answer in ("10 am", "10\\text{ AM}", "10")],
    *[("10", "10a.m.", True), ("5", "x=2 \\\\ y=5", False), ("10 am, 3 pm", "10 pm, 3 am", False)],
    *[("10\\text{ a.m.}", "10\\text{ p.m.}", False), ("\\text{5 pm}", "\\text{5 am}", False)],
    *[("10:30\\text{ a.m.}", "10:30\\text{ p.m.}", False), ("\\text{Point A}", "\\text{Point B}", False)],
    ("45000", "$120,000 - $75,000 = $45,000.", True),
    *[("12,\\!096", answer, True) for answer in ("12096", "12,096", "12{,}096", "12\\,096", "12'096", "12 096")],
    *[("8", "8{,}640", False), ("640", "8{,}640", False), ("3000000", "3 million", True)],
    *[("25", "25\\%", True), ("25\\%", "25", True), ("25", "25 per cent", True), ("25", "0.25", False)],
    *[
        ("5", "\\text{not }5", False),
        ("2k", "2000", False),
        ("mn", "nm", True),
        ("x=5", "5", True),
        ("x=5", "y=5", False),
    ],
    *[("0.\\overline{6}", "2/3", True), ("0.\\overline{6}", "0.66", False)],
    *[("\\frac{1}{3}", "0.3333333333333333", True), ("18", "18.0000000000001", False)],
    *[
        ("52_8", f"52{base}", True)
        for base in ("_8", "_{8}", "₈", "_{\\text{eight}}", "_{(8)}", " (base 8)", " base 8")
    ],
    ("52_8", "(52)_8", True),
    *[("52_8", answer, False) for answer in ("52_9", "52", "42", "25_8")],
    *[("52", "52_{10}", True), ("x_1", "x_{1}", True), ("x_1", "x_2", False), ("3", "\\log_2 8", True)],
    *[("1_2+10_2", "10_2 + 1_2", True), ("A3_{16}", "A3_{15}", False)],
    *[("7-3\\sqrt{2}", "7 - 3√2", True), ("7-3\\sqrt{2}", "7 - 3√3", False), ("\\frac{\\sqrt{5}}{5}", "√5/5", True)],
    *[
        ("\\sqrt{x+1}", "√(x+1)", True),
        ("2\\pi", "2π", True),
        ("\\frac{\\pi}{2}", "pi/2", True),
        ("x^{12}", "x¹²", True),
    ],
    *[
        ("7,11", "7 hens and 11 goats", True),
        ("27 and 64", "64, 27", True),
        ("7,11", "7, 12", False),
        ("7,11", "7.11", False),
    ],
    *[
        ("(-\\infty,5)", "x<5", True),
        ("(-\\infty,5)", "x ≤ 5", False),
        ("[2,6]", "2 ≤ x ≤ 6", True),
        ("x<5", "(-∞,5)", True),
    ],
    *[
        (gold, answer, False)
        for gold, answer in (
            ("(0,1)", "\\{0,1\\}"),
            ("\\{0,1\\}", "\\left(0, 1\\right)"),
            ("(\\frac12,3)", "\\left\\{\\frac{1}{2},3\\right\\}"),
            ("[0,1]", "\\{0,1\\}"),
        )
    ],
    *[("\\{0,1\\}", "\\{1,0\\}", True), ("(1,2),(3,4)", "\\{(1,2),(3,4)\\}", True), ("\\{0,1\\}", "0, 1", True)],
    *[
        ("D", answer, True)
        for answer in ("\\text{D}", "(D) 12", "D: 12 apples", "**D**: 12", "D. 12", "The answer is (D).")
    ],
    *[("D", answer, False) for answer in ("A", "(C) 12", "D or (C)", "(D) 12 or (C) 11")],
]


def answered(answer):
    return f"<think>\nwork\n</think>\n<answer>\n{answer}\n</answer>\n"


@pytest.mark.parametrize(("gold", "answer", "equal"), PAIRS)
def test_answers_are_compared_as_mathematics(gold, answer, equal):
    grade = grade_latex(answered(answer), gold)
    assert (grade.strict, grade.medium, grade.loose) == (equal, equal, equal)


def test_equal_spellings_share_one_canonical_text():
    assert len({canonical_latex(text) for text in ("0.5", "\\frac12", "\\dfrac{1}{2}", "1/2", "$0.50$")}) == 1
    assert canonical_latex("\\left( 3, x \\right)") == canonical_latex("(3,\\,x).") != canonical_latex("(3,y)")


@pytest.mark.parametrize(
    "spellings",
    [
        ("1,000", "1000", "1{,}000", "1\\,000 apples", "1e3", "The answer is 1000.", "1 thousand"),
        ("50\\%", "50 percent", "50 per cent"),
        ("2, 1", "1 and 2", "1,2"),
        ("52_8", "52_{8}", "52 (base 8)"),
        ("(D) 12", "D", "\\text{D}"),
    ],
)
def test_equal_answers_are_one_candidate_of_a_vote(spellings):
    assert len({canonical_latex(text) for text in spellings}) == 1


def test_answers_that_may_differ_stay_two_candidates():
    assert len({canonical_latex(text) for text in ("x=5", "y=5", "5", "5_8", "5%", "5x", "(5)!", "1,5", "1.5")}) == 9


def test_canonical_text_never_joins_two_numbers():
    assert canonical_latex("3 1/2") == canonical_latex("7/2") != canonical_latex("31/2")


@pytest.mark.parametrize(
    ("completion", "gold"),
    [
        ("Hence $x-p=\\boxed{2-2p}$.", "2-2p"),
        ("\\[\\boxed{(1, 2)}, \\quad \\text{and} \\quad \\boxed{(2, 1)}\\]", "(2,1),(1,2)"),
        ("The final answer is $[-3,2]$. I hope it is correct.", "[-3,2]"),
        ("so the domain is \\([-3,2]\\)", "[-3,2]"),
        ("there are 12 of them", "12"),
        ("Take 2 of them, which gives $x + y$", "y + x"),
        ("Let $x$ be their number. Then there are 12 of them", "12"),
        ("Profit is $120,000 - $75,000 = $45,000.", "45000"),
        ("so it is \\frac{10}{9}", "10/9"),
        ("The answer is (D).", "\\text{D}"),
        ("so \\boxed{006}. It ends in 006.\n\\boxed{006}", "6"),
        ("<think>\\boxed{1}</think> so \\boxed{\\sqrt{2}}", "\\sqrt{2}"),
    ],
)
def test_loose_tier_finds_the_final_answer(completion, gold):
    grade = grade_latex(completion, gold)
    assert (grade.medium, grade.loose) == (False, True)


@pytest.mark.parametrize(
    ("completion", "gold"),
    [
        ("<think>My answer is \\boxed{42}</think> Some other text.", "42"),
        ("<think>It is \\boxed{42}</think> Here is another: \\boxed{43}.", "42"),
        ("\\boxed{41}, \\boxed{42}", "42"),
        ("\\boxed{\\{41, 42\\}}", "42"),
        ("\\boxed{42} and after a long discussion of the other case \\boxed{41}", "42"),
        (answered("\\frac{1}{2} \\zzz{"), "\\frac{1}{2}"),
        (answered("x + \\frac{1}{2} +"), "\\frac{1}{2}"),
        (answered("5} \\text{"), "5"),
        (answered(""), "0"),
        ("", "x"),
    ],
)
def test_wrong_or_unreadable_answer_is_never_accepted(completion, gold):
    assert not grade_latex(completion, gold).loose


def test_repeated_box_is_one_answer():
    assert last_boxes("\\boxed{5}. $\\boxed{5}$") == "5"


HOSTILE = ["9^{9^{9^{9^9}}}", "9^9^9^9^9", "(((10!)!)!)!", "2^{10000000000}", "{" * 200 + "1" + "}" * 200]
HOSTILE += [
    "(" * 3_000 + "x" + ")" * 3_000,
    "\\sqrt" * 200 + "2",
    "x" * 20_000,
    "9" * 20_000,
    "\0\ud800\u202e²",
    "\\" * 300,
]


@pytest.mark.fault("F15")
@pytest.mark.fault("F16")
@pytest.mark.parametrize("answer", HOSTILE, ids=lambda answer: ascii(answer[:12]))
def test_hostile_answer_is_wrong_and_the_grader_goes_on(answer, monkeypatch):
    monkeypatch.setattr(latex_worker, "CPU_SECONDS", 0.3)
    grade = grade_latex(answered(answer), "x^2 + 1")
    assert not grade.loose and grade.well_formed
    monkeypatch.undo()
    assert latex_worker.is_equal("$x + y$", f"$y + x + {len(answer)} - {len(answer)}$")


@pytest.mark.fault("F16")
def test_a_comparison_that_no_exception_stops_ends_its_process():
    stubborn = "signal.signal(signal.SIGPROF, signal.SIG_IGN)\n    while True: pass"  # as one long call of a C library
    code = f"import signal\nfrom rewards.latex_worker import _limit_cpu\nwith _limit_cpu(0.1):\n    {stubborn}"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=300).returncode == -signal.SIGVTALRM


@pytest.mark.fault("F16")
def test_a_process_that_ended_is_replaced():
    assert latex_worker.is_equal("$x + w$", "$w + x$")
    latex_worker._worker.process.kill()
    assert not latex_worker.is_equal("$x + z$", "$z + x$")
    assert latex_worker.is_equal("$x + y$ ", "$y + x$")


def test_a_comparison_that_an_exception_stops_leaves_its_process_alive(monkeypatch):
    assert latex_worker.is_equal("$x + v$", "$v + x$")
    process = latex_worker._worker.process
    monkeypatch.setattr(latex_worker, "CPU_SECONDS", 0.2)
    assert not latex_worker.is_equal("$3$", "$\\sum_{i=1}^{10^{12}} i^{19}$")
    assert process.poll() is None


def test_what_other_programs_take_does_not_count(monkeypatch):
    monkeypatch.setattr(signal, "alarm", None)  # of the wall clock; math-verify's own limits set it
    request = {"gold": "$x + u$", "answer": "$u + x$", "seconds": 60.0, **asdict(latex_worker.Reading())}
    seen = []
    compare = latex_worker._compare
    monkeypatch.setattr(
        latex_worker, "_compare", lambda asked: seen.extend(map(signal.getitimer, range(3))) or compare(asked)
    )
    assert latex_worker._reply(request) == {"equal": True, "expired": False}
    wall, *processor = (left for left, _ in seen)
    assert wall == 0 and all(left > 50 for left in processor)
    assert all(signal.getitimer(clock)[0] == 0 for clock in range(3))


@pytest.mark.fault("F15")
@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("compile", (b"__import__('os').system('true')", "<string>")),
        ("compile", (b"(Integer(1)).__class__", "<string>")),
        ("compile", ("open('answer')", "<unknown>")),
        ("compile", ("١٨".encode(), "<string>")),
        ("open", ("answer", "w", os.O_WRONLY | os.O_CREAT)),
        ("os.system", (b"true",)),
        ("subprocess.Popen", ("true", ["true"], None, None)),
        ("socket.connect", (None, ("localhost", 80))),
    ],
)
def test_process_refuses_code_writes_and_programs(event, arguments):
    with pytest.raises(PermissionError, match=event):
        latex_worker._refuse_code(event, arguments)


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("compile", (b"from sympy import *", "<string>")),
        ("compile", (b"Float ('7.13' )", "<string>")),
        ("compile", (b"-Integer (5 )", "<string>")),
        ("compile", (b"def monomial_pow(A, k):\n    (a0,) = A\n    return (a0*k,)\n", "<string>")),
        ("compile", (b"import os", "sympy/core/numbers.py")),
        ("open", ("numbers.pyc", "r", os.O_RDONLY)),
    ],
)
def test_process_allows_what_sympy_needs(event, arguments):
    latex_worker._refuse_code(event, arguments)


def test_guard_is_on_in_the_process_once_it_serves():
    serve = "import io, sys, rewards.latex_worker as worker; sys.stdin = io.StringIO(''); worker._serve(); eval('id')"
    result = subprocess.run([sys.executable, "-c", serve], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.stdout == "ready\n"
    assert "PermissionError" in result.stderr


def test_sympy_works_under_the_guard():
    whole = latex_worker.Reading(whole=True)
    assert latex_worker.is_equal("\\frac{x^2 - y^2}{x - y}", "x + y", whole)
    assert latex_worker.is_equal("\\int_0^1 3x^2 dx", "1", whole)


def test_grading_in_threads_gives_the_same_verdicts():
    latex_worker.is_equal.cache_clear()
    assert threading.current_thread() is threading.main_thread()
    with ThreadPoolExecutor(4) as pool:
        grades = list(pool.map(lambda pair: grade_latex(answered(pair[1]), pair[0]).medium, PAIRS * 3))
    assert grades == [equal for _, _, equal in PAIRS] * 3


def test_process_that_cannot_start_stops_the_run(monkeypatch):
    monkeypatch.setattr(latex_worker, "_worker", WorkerProcess(["false"], "compares LaTeX"))
    with pytest.raises(RunError, match="did not start"):
        latex_worker.is_equal("$a$", "$this start fails$")


@pytest.mark.fault("F17")
@pytest.mark.parametrize("gold", ["", "  ", "x" * (MAX_LENGTH + 1), "\\frac{1}{2"])
def test_unusable_gold_is_refused(gold):
    with pytest.raises(UserError, match="gold answer"):
        grade_latex("\\boxed{1}", gold)


@pytest.mark.skipif(not MATH_500.exists(), reason="needs ../shared/data/math500")
def test_every_gold_of_math_500_equals_itself_in_a_box_a_block_and_a_sentence():
    for line in MATH_500.read_text(encoding="utf-8").splitlines():
        gold = json.loads(line)["answer"]
        assert grade_latex(f"Therefore $x = \\boxed{{{gold}}}$.", gold).loose
        assert grade_latex(answered(f"${gold}$"), gold).strict
        assert grade_latex(answered(f"Answer: {gold}"), gold).strict
        assert grade_latex(answered(f"The answer is ${gold}$."), gold).strict
