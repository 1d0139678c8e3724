"""Completions made to stall, crash or fool the Countdown scorer: each gets its verdict, none raises."""

import ast
from pathlib import Path

import pytest

from rewards.countdown import CountdownReward, Verdict, judge, judge_reference
from rewards.format import is_well_formed

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1_000_000

SYNTAX_ATTACKS = {
    "power bomb": "9**9**9",
    "power": "2**3",
    "floor division": "7//2",
    "modulo": "7%2",
    "bit shift": "1<<99",
    "name": "x",
    "attribute chain": "(1).__class__.__mro__",
    "lambda": "(lambda:6)()",
    "import": "__import__('os').system('id')",
    "walrus": "(x:=6)",
    "comment": "2*3 # 6",
    "semicolon": "2*3;6",
    "two lines": "2\n3",
    "arabic digit": "٢*3",
    "superscript": "2²",
    "superscript at the end": "2*3²",
    "hexadecimal": "0x2*3",
    "scientific": "2e0*3",
    "underscore": "2_0*3",
    "leading zero": "02*3",
    "decimal": "2.0*3",
    "decimal without zero": ".5*3",
    "20 digits": "9" * 20,
    "100,000 digits": "9" * 100_000,
    "200 brackets": "(" * 200 + "2*3" + ")" * 200,
    "3,000 brackets": "(" * 3000 + "2*3" + ")" * 3000,
    "33 brackets": "(" * 33 + "2*3" + ")" * 33,
    "200 signs": "-" * 200 + "6",
    "empty brackets": "()",
    "unclosed bracket": "(2*3",
    "unopened bracket": "2*3)",
    "implicit multiplication": "2(3)",
    "adjacent numbers": "2 3",
    "tuple": "2*3,",
    "several equals": "2*3=6=6",
    "operator alone": "*",
    "empty": "",
    "whitespace": " \n\t ",
    "nan": "nan",
    "infinity": "inf",
    "true": "True*2*3",
    "nul byte": "2*\0003",
    "lone surrogate": "2*\ud8003",
    "emoji": "2🔥3",
    "full-width power": "２＊＊3",
    "combining mark": "2\u0301*3",
    "1 MB of zero-width spaces": "\u200b" * MEGABYTE + "2*3",
    "1 MB of ligatures": "\ufdfa" * MEGABYTE,
    "1 MB of square brackets": "[" * MEGABYTE,
    "256 ligatures": "\ufdfa" * 256,
    "256 letters x": "2x" * 128,
    "range": "18 or 20",
    "1 MB of digits": "1" * MEGABYTE,
    "1 MB of numbers": "1 " * (MEGABYTE // 2),
    "1 MB of brackets": "(" * MEGABYTE,
    "1 MB of signs": "-" * MEGABYTE,
    "1 MB of equals": "=" * MEGABYTE,
    "1 MB of fractions": "\\frac{" * (MEGABYTE // 6),
    "1 MB of boxes": "\\boxed{" * (MEGABYTE // 7),
    "nested fractions": "\\frac{" * 24 + "1" + "}{1}" * 24 + "}",
}


@pytest.mark.fault("F10")
@pytest.mark.fault("F15")
@pytest.mark.fault("F16")
@pytest.mark.parametrize("answer", SYNTAX_ATTACKS.values(), ids=SYNTAX_ATTACKS)
def test_hostile_answer_is_a_syntax_error(answer):
    completion = f"<think>x</think><answer>{answer}</answer>"
    assert judge(completion, [2, 3], 6) is Verdict.SYNTAX
    assert judge_reference(completion, [2, 3], 6) in (0.0, 0.1)


TAG_ATTACKS = {
    "100,000 opening tags": ("<answer>" * 100_000, Verdict.NO_ANSWER),
    "100,000 closing tags": ("</answer>" * 100_000, Verdict.NO_ANSWER),
    "100,000 answers": ("<answer>2*3</answer>" * 100_000, Verdict.MULTIPLE_ANSWERS),
    "100,000 thoughts opened": ("<think>" * 100_000 + "<answer>2*3</answer>", Verdict.NO_ANSWER),
    "100,000 thoughts closed": ("</think>" * 100_000 + "<answer>2*3</answer>", Verdict.CORRECT),
    "100,000 thoughts": ("<think></think>" * 100_000 + "<answer>2*3</answer>", Verdict.CORRECT),
    "100,000 opening tags before one answer": ("<answer>" * 100_000 + "2*3</answer>", Verdict.CORRECT),
    "1 MB of angle brackets": ("<" * MEGABYTE, Verdict.NO_ANSWER),
    "1 MB of spaces in the answer": (f"<answer>2*{' ' * MEGABYTE}3</answer>", Verdict.CORRECT),
    "1 MB of line ends after the answer": ("<answer>2*3</answer>" + "\n" * MEGABYTE, Verdict.CORRECT),
    "surrogates and nul around the answer": ("\ud800\0<answer>2*3</answer>\udfff\0", Verdict.CORRECT),
    "empty": ("", Verdict.NO_ANSWER),
    "whitespace": (" \n", Verdict.NO_ANSWER),
    "unclosed answer": ("<answer>2*3", Verdict.NO_ANSWER),
    "answer inside thinking": ("<think><answer>2*3</answer></think>", Verdict.NO_ANSWER),
    "answer hidden in thinking, wrong one after": (
        "<think><answer>2*3</answer></think><answer>2+3</answer>",
        Verdict.WRONG_VALUE,
    ),
    "tag split by thinking": ("<ans<think></think>wer>2*3</answer>", Verdict.NO_ANSWER),
}


@pytest.mark.fault("F10")
@pytest.mark.fault("F11")
@pytest.mark.fault("F12")
@pytest.mark.parametrize(("completion", "verdict"), TAG_ATTACKS.values(), ids=TAG_ATTACKS)
def test_hostile_tags_get_their_verdict(completion, verdict):
    assert judge(completion, [2, 3], 6) is verdict
    assert judge_reference(completion, [2, 3], 6) in (0.0, 0.1, 1.0)
    assert not is_well_formed(completion)


def test_one_hostile_completion_leaves_the_others_scored():
    bombs = [f"<answer>{answer}</answer>" for answer in SYNTAX_ATTACKS.values()]
    completions = [*bombs, "<answer>2*3</answer>"]
    count = len(completions)
    rewards = CountdownReward()(
        prompts=[""] * count, completions=completions, numbers=[[2, 3]] * count, target=[6] * count
    )
    assert rewards == [0.0] * len(bombs) + [1.0]


@pytest.mark.fault("F15")
def test_no_scorer_runs_text_as_code():
    for path in sorted((ROOT / "rewards").glob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        called = {func.id for func in calls if isinstance(func, ast.Name)}
        assert not called & {"eval", "exec", "compile", "__import__"}, path.name
