"""Completions nobody thought of: every reward and grader gives a verdict of the right type, quickly, without an error.

LaTeX answers are compared in a process of its own; its time is bounded there (`rewards.latex_worker.CPU_SECONDS`).
"""

import math

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from intrinsic.rollout import reasoning_text
from rewards import latex
from rewards.code_text import fences
from rewards.countdown import CountdownReward
from rewards.format import FormatReward
from rewards.grade import Grade
from rewards.graders import GRADERS
from rewards.gsm8k import StepsReward, gsm8k_rewards, math_rewards
from rewards.igsm import igsm_rewards
from tests.quick import assert_quick

MAX_SECONDS_OF_A_BOMB = 0.01
MAX_SECONDS_OF_A_RUN = 0.3  # three times what the slowest needs
MAX_TOKENS = 256

# What the graders look for, whole and broken, and what is made to hurt them.
FRAGMENTS = [
    *("<answer>", "</answer>", "<think>", "</think>", "<reasoning>", "</reasoning>", "<ans", "wer>", "</", "<", ">"),
    *("\\boxed{", "\\boxed", "{", "}", "$", "$$", "\\(", "\\)", "\\[", "\\]", "\\frac{1}{2}", "\\sqrt", "^", "_", "\\"),
    *("####", "answer is ", "Answer:", "A:", "Step 1:", "1.", " or ", " and ", "=", "≈", "<<1+1=2>>", "<|im_end|>"),
    *("2", "3", "42", "1,080", "0.5", ".5", "1e9", "9e999", "5%", "half", "million", "-", "+", "*", "/", "**", "//"),
    *("(", ")", ",", " ", "\n", "\t", "\r", "\0", "\ud800", "\udfff", "\u202e", "\u200b", "\ufeff", "²", "٣", "½", "𝟛"),
    *("__import__('os').system('id')", "().__class__", "lambda:0", "9**9**9", "nan", "inf", "1/0", "x:=1", "😀", "é"),
]
repeated = st.builds(lambda part, count: part * count, st.sampled_from(FRAGMENTS), st.integers(1, 4000))
pieces = (
    st.sampled_from(FRAGMENTS) | st.text(st.characters(), max_size=8) | st.from_regex(r"[0-9]{1,30}", fullmatch=True)
)
texts = (
    st.lists(pieces, max_size=25).map("".join)
    | st.tuples(st.lists(pieces, max_size=6).map("".join), repeated, st.lists(pieces, max_size=6).map("".join)).map(
        "".join
    )
    | st.text(st.characters(), max_size=200)
)
completions = (texts | texts.map(lambda text: f"<think>a</think><answer>{text}</answer>")).map(
    lambda text: text[:20_000]
)

GOLDS = {
    "number": {"gold": "42"},
    "latex": {"gold": "\\frac{1}{2}"},
    "countdown": {"numbers": [2, 3, 7], "target": 42},
    "igsm": {"gold": "7"},
    "choice": {"choices": ["iron", "a gas", "copper", "42"], "gold": "42"},
}
# Code and SQL are run: test_code_sandbox.py and test_sql_grader.py in tests/unit/rewards/ have their hostile answers.
TEXT_GRADERS = {name: grade for name, grade in GRADERS.items() if name not in ("code", "sql")}
COLUMNS = [
    *gsm8k_rewards(GRADERS["number"], legacy=False, cosine=True, max_length=MAX_TOKENS),
    *gsm8k_rewards(GRADERS["number"], legacy=True, cosine=True, max_length=MAX_TOKENS),
    *math_rewards(GRADERS["latex"], cosine=True, max_length=MAX_TOKENS),
    *igsm_rewards(),
    CountdownReward(),
    CountdownReward(strict_line=True),
    FormatReward(),
    StepsReward(),
]


def row_of(completion: str) -> dict:
    """What TRL hands to a reward column, for one completion of any task."""
    return {
        "prompts": ["question"],
        "completions": [completion],
        "completion_ids": [[1] * len(completion)],
        "gold": ["42"],
        "gold_text": ["42"],
        "answer": [7],
        "numbers": [[2, 3, 7]],
        "target": [42],
    }


fuzzed = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],  # explaining a failure traces every line, which takes time
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def without_math_verify(monkeypatch):
    """What the fast path cannot tell counts as wrong, so that no other process is asked."""
    monkeypatch.setattr(latex, "is_equal", lambda gold, answer, reading: False)


def assert_is_grade(grade: Grade) -> None:
    """Every field has its type, and the tiers are nested."""
    assert isinstance(grade, Grade)
    assert {type(value) for value in (grade.strict, grade.medium, grade.loose, grade.well_formed)} == {bool}
    assert grade.answer is None or isinstance(grade.answer, str)
    assert type(grade.verdict) is str and grade.verdict
    assert grade.strict <= grade.medium <= grade.loose


BOMBS = {
    "powers": "9**9**9**9",
    "tower": "9^" * 3_000 + "9",
    "digits": "9" * 100_000,
    "brackets": "(" * 3_000 + "2" + ")" * 3_000,
    "signs": "-" * 3_000 + "2",
    "fractions": "\\frac{" * 3_000 + "1" + "}{1}" * 3_000,
    "boxes": "\\boxed{" * 800 + "1" + "}" * 800,
    "exponent": "1e999999999",
}


@pytest.mark.fault("F16")
@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", TEXT_GRADERS)
def test_a_bomb_is_refused_quickly(name, bomb, without_math_verify):
    completion = f"<think>a</think><answer>{BOMBS[bomb]}</answer>"
    grade, row = TEXT_GRADERS[name], GOLDS[name]
    assert not grade(completion, row).loose
    assert_quick(lambda: grade(completion, row), MAX_SECONDS_OF_A_BOMB)


RUNS = {
    "spaces after a word": "The answer" + " " * 20_000 + "\nis unclear",
    "spaces after a fence": "```" + " " * 20_000 + "!",
    "opening tags": "<think>" * 3_000,
    "different boxes": ",".join(f"\\boxed{{{number}}}" for number in range(6_000)),
    "tags of an answer that never ends": "<reasoning>" + "</reasoning><answer>" * 3_000,
}
TEXT_READERS = [fences, reasoning_text]


@pytest.mark.fault("F14")
@pytest.mark.parametrize("run", RUNS)
def test_a_long_run_of_one_piece_is_read_in_linear_time(run, without_math_verify):
    for name, grade in TEXT_GRADERS.items():
        assert_quick(lambda grade=grade, name=name: grade(RUNS[run], GOLDS[name]), MAX_SECONDS_OF_A_RUN)
    for read in TEXT_READERS:
        assert_quick(lambda read=read: read(RUNS[run]), MAX_SECONDS_OF_A_RUN)
    for column in COLUMNS:
        assert_quick(lambda column=column: column(**row_of(RUNS[run])), MAX_SECONDS_OF_A_RUN)


@pytest.mark.fault("F10")
@pytest.mark.fault("F14")
@pytest.mark.fault("F16")
@fuzzed
@given(completion=completions)
def test_every_grader_and_every_reward_column_judges_quickly(completion, without_math_verify):
    """A grade of each grader, one finite number of each column."""
    for name, grade in TEXT_GRADERS.items():
        note(f"grader: {name}")
        row = GOLDS[name]
        assert_is_grade(grade(completion, row))
        assert_quick(lambda grade=grade, row=row: grade(completion, row))
    row = row_of(completion)
    for column in COLUMNS:
        rewards = column(**row)
        assert len(rewards) == 1 and type(rewards[0]) is float and math.isfinite(rewards[0]), column.__name__
        assert_quick(lambda column=column: column(**row))


@pytest.mark.fault("F15")
@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.lists(pieces, max_size=12).map("".join))
def test_answers_that_math_verify_has_to_compare_get_a_grade_too(text):
    assert_is_grade(GRADERS["latex"](f"<think>a</think><answer>{text}</answer>", GOLDS["latex"]))
