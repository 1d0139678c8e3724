"""The benchmark of what a memory is read from: what it counts, and what it refuses."""

import json
import sys
from dataclasses import asdict

import pytest
import torch

from benchmarks import cached_encoder, memory_read
from benchmarks.cached_encoder import CachedEncoder
from benchmarks.memory_read import Options, measure, read_groups, table
from common.errors import UserError
from tests.toys import stub_encode


def rows_of(questions, answers):
    """Rows in the form of the data: ``answers`` are (text, is it right) of as many models."""
    models = {f"model {n}": {"solution": f"{text}\nA: 1", "is_correct": ok} for n, (text, ok) in enumerate(answers)}
    return [{"question": f"question {n}", "ground_truth": "A: 1", **models} for n in range(questions)]


@pytest.fixture
def write(tmp_path):
    def write(rows):
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(file)

    return write


def test_every_group_of_right_and_wrong_answers_counts_once_the_past_is_there(write):
    """Answers are the same to every question, so exploit finds the right one in the past of another question."""
    mixed, alike = rows_of(6, [("good", True), ("bad", False)]), rows_of(2, [("good", True), ("fine", True)])
    rows = mixed + [row | {"question": row["question"] + " again"} for row in alike]
    options = Options(write(rows), bonuses="knn+,knn-sent", ks="1", questions=2, orders=2)
    result = {"options": asdict(options), "rows": [], "times": []}
    measure(options, stub_encode, result)
    exploit = [row for row in result["rows"] if row["bonus"] == "knn+" and row["reward"] == "exploit"]
    assert [row["right"] for row in exploit] == ["any", 1]
    for row in exploit:
        assert row["past"]["n"] <= 6 and row["past"]["mean"] == 1.0
        # Without itself the right answer meets that of another question, where the wrong one meets it.
        assert row["leave_one_out"]["mean"] == 1.0
    assert {row["read"] for row in result["times"]} == {"past", "leave_one_out"}
    text = table(json.loads(json.dumps(result)))
    assert "| `knn-sent` | 1 | exploit | 1 |" in text and "mean of 2 order(s)" in text


def test_what_was_read_before_an_interruption_is_kept(write, tmp_path, monkeypatch):
    """Of the second K, the second way of reading is cut off in its last order."""
    replayed, replay = [], memory_read.replay

    def cut_off(*arguments):
        replayed.append(arguments)
        if len(replayed) == 8:
            raise KeyboardInterrupt
        return replay(*arguments)

    monkeypatch.setattr(memory_read, "replay", cut_off)
    monkeypatch.setattr(memory_read, "CachedEncoder", lambda name: stub_encode)
    data = f"--data={write(rows_of(4, [('good', True), ('bad', False)]))}"
    flags = ["--ks=1,2", "--questions=2", "--orders=2", f"--output={tmp_path / 'found'}"]
    monkeypatch.setattr(sys, "argv", ["memory_read", data, *flags])
    with pytest.raises(KeyboardInterrupt):
        memory_read.main()
    kept = json.loads((tmp_path / "found.json").read_text())
    assert [(row["k"], row["read"]) for row in kept["times"][::2]] == [(1, "past"), (1, "leave_one_out"), (2, "past")]
    assert ["leave_one_out" in row for row in kept["rows"]] == [True] * 4 + [False] * 4
    lines = (tmp_path / "found.md").read_text().splitlines()
    assert len([line for line in lines if line.startswith("| `knn+` | 2 |") and line.endswith("|  |")]) == 5


def test_the_answer_line_is_left_out(write):
    (group, _) = read_groups(write(rows_of(2, [("3+4=7\nso 7", True), ("8", False)])))
    assert group.answers == ["3+4=7\nso 7", "8"] and group.correct == [1.0, 0.0]


def test_the_encoder_is_loaded_with_the_first_text_and_encodes_each_once(monkeypatch):
    loaded, calls = [], []

    def build_encoder(name):
        loaded.append(name)
        return lambda texts: calls.append(texts) or stub_encode(texts)

    monkeypatch.setattr(cached_encoder, "build_encoder", build_encoder)
    encode = CachedEncoder("some encoder")
    assert not loaded
    assert torch.equal(encode(["a", "b", "a"]), stub_encode(["a", "b", "a"]))
    encode(["b", "c"])
    assert calls == [["a", "b"], ["c"]] and loaded == ["some encoder"]


@pytest.mark.parametrize(("wrong", "questions", "mixed"), [(False, 4, 4), (True, 2, 0)])
def test_a_replay_in_which_no_group_would_count_is_refused_before_anything_is_encoded(wrong, questions, mixed, write):
    options = Options(write(rows_of(4, [("good", True), ("bad", wrong)])), questions=questions)
    with pytest.raises(UserError, match=f"--questions={questions} must be below .*, 4, .* which {mixed} have"):
        measure(options, lambda texts: pytest.fail("a text was encoded"), {})


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"question": "x"}],
        [{"question": "x", "m": {"solution": "1"}}],
        [{"m": {"solution": "1", "is_correct": True}}],
        [*rows_of(1, [("a", True)]), *rows_of(1, [("a", True), ("b", False)])],
        [3],
    ],
)
def test_a_file_of_another_form_is_refused_in_one_sentence(rows, write):
    with pytest.raises(UserError, match="--data="):
        read_groups(write(rows))
    with pytest.raises(UserError, match="--data='none.jsonl'"):
        read_groups("none.jsonl")


@pytest.mark.parametrize("flags", [{"bonuses": "knn"}, {"ks": "1,x"}, {"ks": "0"}, {"questions": 0}, {"orders": 0}])
def test_flags_out_of_range_are_refused(flags):
    ((name, value),) = flags.items()
    with pytest.raises(UserError, match=f"--{name}={value!r}"):
        Options("rows.jsonl", **flags)
