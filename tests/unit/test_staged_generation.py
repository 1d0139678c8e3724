"""Sampling in stages: the same completions as in one go, on fewer rows."""

import pytest
import torch

from evaluation.generate import Decoding, sample_completions
from tasks.countdown import add_prompts
from tasks.countdown import generate as generate_problems
from training import staged_generation
from training.policy import load_policy, load_tokenizer
from training.staged_generation import in_stages, stage_sizes
from training.tiny_policy import SPACE


@pytest.mark.parametrize("length, sizes", [(8, [8]), (48, [48]), (49, [48, 1]), (200, [48, 48, 96, 8])])
def test_stages_double_and_add_up(length, sizes):
    assert stage_sizes(length) == sizes


def test_only_unfinished_completions_go_on_from_where_they_are(monkeypatch):
    monkeypatch.setattr(staged_generation, "FIRST_STAGE", 32)
    asked = []

    def generate(rows, ids, most):
        asked.append((rows, ids, most))
        # Token 9 ends; a completion ends when it is as long as its prompt's first token says.
        found = []
        for row in ids:
            left = row[0] - (len(row) - 1)
            found.append([5] * min(most, left - 1) + [9] * (left <= most))
        return found

    prompts = [[3], [40], [32], [70]]
    completions = in_stages(generate, prompts, 64, {9})
    assert [len(row) for row in completions] == [3, 40, 32, 64]
    assert [row[-1] for row in completions] == [9, 9, 9, 5]
    assert [(rows, most) for rows, _, most in asked] == [([0, 1, 2, 3], 32), ([1, 3], 32)]
    assert asked[1][1] == [[40] + [5] * 32, [70] + [5] * 32]


def completions_of(trainer, rows):
    torch.manual_seed(0)
    trainer.model.train()
    ids = trainer._generate_single_turn(trainer._tokenize_prompts([row["prompt"] for row in rows])[0], None, {}, 1)
    return ids[0]


def test_greedy_completions_are_those_of_one_go(trainer_factory, monkeypatch):
    monkeypatch.setattr(staged_generation, "FIRST_STAGE", 4)
    settings = {"max_completion_length": 40, "generation_kwargs": {"do_sample": False}}
    trainer = trainer_factory(policy=load_policy("tiny"), **settings)
    rows = [trainer.train_dataset[number] for number in range(12)]
    staged = completions_of(trainer, rows)
    monkeypatch.setattr(type(trainer), "_samples_in_stages", False)
    assert staged == completions_of(trainer, rows) and len({len(row) for row in staged}) > 1
    assert trainer.generation_config.max_new_tokens == 40


def test_a_least_length_is_left_to_one_go(trainer_factory):
    trainer = trainer_factory(max_completion_length=40, generation_kwargs={"min_new_tokens": 40})
    assert not trainer._samples_in_stages
    assert [len(row) for row in completions_of(trainer, [trainer.train_dataset[0]] * 2)] == [40, 40]


def test_evaluation_samples_in_stages_and_finds_the_same(monkeypatch):
    model, tokenizer = load_policy("tiny"), load_tokenizer("tiny")
    prompts = add_prompts(generate_problems(10, "test", 0, SPACE), "chat")["prompt"]
    greedy = Decoding(samples=1, temperature=0.0, max_new_tokens=40)
    whole = sample_completions(model, tokenizer, prompts, greedy)
    monkeypatch.setattr(staged_generation, "FIRST_STAGE", 4)
    rows, generate = [], model.generate

    def counted(input_ids, **settings):
        rows.append(len(input_ids))
        return generate(input_ids=input_ids, **settings)

    monkeypatch.setattr(model, "generate", counted)
    assert sample_completions(model, tokenizer, prompts, greedy) == whole
    assert rows[0] == 10 > rows[-1] and len(rows) > 1
