"""Completions read back from the files of a run, with the prompts that training or evaluation gave them."""

import json

import pandas as pd
import pytest

from analysis.completions import Completion, read_completions
from common.errors import UserError
from tasks.countdown import problems as countdown
from tasks.math import prompts as math_prompts

QUESTION = countdown.question([5, 1, 4], 15)
RIGHT = "<think>\n(4-1)*5=15 hit\n</think>\n<answer>(4-1)*5</answer>"
COUNTDOWN = {"task": {"prompt_style": "chat"}, "run": {"model_name": "tiny"}, "grpo": {"max_completion_length": 40}}


def write_run(folder, options, rows, name="step_000003"):
    """A run folder with one batch of (question, completion, correct)."""
    (folder / "completions").mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"options": options}))
    frame = pd.DataFrame(rows, columns=["question", "completion", "correct"])
    frame.to_parquet(folder / "completions" / f"{name}.parquet")
    return folder


def write_evaluation(folder, records, **fields):
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    path = folder / "eval" / "after.json"
    path.write_text(json.dumps({"name": "after", "records": records, **fields}))
    return path


def record(index, prompt="q", **fields):
    return {"id": index, "prompt": prompt, "completion": "c", "correct": False, "pass": "sampled", **fields}


def test_last_batch_of_a_run_with_the_prompt_of_training(tmp_path):
    write_run(tmp_path, COUNTDOWN, [(QUESTION, "old", False)], "step_000002")
    run = write_run(tmp_path, COUNTDOWN, [(QUESTION, RIGHT, True)])
    file = read_completions(run)
    assert file.completions == [Completion(QUESTION, countdown.prompt([5, 1, 4], 15, "chat"), RIGHT, True, None)]
    write_run(tmp_path, COUNTDOWN, [(QUESTION, "old", False)], "step_000003_2")
    write_run(tmp_path, COUNTDOWN, [(QUESTION, "last", False)], "step_000003_10")
    assert [completion.text for completion in read_completions(run).completions] == ["last"]
    assert "step_000003" in file.label and file.options == COUNTDOWN and file.model_name == str(run / "final")


def test_a_prompt_that_the_file_holds_is_taken_as_it_is(tmp_path):
    """Worked examples are drawn per row of the training data, which the question alone does not tell."""
    shots = math_prompts.draw_shots(2, 5, 7)
    prompts = [math_prompts.prompt("q", "think", shots), '"quoted" text']
    run = write_run(tmp_path, {"task": {"prompt_type": "think", "num_shots": 2}}, [("q", "x", True), ("r", "y", False)])
    path = run / "completions" / "step_000003.parquet"
    pd.read_parquet(path).assign(prompt=[json.dumps(prompt) for prompt in prompts]).to_parquet(path)
    assert [item.prompt for item in read_completions(run).completions] == prompts


@pytest.mark.parametrize(
    "asked, prompt",
    [
        ({"prompt_style": "base"}, countdown.prompt([5, 1, 4], 15, "base")),
        ({"prompt_type": "plain", "num_shots": 0}, math_prompts.prompt("How many?", "plain")),
    ],
)
def test_a_prompt_without_conversation_is_the_question_itself(tmp_path, asked, prompt):
    run = write_run(tmp_path, {"task": asked}, [(prompt, RIGHT, True)])
    assert read_completions(run).completions[0].prompt == prompt


def test_worked_examples_of_an_evaluation_are_those_of_its_rows(tmp_path):
    write_run(tmp_path, {"task": {"prompt_type": "think", "num_shots": 2}, "grpo": {"seed": 5}}, [])
    path = write_evaluation(tmp_path, [record(0), record(7, truncated=True)])
    found = read_completions(path).completions
    assert found[1].prompt == math_prompts.prompt("q", "think", math_prompts.draw_shots(2, 5, 7))
    assert found[0].prompt != found[1].prompt
    assert [item.ended for item in found] == [None, False]


@pytest.mark.parametrize(
    "task, settings, prompt",
    [
        ("countdown", {"prompt_type": "reasoning", "num_shots": 0}, countdown.prompt([5, 1, 4], 15, "chat")),
        ("countdown", {"prompt_type": "plain", "num_shots": 0}, QUESTION),
        ("gsm8k", {"prompt_type": "qwen25-math-cot", "num_shots": 0}, math_prompts.prompt(QUESTION, "qwen25-math-cot")),
    ],
)
def test_output_of_run_eval_brings_its_own_settings(tmp_path, task, settings, prompt):
    path = write_evaluation(tmp_path, [record(0, QUESTION)], task=task, settings=settings, seed=0, model="tiny")
    file = read_completions(path)
    assert file.completions[0].prompt == prompt and file.model_name == "tiny"


def test_one_pass_of_an_evaluation_with_several(tmp_path):
    path = write_evaluation(tmp_path, [record(0), record(0, **{"pass": "greedy"}), record(1)])
    assert len(read_completions(path).completions) == 2


def test_right_and_wrong_ones_are_picked_in_turn(tmp_path):
    verdicts = [False, False, False, True, True]
    run = write_run(tmp_path, COUNTDOWN, [(QUESTION, str(index), right) for index, right in enumerate(verdicts)])
    file = read_completions(run)
    assert [item.text for item in file.pick(3)] == ["3", "0", "4"]
    assert sorted(item.text for item in file.pick(99)) == list("01234")


def test_bad_files_are_refused_with_the_reason(tmp_path):
    shots = write_run(tmp_path / "shots", {"task": {"prompt_type": "think", "num_shots": 2}}, [(QUESTION, "x", True)])
    notes = tmp_path / "notes.txt"
    notes.write_text("x")
    for path, reason in [
        (tmp_path / "nowhere", "is not there"),
        (tmp_path, "no completions"),
        (write_run(tmp_path / "empty", COUNTDOWN, []), "holds no completions"),
        (shots, "--num_shots=2"),
        (shots / "run.json", "records"),
        (write_evaluation(tmp_path / "other", "none"), "records"),
        (notes, "notes.txt"),
    ]:
        with pytest.raises(UserError, match=reason):
            read_completions(path)
