"""The Countdown scorer: every authored case, both references, which answer counts, and the reward column."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.countdown import CountdownReward, Verdict, _reference_answer, judge, judge_reference
from tests.unit.rewards.countdown_cases import REPEATABLE, answered

ROOT = Path(__file__).resolve().parents[3]

# Authored for this scorer's specification and released as CC0-1.0.
CASES = ROOT / "tests" / "cases" / "countdown_cases.jsonl"

SHARED_CASES = ROOT / ".." / "shared" / "data" / "countdown_cases.jsonl"


def read_cases(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@pytest.mark.parametrize("case", read_cases(CASES), ids=lambda case: f"{case['id']}-{case['kind'].split(' ')[0]}")
def test_authored_case_gets_its_verdict(case):
    verdict = judge(case["completion"], case["numbers"], case["target"])
    assert (verdict is Verdict.CORRECT) == case["expected_bool"]


def test_the_shared_cases_all_agree():
    cases = read_cases(SHARED_CASES)
    if not cases:
        pytest.skip("../shared/data/countdown_cases.jsonl is not here")
    for case in cases:
        verdict = judge(case["completion"], case["numbers"], case["target"])
        assert (verdict is Verdict.CORRECT) == case["expected_bool"], case["kind"]


def test_the_authored_cases_are_all_there():
    assert len(read_cases(CASES)) == 47


def test_no_answer_tag_and_wrong_value_have_their_own_verdicts():
    assert judge("3+4", [3, 4], 7) is Verdict.NO_ANSWER
    assert judge(answered("3*4"), [3, 4], 7) is Verdict.WRONG_VALUE


@pytest.mark.fault("F12")
@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("<think><answer>2*3</answer></think>", Verdict.NO_ANSWER),
        ("<think>so <answer>2*3</answer>", Verdict.NO_ANSWER),
        ("so <answer>2*3</answer></think>", Verdict.NO_ANSWER),
        ("so <answer>2*3</answer></think><answer>2+3</answer>", Verdict.WRONG_VALUE),
        ("<think><answer>2+3</answer></think><answer>2*3</answer>", Verdict.CORRECT),
        ("a draft <answer>2+3</answer> </reasoning> <answer>2*3</answer>", Verdict.CORRECT),
        ("<think>a</think><answer>2+3</answer><think>b</think><answer>2*3</answer>", Verdict.MULTIPLE_ANSWERS),
        ("<answer>2*3</answer><answer>2*3</answer>", Verdict.MULTIPLE_ANSWERS),
        ("<answer>2*3</answer><answer>", Verdict.CORRECT),
        ("<answer>2+3<answer>2*3</answer>", Verdict.CORRECT),
        ("<answer>2*<think>x</think>3</answer>", Verdict.SYNTAX),
        ("<Answer>2*3</Answer>", Verdict.NO_ANSWER),
    ],
)
def test_only_one_answer_after_the_thinking_counts(completion, verdict):
    assert judge(completion, [2, 3], 6) is verdict


PIECES = [
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "</reasoning>",
    "2*3",
    "-",
    "(",
    ")",
    "\n",
    "\\frac{",
    "}{",
    "}",
]


@REPEATABLE
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=20).map("".join))
def test_random_text_gets_a_verdict_and_a_score(text):
    assert judge(text, [2, 3], 6) in Verdict
    assert judge(answered(text), [2, 3], 6) in Verdict
    assert judge_reference(text, [2, 3], 6) in (0.0, 0.1, 1.0)


@REPEATABLE
@given(st.lists(st.sampled_from(["<answer>", "</answer>", "a", "b"]), max_size=12).map("".join))
def test_reference_answer_is_the_last_match_of_its_pattern(line):
    matches = re.findall(r"<answer>(.*?)</answer>", line)
    assert _reference_answer(line) == (matches[-1] if matches else None)


@pytest.mark.parametrize(
    ("completion", "numbers", "target", "score"),
    [
        ("<answer>(1+2+3)*4</answer>", [1, 2, 3, 4], 24, 1.0),
        ("<answer>1*2*3*4</answer>", [1, 2, 3, 4], 24, 1.0),
        ("<answer>4*6</answer>", [1, 2, 3, 4], 24, 0.1),
        ("(1+2+3)*4", [1, 2, 3, 4], 24, 0.0),
        ("<answer>(1+2)*3*4 = 36</answer>", [1, 2, 3, 4], 36, 0.1),
        ("<answer>(1+2+3)*4</answer>\nDone.", [1, 2, 3, 4], 24, 0.0),
        ("<answer>(1+2+3)*4</answer>\n", [1, 2, 3, 4], 24, 0.0),
        ("work\n</think>\n<answer>(1+2+3)*4</answer>", [1, 2, 3, 4], 24, 1.0),
        ("Assistant: work</think> <answer>(1+2+3)*4</answer>", [1, 2, 3, 4], 24, 1.0),
        ("<answer>8/(3-8/3)</answer>", [3, 3, 8, 8], 24, 1.0),
        ("<answer>1+2+3+4</answer> <answer>(1+2+3)*4</answer>", [1, 2, 3, 4], 24, 1.0),
        ("<answer>(1+2+3)*4</answer> <answer>1+2+3+4</answer>", [1, 2, 3, 4], 24, 0.1),
        ("<answer>1/0</answer>", [1, 0], 1, 0.1),
        ("<answer>no idea</answer>", [1, 2], 3, 0.1),
        ("<answer></answer>", [1, 2], 3, 0.1),
        ("<answer>12</answer>", [1, 2], 12, 0.1),
        ("<answer>-1+3</answer>", [1, 3], 2, 1.0),
        ("<answer>\n1+3\n</answer>", [1, 3], 4, 0.0),
        # The reference pays 1.0 for these two, through Python's own operators.
        ("<answer>2**3</answer>", [2, 3], 8, 0.1),
        ("<answer>7//2</answer>", [7, 2], 3, 0.1),
    ],
)
def test_reference_score(completion, numbers, target, score):
    assert judge_reference(completion, numbers, target) == score


BATCH = {
    "prompts": ["p"] * 5,
    "completions": [answered(answer) for answer in ("2*3", "2+3", "6", "2**3")] + ["2*3"],
    "numbers": [[2, 3]] * 5,
    "target": [6] * 5,
}


def test_reward_pays_correct_answers_alone():
    assert CountdownReward().__name__ == "correctness"
    assert CountdownReward()(**BATCH) == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_reward_in_strict_line_mode_is_the_reference_table():
    lines = [text.replace("\n", "") for text in BATCH["completions"]]
    assert CountdownReward(strict_line=True)(**BATCH | {"completions": lines}) == [1.0, 0.1, 0.1, 0.1, 0.0]
    assert CountdownReward(strict_line=True)(**BATCH) == [0.0] * 5  # the answers span lines


def test_reward_reads_conversations_and_ignores_other_columns():
    conversations = [[{"role": "assistant", "content": text}] for text in BATCH["completions"]]
    reward = CountdownReward()
    assert reward(**BATCH | {"completions": conversations}, completion_ids=[[1]] * 5, trainer_state=None) == reward(
        **BATCH
    )


def test_reward_scores_each_completion_against_its_own_problem():
    rewards = CountdownReward()(
        prompts=["", ""], completions=[answered("2*3"), answered("2*3")], numbers=[[2, 3], [2, 4]], target=[6, 6]
    )
    assert rewards == [1.0, 0.0]


def test_reward_never_scores_the_prompt():
    prompt = answered("2*3")
    assert CountdownReward()(prompts=[prompt], completions=["no"], numbers=[[2, 3]], target=[6]) == [0.0]


@pytest.mark.fault("F12")
def test_reward_logs_each_verdict_and_shares_that_sum_to_one():
    extra, metrics = {}, {}
    CountdownReward()(**BATCH, log_extra=extra.__setitem__, log_metric=metrics.__setitem__)
    assert extra["verdict"] == ["correct", "wrong_value", "wrong_numbers", "syntax", "no_answer"]
    assert extra["answer"] == ["2*3", "2+3", "6", "", ""]
    assert set(metrics) == {f"verdict/{verdict}" for verdict in Verdict}
    assert metrics["verdict/correct"] == metrics["verdict/syntax"] == 0.2
    assert metrics["verdict/multiple_answers"] == metrics["verdict/division_by_zero"] == 0.0
    assert sum(metrics.values()) == pytest.approx(1.0)
