"""BRIDGE traces on Countdown: true arithmetic, the same problems in both styles, and spans of what was injected."""

import json
import re
from dataclasses import replace

import pytest

from common.errors import UserError
from policy.load import load_tokenizer
from rewards.countdown import Verdict, judge
from rewards.expression import evaluate_expression
from tasks.countdown.bridge import BridgeOptions, main, misses, rows
from tasks.countdown.problems import split_of

INJECTED = BridgeOptions(n=300, p_analysis=0.3)
PLAIN = replace(INJECTED, style="plain")


def text_of(row):
    return row["completion"][0]["content"]


def attempts_of(row):
    thinking = text_of(row).partition("</think>")[0]
    return [line for line in thinking.splitlines() if re.search(" (hit|low|high)$", line)]


@pytest.mark.parametrize("options", [INJECTED, PLAIN], ids=["injected", "plain"])
def test_every_trace_ends_right_and_every_line_is_true(options):
    for row in rows(options):
        assert judge(text_of(row), row["numbers"], row["target"]) is Verdict.CORRECT
        for line in attempts_of(row):
            *sides, verdict = re.split("=| ", line)
            values = {evaluate_expression(side)[0] for side in sides}
            assert len(values) == 1
            value = values.pop()
            expected = "hit" if value == row["target"] else "low" if value < row["target"] else "high"
            assert verdict == expected
            assert sorted(evaluate_expression(sides[0])[1]) == sorted(row["numbers"])
        assert attempts_of(row)[-1].endswith("hit")
        assert all(not line.endswith("hit") for line in attempts_of(row)[:-1])


def test_both_styles_have_the_same_problems_and_answers_of_one_split():
    keys = [[(row["numbers"], row["target"], row["answer"]) for row in rows(options)] for options in (INJECTED, PLAIN)]
    assert keys[0] == keys[1] and len({str(key) for key in keys[0]}) == 300
    assert {split_of(numbers, target) for numbers, target, _ in keys[0]} == {"train"}
    others = rows(replace(PLAIN, split="validation", n=20))
    assert {split_of(row["numbers"], row["target"]) for row in others} == {"validation"}


def test_without_what_was_injected_a_trace_is_the_plain_one():
    for injected, plain in zip(rows(INJECTED), rows(PLAIN), strict=True):
        text, kept, last = text_of(injected), "", 0
        for start, end, _ in injected["spans"]:
            kept, last = kept + text[last:start], end
        assert kept + text[last:] == text_of(plain) and plain["spans"] == []


def test_plain_traces_go_straight_to_the_answer():
    assert all(len(attempts_of(row)) == 1 and attempts_of(row)[0].count("=") == 1 for row in rows(PLAIN))


def test_number_of_attempts_follows_the_flags():
    counts = [len(attempts_of(row)) for row in rows(replace(INJECTED, n=1000, p_explore=0.6, max_attempts=4))]
    expected = 1 + 0.6 + 0.6**2 + 0.6**3
    assert max(counts) == 4 and sum(counts) / 1000 == pytest.approx(expected, abs=4 * 1.2 / 1000**0.5)
    assert {len(attempts_of(row)) for row in rows(replace(INJECTED, p_explore=0.0))} == {1}
    assert {len(attempts_of(row)) for row in rows(replace(INJECTED, p_explore=1.0, max_attempts=3))} == {3}


def test_computation_and_analysis_follow_the_flags():
    quiet = replace(INJECTED, stepwise=False, p_analysis=0.0, p_explore=0.0)
    assert [text_of(row) for row in rows(quiet)] == [text_of(row) for row in rows(PLAIN)]
    loud = replace(INJECTED, stepwise=False, p_analysis=1.0, p_explore=0.0)
    assert all(text_of(row).count("Numbers:") == 1 for row in rows(loud))
    kinds = {kind for row in rows(INJECTED) for _, _, kind in row["spans"]}
    assert kinds == {"exploration", "computation", "analysis"}


def test_failed_attempts_differ_and_there_may_be_too_few_of_them():
    from random import Random

    found = [node.render() for node in misses([1, 1, 1], 3, 50, Random(0), 99)]
    assert 0 < len(set(found)) == len(found) < 50


def test_traces_fit_the_embedded_policy():
    tokenizer = load_tokenizer("tiny")
    longest = max(
        len(tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"])
        for row in rows(replace(INJECTED, p_explore=1.0))
    )
    assert longest < 256


def test_command_writes_rows_and_counts(tmp_path, monkeypatch, capsys):
    path = tmp_path / "data" / "x.jsonl"
    monkeypatch.setattr("sys.argv", ["bridge", "--n", "20", "--output", str(path)])
    main()
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(written) == 20 and written[0]["prompt"][-1]["role"] == "user"
    assert "20 traces" in capsys.readouterr().out
    first = path.read_bytes()
    main()
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    "flags",
    [{"style": "other"}, {"split": "other"}, {"n": 0}, {"p_explore": 1.5}, {"p_analysis": -0.1}, {"max_attempts": 0}],
)
def test_bad_flags_are_refused(flags):
    with pytest.raises(UserError, match=f"--{next(iter(flags))}"):
        BridgeOptions(**flags)


def test_more_problems_than_exist_are_refused_and_leave_no_file(monkeypatch, tmp_path):
    monkeypatch.setattr("tasks.countdown.problems._MAX_FRUITLESS_DRAWS", 200)
    monkeypatch.setattr("sys.argv", ["bridge", "--n=100000", "--max_number=3", "--output", str(tmp_path / "x.jsonl")])
    with pytest.raises(UserError, match="--n=100000: only"):
        main()
    assert not list(tmp_path.iterdir())
