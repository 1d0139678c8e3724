"""Sampling in stages: the same completions as in one go, on fewer rows."""

import pytest
import torch
from transformers import GenerationConfig
from trl import GRPOTrainer

from evaluation.generate import Decoding, sample_completions
from policy import stages
from policy.growing_cache import GrowingCache
from policy.load import load_policy, load_tokenizer
from policy.stages import StageCache, allows_stages, in_stages
from tasks.countdown.problems import add_prompts
from tasks.countdown.problems import generate as generate_problems
from training.tiny_policy import SPACE

PROBLEMS = generate_problems(10, "test", 0, SPACE)


def test_only_unfinished_completions_go_on_from_where_they_are(monkeypatch):
    monkeypatch.setattr(stages, "STAGE", 32)
    asked = []

    def generate(rows, ids, most):
        asked.append((rows, ids, most))
        # Token 9 ends; a completion ends when it is as long as its prompt's first token says.
        found = []
        for row in ids:
            more = row[0] - (len(row) - 1)
            found.append([5] * min(most, more - 1) + [9] * (more <= most))
        return found

    completions = in_stages(generate, {9}, StageCache())([10, 11, 12, 13], [[3], [40], [32], [70]], 64)
    assert [len(row) for row in completions] == [3, 40, 32, 64]
    assert [row[-1] for row in completions] == [9, 9, 9, 5]
    assert [(rows, most) for rows, _, most in asked] == [([10, 11, 12, 13], 32), ([11, 13], 32)]
    assert asked[1][1] == [[40] + [5] * 32, [70] + [5] * 32]


@pytest.mark.parametrize(("length", "sizes"), [(8, [8]), (49, [16, 32, 1]), (200, [16, 32, 48, 96, 8])])
def test_stages_that_read_everything_again_double_and_add_up(length, sizes):
    asked = []
    in_stages(lambda rows, ids, most: asked.append(most) or [[5] * most], {9}, StageCache())([0], [[1]], length)
    assert asked == sizes


@pytest.mark.parametrize(("size", "slices"), [(256, 1), (7, 2)])
def test_a_stage_takes_over_keys_and_values_and_finds_what_one_go_finds(monkeypatch, size, slices):
    model, tokenizer = load_policy("tiny"), load_tokenizer("tiny")
    prompts = list(add_prompts(PROBLEMS, "chat")["prompt"])
    prompts[2][-1]["content"] += "........."  # the longest prompt, whose completion is among the shortest
    greedy = Decoding(samples=1, temperature=0.0, max_new_tokens=40)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "STAGE", 1000)
        whole = sample_completions(model, tokenizer, prompts, greedy)
    monkeypatch.setattr(stages, "STAGE", 3)
    read, dropped, forward, go_on_with = [], [], model.base_model.forward, GrowingCache.go_on_with

    def counted(input_ids, past_key_values=None, **settings):
        read.append((*input_ids.shape, past_key_values.get_seq_length()))
        return forward(input_ids=input_ids, past_key_values=past_key_values, **settings)

    def noted(cache, rows, columns):
        dropped.append(columns)
        go_on_with(cache, rows, columns)

    monkeypatch.setattr(model.base_model, "forward", counted)
    monkeypatch.setattr(GrowingCache, "go_on_with", noted)
    assert sample_completions(model, tokenizer, prompts, greedy, batch_size=size) == whole
    assert sum(new > 1 for _, new, _ in read) <= 2 * slices, "prompts are read at the start alone, what is common first"
    assert len({rows for rows, _, _ in read}) > 2 and max(dropped) > 0, (
        "rows end, and the longest prompt's before others"
    )


def test_a_call_that_goes_on_with_nothing_of_the_one_before_finds_nothing():
    cache, left = GrowingCache(load_policy("tiny").config), StageCache()
    states = torch.zeros(2, 4, 5, 32)
    for layer in cache.layers:
        layer.update(states, states)

    def found(rows, length):
        left.rows = [3, 4]
        left.leave(cache)
        left.rows = rows
        return left.take({"input_ids": torch.zeros(len(rows), length)})

    assert found([4], 6) is cache and cache.get_seq_length() == 5 and len(cache.layers[0].keys) == 1
    assert found([5], 6) is found([3, 5], 6) is found([3], 7) is None
    left.rows = []
    left.leave(cache)
    assert left.is_empty


def completions_of(trainer, rows):
    torch.manual_seed(0)
    trainer.model.train()
    ids = trainer._generate_single_turn(trainer._tokenize_prompts([row["prompt"] for row in rows])[0], None, {}, 1)
    return ids[0]


def test_greedy_completions_are_those_of_one_go(trainer_factory, monkeypatch):
    monkeypatch.setattr(stages, "STAGE", 4)
    trainer = trainer_factory(policy=load_policy("tiny"), max_completion_length=40)
    trainer.generation_config.do_sample = False
    assert trainer._samples_in_stages
    rows = [trainer.train_dataset[number] for number in range(12)]
    staged = completions_of(trainer, rows)
    monkeypatch.setattr(type(trainer), "_samples_in_stages", False)
    assert staged == completions_of(trainer, rows) and len({len(row) for row in staged}) > 1
    assert trainer.generation_config.max_new_tokens == 40


def test_a_least_length_is_left_to_one_go(trainer_factory):
    trainer = trainer_factory(max_completion_length=40, generation_kwargs={"min_new_tokens": 40})
    assert not trainer._samples_in_stages
    assert [len(row) for row in completions_of(trainer, [trainer.train_dataset[0]] * 2)] == [40, 40]


def test_a_token_forced_at_the_end_is_forced_at_the_end_of_the_completion(trainer_factory):
    end = load_tokenizer("tiny").eos_token_id
    trainer = trainer_factory(max_completion_length=60, generation_kwargs={"forced_eos_token_id": end})
    longest = max(completions_of(trainer, [trainer.train_dataset[number] for number in range(8)]), key=len)
    assert len(longest) == 60 and longest[-1] == end


POSITIONAL = {
    "forced_eos_token_id": 1,
    "forced_bos_token_id": 1,
    "exponential_decay_length_penalty": (8, 1.1),
    "begin_suppress_tokens": [5],
    "min_new_tokens": 4,
    "min_length": 4,
    "stop_strings": ["<"],
    "num_beams": 2,
    "guidance_scale": 1.5,
    "max_time": 1.0,
}


@pytest.mark.parametrize(("name", "value"), POSITIONAL.items())
def test_no_stages_for_a_policy_whose_own_settings_look_at_the_place_of_a_token(name, value, trainer_factory):
    """`generate` takes what the trainer leaves unset from the policy's generation_config.json."""
    policy = load_policy("tiny")
    setattr(policy.generation_config, name, value)
    assert not allows_stages(policy.generation_config)
    assert not trainer_factory(policy=policy)._samples_in_stages


def test_usual_settings_of_a_policy_allow_stages():
    usual = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05}
    assert allows_stages(GenerationConfig(**usual, eos_token_id=[1, 2], pad_token_id=0, min_length=0, num_beams=1))


def test_evaluation_does_without_stages_where_the_policy_does(monkeypatch):
    model, tokenizer = load_policy("tiny"), load_tokenizer("tiny")
    model.generation_config.forced_eos_token_id = tokenizer.eos_token_id
    monkeypatch.setattr(stages, "STAGE", 4)
    asked, generate = [], model.generate

    def counted(**settings):
        asked.append(settings["max_new_tokens"])
        return generate(**settings)

    monkeypatch.setattr(model, "generate", counted)
    prompts = add_prompts(generate_problems(2, "test", 0, SPACE), "chat")["prompt"]
    sample_completions(model, tokenizer, prompts, Decoding(samples=1, temperature=0.0, max_new_tokens=20))
    assert asked == [20]


def test_another_sampler_is_left_alone(trainer_factory, monkeypatch):
    """vLLM has no settings of Hugging Face's generation."""
    trainer = trainer_factory()
    trainer.args.use_vllm = True
    del trainer.generation_config
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", lambda self, ids, *rest: (ids, None))
    assert trainer._generate_single_turn([[1, 2]]) == ([[1, 2]], None)


def test_evaluation_samples_in_stages_and_finds_the_same(monkeypatch):
    model, tokenizer = load_policy("tiny"), load_tokenizer("tiny")
    prompts = add_prompts(generate_problems(10, "test", 0, SPACE), "chat")["prompt"]
    greedy = Decoding(samples=1, temperature=0.0, max_new_tokens=40)
    whole = sample_completions(model, tokenizer, prompts, greedy)
    monkeypatch.setattr(stages, "STAGE", 4)
    rows, generate = [], model.generate

    def counted(input_ids, **settings):
        rows.append(len(input_ids))
        return generate(input_ids=input_ids, **settings)

    monkeypatch.setattr(model, "generate", counted)
    assert sample_completions(model, tokenizer, prompts, greedy) == whole
    assert rows[0] == 10 > rows[-1] and len(rows) > 1
