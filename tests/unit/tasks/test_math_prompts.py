"""Few-shot prompts: the question stays last, shots have the asked shape, and a seed gives the same prompt always."""

import pytest
from datasets import Dataset

from common.errors import UserError
from policy.chat import message_text
from rewards.answer import grade_number
from rewards.format import is_well_formed
from tasks.math.options import GSM8KOptions, load_problems
from tasks.math.prompts import EXEMPLARS, PROMPT_TYPES, add_prompts, place_of, prompt, solution


@pytest.mark.parametrize("exemplar", EXEMPLARS, ids=lambda exemplar: exemplar.answer)
def test_exemplars_are_right_in_the_shape_their_prompt_asks_for(exemplar):
    for prompt_type in PROMPT_TYPES:
        text, place = solution(exemplar, prompt_type), place_of(prompt_type)
        assert is_well_formed(text, place) and grade_number(text, exemplar.answer, place).strict
    assert exemplar.answer in exemplar.steps.splitlines()[-1]


def test_the_question_is_the_last_user_turn_which_names_the_memory_entry():
    messages = prompt("How many?", "reasoning", EXEMPLARS[:2])
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert message_text(messages, "user") == "How many?"


def test_plain_prompt_needs_no_chat_template():
    text = prompt("How many?", "plain", EXEMPLARS[:1])
    assert isinstance(text, str) and text.endswith("Question: How many?\nResponse:") and EXEMPLARS[0].question in text


def test_shots_are_distinct_and_depend_on_seed_and_row_alone():
    rows = Dataset.from_list([{"question": f"Q{index}?"} for index in range(20)])
    drawn, again, other = (add_prompts(rows, "reasoning", 3, seed)["prompt"] for seed in (0, 0, 1))
    assert drawn == again != other
    assert len({str(messages[1:-1]) for messages in drawn}) > 10
    assert all(len({turn["content"] for turn in messages}) == len(messages) for messages in drawn)
    assert add_prompts(rows.select(range(5)), "reasoning", 3, 0)["prompt"] == drawn[:5]


@pytest.mark.parametrize("flags", [{"num_shots": 10}, {"num_shots": -1}, {"prompt_type": "haiku"}])
def test_impossible_prompts_are_refused(flags):
    with pytest.raises(UserError, match=next(iter(flags))):
        GSM8KOptions(**flags)


def rows_of(count: int) -> Dataset:
    return Dataset.from_list([{"id": i, "question": f"Q{i}?", "gold": "1", "gold_text": "1"} for i in range(count)])


def split(options: GSM8KOptions, rows: Dataset, held_out: bool = True, seed: int = 0, eval_problems: int = 10):
    return load_problems(options, eval_problems, lambda *_: rows, held_out, seed)


def test_held_out_problems_are_never_trained_on_and_the_same_for_every_seed():
    train, test = split(GSM8KOptions(), rows_of(100))
    assert len(test) == 10 and len(train) == 90 and not set(test["question"]) & set(train["question"])
    assert split(GSM8KOptions(), rows_of(100), seed=7)[1]["question"] == test["question"]


def test_at_most_a_fifth_is_held_out():
    train, test = split(GSM8KOptions(), rows_of(20), eval_problems=512)
    assert (len(train), len(test)) == (16, 4)


def test_without_evaluation_everything_is_trained_on():
    train, test = split(GSM8KOptions(), rows_of(20), held_out=False)
    assert len(train) == 20 and test is None


def test_a_held_out_split_takes_its_questions_out_of_training():
    options = GSM8KOptions(eval_split="validation")
    loads = {"train": rows_of(30), "validation": rows_of(12)}
    train, test = load_problems(options, 99, lambda _, split: loads[split], True, 0)
    assert len(test) == 12 and len(train) == 18
    with pytest.raises(UserError, match="validation problems too"):
        load_problems(options, 99, lambda *_: rows_of(5), True, 0)


def test_training_and_evaluation_have_the_same_number_of_shots():
    # The reference evaluated without shots whatever it trained with.
    train, test = split(GSM8KOptions(num_shots=2), rows_of(20))
    assert {len(messages) for messages in [*train["prompt"], *test["prompt"]]} == {6}


def test_train_problems_draws_a_random_subset_by_seed():
    picked, same, other = (
        split(GSM8KOptions(train_problems=10), rows_of(100), seed=seed)[0]["id"] for seed in (0, 0, 1)
    )
    assert picked == same and len(picked) == 10 and set(picked) != set(other)
