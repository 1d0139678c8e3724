"""No problem that a training script trains on or chooses best/ by is one that run_eval.py reports, for every task."""

import json
import re
from pathlib import Path

import pytest
from datasets import Dataset

from common.errors import UserError
from evaluation.tasks import eval_task
from tasks.countdown.bridge import BridgeOptions
from tasks.countdown.options import CountdownOptions
from tasks.countdown.options import load_problems as load_countdown_problems
from tasks.countdown.problems import ProblemSpace, generate, problem_key, split_of
from tasks.igsm import options as igsm_options
from tasks.igsm.generate import GenerateOptions
from tasks.math import options as math_options
from tasks.math.problems import load_gsm8k, load_math
from tasks.math.traces import TraceOptions as GSM8KTraceOptions
from tasks.traces import load_traces
from training.new_policy import NewPolicyOptions
from training.sft import SFTOptions

GSM8K = Path(__file__).parents[4] / "shared" / "data" / "gsm8k"
EMBEDDED = {"max_numbers": 3, "max_number": 15, "max_value": 99}
EVAL_PROBLEMS = 512


def countdown_keys(rows: Dataset) -> set:
    return {problem_key(row["numbers"], row["target"]) for row in rows}


@pytest.fixture(scope="module")
def countdown_file(tmp_path_factory) -> str:
    """A file of 600 problems of all splits, as one finds on the hub."""
    space = ProblemSpace(**EMBEDDED)
    rows = [row for split in ("train", "validation", "test") for row in generate(200, split, 5, space)]
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    path.write_text("".join(json.dumps({"nums": row["numbers"], "target": row["target"]}) + "\n" for row in rows))
    return str(path)


def countdown_sets(data: str, seed: int, flags: dict, split: str | None):
    options = CountdownOptions(data=data, train_problems=1000, **flags)
    train, validation = load_countdown_problems(options, EVAL_PROBLEMS, seed)
    return [countdown_keys(rows) for rows in (train, validation, eval_task("countdown").load(data, split))]


def igsm_sets(seed: int):
    options = igsm_options.IGSMOptions(min_op=3, max_op=4, ood_min_op=5, ood_max_op=6, train_problems=60)
    train, validation = igsm_options.load_problems(options, 60, seed)
    return [set(rows["template"]) for rows in (train, validation, eval_task("igsm").load("generate", "3-6"))]


def assert_apart(train: set, validation: set, test: set) -> None:
    assert train and validation and test
    assert not train & validation and not train & test and not validation & test


@pytest.mark.parametrize("flags, split, seed", [(EMBEDDED, "tiny", 0), ({}, "full", 3)])
def test_generated_countdown(flags, split, seed):
    assert_apart(*countdown_sets("generate", seed, flags, split))


def test_countdown_is_evaluated_on_the_split_asked_for():
    for split in ("validation", "test"):
        options = CountdownOptions(train_problems=10, eval_split=split, **EMBEDDED)
        _, held_out = load_countdown_problems(options, 20, 0)
        assert {split_of(row["numbers"], row["target"]) for row in held_out} == {split}
    with pytest.raises(UserError, match="--eval_split='train' is unknown; use one of validation, test"):
        CountdownOptions(eval_split="train")


@pytest.mark.parametrize("seed", [0, 3])
def test_countdown_of_a_file(countdown_file, seed):
    sets = countdown_sets(countdown_file, seed, {}, None)
    assert_apart(*sets)
    assert list(map(len, sets)) == [200, 200, 200]


def test_a_named_split_of_a_countdown_file_is_evaluated_whole(countdown_file):
    assert len(eval_task("countdown").load(countdown_file, "train")) == 600


def test_a_countdown_file_without_test_problems_is_refused(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in generate(20, "train", 0)))
    with pytest.raises(UserError, match="none of the 20 problems .*--split=train"):
        eval_task("countdown").load(str(path), None)


@pytest.mark.parametrize("seed", [0, 3])
def test_igsm(seed):
    assert_apart(*igsm_sets(seed))


def question_sets(task: str, data: str, seed: int, load):
    train, validation = math_options.load_problems(math_options.MathOptions(data=data), EVAL_PROBLEMS, load, True, seed)
    return [set(rows["question"]) for rows in (train, validation, eval_task(task).load(data, "test"))]


@pytest.mark.skipif(not GSM8K.is_dir(), reason="needs ../shared")
def test_gsm8k():
    assert_apart(*question_sets("gsm8k", str(GSM8K), 0, load_gsm8k))


@pytest.mark.parametrize("seed", [0, 3])
def test_mathematics(tmp_path, seed):
    for split, numbers in (("train", range(100)), ("test", range(100, 120))):
        rows = [{"problem": f"Double of {number}?", "answer": str(2 * number)} for number in numbers]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert_apart(*question_sets("math", str(tmp_path), seed, load_math))


@pytest.mark.parametrize(
    "split", ["test", "test[:100]", "train+test", "train+test+validation", "train[:9] + test[:9]", "all", "a_test+b"]
)
def test_choosing_on_a_test_split_is_refused(split):
    with pytest.raises(UserError, match=f"--eval_split='{re.escape(split)}'"):
        math_options.GSM8KOptions(eval_split=split)


def test_splits_and_files_without_test_rows_are_taken():
    for split in ("train", "train[:9]+validation", "latest", "train_contest_2"):
        math_options.GSM8KOptions(split=split)
    math_options.GSM8KOptions(data="all.jsonl")


@pytest.mark.parametrize(
    "make",
    [
        lambda: SFTOptions(data="folder", split="test"),
        lambda: SFTOptions(data="folder", split="train+test[:5]+more"),
        lambda: SFTOptions(data="traces/test.jsonl"),
        lambda: NewPolicyOptions(data="test.jsonl", output="nowhere"),
        lambda: BridgeOptions(output="x.jsonl", split="test"),
        lambda: GSM8KTraceOptions(output="x.jsonl", split="train+test+validation"),
        lambda: GenerateOptions(output="x.jsonl", split="test", traces="plain"),
    ],
)
def test_supervised_training_and_its_traces_are_kept_from_test_rows(make):
    with pytest.raises(UserError, match="run_eval.py reports test (rows|problems)"):
        make()


def test_traces_that_say_they_are_of_a_test_set_are_refused(tmp_path):
    """As `tasks.igsm.generate` writes them without traces: question and answer are a pair to train on."""
    rows = [{"question": "a", "answer": "b", "split": split} for split in ("train", "test")]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="row 1 of .*is of a test set by its column split"):
        load_traces(str(path), "train")
    path.write_text(json.dumps(rows[0]) + "\n")
    assert len(load_traces(str(path), "train")) == 1


def test_validation_problems_do_not_depend_on_the_seed(countdown_file):
    options = CountdownOptions(data=countdown_file)
    first, second = (load_countdown_problems(options, 20, seed)[1] for seed in (0, 3))
    assert first.to_list() == second.to_list()
