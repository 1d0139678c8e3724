"""Files of iGSM problems: the same from the same flags, resumed where killed, refused where they would leak."""

import json
from random import Random

import pytest
from filelock import FileLock

import tasks.igsm.generate
from common.errors import UserError
from rewards.igsm import grade_igsm
from tasks.igsm.generate import GenerateOptions, answer_floor, write_rows
from tasks.igsm.reader import read_answer
from tasks.igsm.row_file import RowFile, read_column
from tasks.traces import load_traces


def options(path, **settings):
    return GenerateOptions(output=str(path), **{"n": 12, "min_op": 5, "max_op": 8, **settings})


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_hold_prompt_completion_and_answer(tmp_path):
    write_rows(options(tmp_path / "a.jsonl", traces="injected", p_reflect=0.5))
    for row in rows(tmp_path / "a.jsonl"):
        assert row["prompt"][-1] == {"role": "user", "content": row["question"]}
        (message,) = row["completion"]
        assert message["role"] == "assistant" and grade_igsm(message["content"], row["answer"]).strict
        assert read_answer(row["question"]) == row["answer"]
        assert 5 <= row["op"] <= 8 and row["split"] == "train"
        for span in row["injected"]:
            assert message["content"][span["start"] : span["end"]]
    assert not (tmp_path / "a.jsonl.partial").exists()


def test_all_kinds_of_traces_solve_the_same_problems(tmp_path):
    for traces in ("none", "plain", "injected"):
        write_rows(options(tmp_path / f"{traces}.jsonl", traces=traces))
    questions = [
        [row["question"] for row in rows(tmp_path / f"{traces}.jsonl")] for traces in ("none", "plain", "injected")
    ]
    assert questions[0] == questions[1] == questions[2]
    assert "completion" not in rows(tmp_path / "none.jsonl")[0]
    assert not any(read_column(tmp_path / "plain.jsonl", "injected"))
    assert any(read_column(tmp_path / "injected.jsonl", "injected"))


def test_transcript_prompt_opens_the_thinking_and_spans_move_along(tmp_path):
    for style in ("chat", "base"):
        write_rows(options(tmp_path / f"{style}.jsonl", traces="injected", analysis_level=4, prompt_style=style))
    for chat, base in zip(rows(tmp_path / "chat.jsonl"), rows(tmp_path / "base.jsonl"), strict=True):
        whole = chat["completion"][0]["content"]
        assert "<think>\n" + base["completion"] == whole and base["prompt"].endswith("<think>\n")
        for one, other in zip(chat["injected"] + chat["content"], base["injected"] + base["content"], strict=True):
            assert whole[one["start"] : one["end"]] == base["completion"][other["start"] : other["end"]]


def named(row):
    """The quantities of a row's trace, in order."""
    text = row["completion"][0]["content"]
    return [text[span["start"] : span["end"]] for span in row["content"] if span["kind"] == "name"]


def test_answer_augmentation_keeps_question_and_answer(tmp_path):
    write_rows(options(tmp_path / "a.jsonl", n=5, min_op=15, max_op=20, traces="plain", augment="answer", copies=4))
    copies = rows(tmp_path / "a.jsonl")
    assert len(copies) == 20
    orders = 0
    for start in range(0, 20, 4):
        group = copies[start : start + 4]
        assert len({row["question"] for row in group}) == 1
        assert len({row["completion"][0]["content"] for row in group}) == 4
        orders += len({tuple(named(row)) for row in group})
        assert all(grade_igsm(row["completion"][0]["content"], row["answer"]).strict for row in group)
    assert orders > 10


def test_query_augmentation_keeps_solution_and_answer(tmp_path):
    write_rows(options(tmp_path / "a.jsonl", n=5, traces="injected", augment="query", copies=3))
    copies = rows(tmp_path / "a.jsonl")
    for start in range(0, 15, 3):
        group = copies[start : start + 3]
        assert len({row["question"] for row in group}) == 3
        assert len({tuple(sorted(row["question"].split("\n"))) for row in group}) == 1
        assert len({row["completion"][0]["content"] for row in group}) == 1
        assert all(read_answer(row["question"]) == row["answer"] for row in group)


def test_parquet_holds_the_same_rows(tmp_path):
    write_rows(options(tmp_path / "a.jsonl", traces="injected"))
    write_rows(options(tmp_path / "a.parquet", traces="injected"))
    for column in ("question", "answer", "completion", "injected", "template"):
        assert read_column(tmp_path / "a.parquet", column) == read_column(tmp_path / "a.jsonl", column)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_supervised_training_reads_the_file(tmp_path, ending):
    write_rows(options(tmp_path / f"a.{ending}", traces="plain"))
    loaded = load_traces(str(tmp_path / f"a.{ending}"), "train")
    assert len(loaded) == 12 and loaded[0]["completion"][0]["role"] == "assistant"


class Killed(BaseException):
    """Stands for a signal."""


def kill_after(monkeypatch, problems):
    written = []
    original = tasks.igsm.generate.rows_of

    def rows_of(item, settings):
        if len(written) == problems:
            raise Killed
        written.append(item)
        return original(item, settings)

    monkeypatch.setattr(tasks.igsm.generate, "rows_of", rows_of)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_killed_generation_goes_on_to_the_same_file(tmp_path, monkeypatch, ending):
    settings = {"traces": "injected", "augment": "answer", "copies": 3, "min_op": 3, "max_op": 4}
    write_rows(options(tmp_path / f"whole.{ending}", **settings))
    whole = (tmp_path / f"whole.{ending}").read_bytes()
    with monkeypatch.context() as patch:
        kill_after(patch, problems=7)
        with pytest.raises(Killed):
            write_rows(options(tmp_path / f"cut.{ending}", **settings))
    assert not (tmp_path / f"cut.{ending}").exists()
    partial = tmp_path / f"cut.{ending}.partial"
    written = partial.read_bytes()
    assert written.count(b"\n") == 1 + 7 * 3
    rng = Random(0)
    for cut in [0, 10, written.index(b"\n") + 1, len(written), *(rng.randrange(len(written)) for _ in range(5))]:
        (tmp_path / f"cut.{ending}").unlink(missing_ok=True)
        partial.write_bytes(written[:cut])
        write_rows(options(tmp_path / f"cut.{ending}", **settings))
        assert (tmp_path / f"cut.{ending}").read_bytes() == whole
        assert not partial.exists()


def test_resumed_run_draws_only_what_is_missing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_after(patch, problems=9)
        with pytest.raises(Killed):
            write_rows(options(tmp_path / "a.jsonl"))
    kill_after(monkeypatch, problems=3)
    assert write_rows(options(tmp_path / "a.jsonl"))["rows"] == 12


def test_complete_file_is_left_alone_and_other_settings_are_refused(tmp_path, monkeypatch):
    first = write_rows(options(tmp_path / "a.jsonl"))
    kill_after(monkeypatch, problems=0)
    assert write_rows(options(tmp_path / "a.jsonl")) == first
    with pytest.raises(UserError, match=r"made with other settings \(seed, traces\).*--overwrite"):
        write_rows(options(tmp_path / "a.jsonl", seed=1, traces="plain"))
    with pytest.raises(Killed):
        write_rows(options(tmp_path / "a.jsonl", seed=1, overwrite=True))
    with pytest.raises(UserError, match=r"a.jsonl.partial. is there and was made with other settings \(seed\)"):
        write_rows(options(tmp_path / "a.jsonl"))


def test_two_writers_of_one_file_are_refused(tmp_path):
    with FileLock(tmp_path / ".a.jsonl.lock"), pytest.raises(UserError, match="by another process"):
        write_rows(options(tmp_path / "a.jsonl"))


def test_leaking_split_is_refused_before_anything_is_written(tmp_path):
    write_rows(options(tmp_path / "train.jsonl"))
    for split in ("train", "all"):
        with pytest.raises(UserError, match=f"--split={split} could repeat"):
            write_rows(options(tmp_path / "b.jsonl", split=split, disjoint_from=str(tmp_path / "train.jsonl")))
    assert not list(tmp_path.glob("*b.jsonl*"))
    write_rows(options(tmp_path / "b.jsonl", split="test", disjoint_from=str(tmp_path / "train.jsonl")))
    assert not set(read_column(tmp_path / "train.jsonl", "template")) & set(
        read_column(tmp_path / "b.jsonl", "template")
    )


def test_floor_is_the_share_of_the_commonest_answer(tmp_path):
    assert answer_floor([3, 0, 0, 5]) == (0, 0.5)
    assert answer_floor([4, 3, -3]) == (-3, 1 / 3)
    summary = write_rows(options(tmp_path / "a.jsonl", n=60))
    answers = [row["answer"] for row in rows(tmp_path / "a.jsonl")]
    assert summary["answer_floor"] == answers.count(summary["commonest_answer"]) / 60
    assert json.loads((tmp_path / "a.jsonl.meta.json").read_text())["summary"] == summary


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output": ""}, "--output is needed"),
        ({"traces": "long"}, "--traces='long'"),
        ({"augment": "both"}, "--augment='both'"),
        ({"augment": "answer"}, "--augment=answer varies worked solutions"),
        ({"prompt_style": "x"}, "--prompt_style='x'"),
        ({"split": "dev"}, "--split='dev'"),
        ({"n": 0}, "--n=0"),
        ({"copies": 0}, "--copies=0"),
        ({"max_op": 99}, "--max_op=99"),
        ({"p_reflect": 2.0}, "--p_reflect=2.0"),
    ],
)
def test_bad_flags_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        GenerateOptions(**{"output": "a.jsonl", **settings})


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="must be a file that ends in"):
        write_rows(options(tmp_path / "a.csv"))
    (tmp_path / "other.jsonl").write_text('{"numbers": [1]}\n')
    (tmp_path / "broken.jsonl").write_text("{\n")
    for name in ("other", "broken", "absent"):
        with pytest.raises(UserError, match=name):
            read_column(tmp_path / f"{name}.jsonl", "template")
    (tmp_path / "mine.jsonl").write_text("precious\n")
    with pytest.raises(UserError, match="mine.jsonl. is there and was made with other settings"):
        write_rows(options(tmp_path / "mine.jsonl"))
    assert (tmp_path / "mine.jsonl").read_text() == "precious\n"


def test_row_file_is_released_after_an_error(tmp_path):
    failing = RowFile(tmp_path / "a.jsonl", {})  # kept, for a lock is also released when its object goes
    with pytest.raises(Killed), failing:
        raise Killed
    with RowFile(tmp_path / "a.jsonl", {}) as file:
        assert not file.is_complete()
