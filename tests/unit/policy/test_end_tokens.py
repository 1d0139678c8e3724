"""End tokens: a completion ends at the tokenizer's, the generation config's or the chat template's, in every room."""

import pytest
from datasets import Dataset
from transformers import GenerationConfig

from evaluation.generate import Decoding, sample_completions
from policy.end_tokens import (
    described_end_tokens,
    end_token_ids,
    end_tokens_differ,
    reply_end_id,
    set_end_tokens,
    turn_end_id,
    with_end_token,
)
from policy.load import load_policy, load_tokenizer

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}END{% endfor %}"


@pytest.fixture
def base():
    """The embedded policy as a base model may be: tokenizer and generation config end elsewhere than its chats."""
    model, tokenizer = load_policy("tiny"), load_tokenizer("tiny")
    tokenizer.eos_token = tokenizer.pad_token
    model.generation_config.eos_token_id = tokenizer.pad_token_id
    return model, tokenizer


@pytest.mark.parametrize(
    ("end", "token"),
    [("<|end|>", "<|end|>"), ("<|end|>\n", "<|end|>"), (" \n<|end|><|user|>", "<|end|>"), ("\n", None), ("", None)],
)
def test_the_end_of_a_turn_is_the_token_that_the_template_writes_behind_it(end, token):
    tokenizer = load_tokenizer("tiny")
    tokenizer.chat_template = TURNS.replace("END", end)
    found = turn_end_id(tokenizer)
    assert (None if found is None else tokenizer.convert_ids_to_tokens(found)) == token


def test_no_template_and_one_that_refuses_name_no_end():
    tokenizer = load_tokenizer("tiny")
    for template in (None, "{{ raise_exception('never') }}"):
        tokenizer.chat_template = template
        assert turn_end_id(tokenizer) is None and reply_end_id([], tokenizer) == tokenizer.eos_token_id


def test_every_source_ends_completions_and_the_line_says_which(base):
    model, tokenizer = base
    assert end_token_ids(tokenizer, model.generation_config) == [tokenizer.pad_token_id, turn_end_id(tokenizer)]
    assert end_tokens_differ(tokenizer, model.generation_config)
    line = described_end_tokens(tokenizer, model.generation_config)
    assert line == "a completion ends at <|pad|> (tokenizer, generation config) or <|end|> (chat template)"
    third = GenerationConfig(eos_token_id=[5, 6])
    assert end_token_ids(tokenizer, third) == [tokenizer.pad_token_id, 5, 6, turn_end_id(tokenizer)]
    assert not end_tokens_differ(load_tokenizer("tiny"), load_policy("tiny").generation_config)


def test_the_saved_policy_stops_there_too_and_one_that_agrees_is_left_alone(base, tmp_path):
    model, tokenizer = base
    set_end_tokens(model, tokenizer)
    model.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == end_token_ids(tokenizer, model.generation_config)
    same = load_policy("tiny")
    before = same.generation_config.to_dict()
    set_end_tokens(same, load_tokenizer("tiny"))
    assert same.generation_config.to_dict() == before


def test_evaluation_stops_at_the_end_of_the_turn(base):
    prompts = [[{"role": "user", "content": "Numbers: 3 4 5. Target: 12."}]]
    ((ended,),) = sample_completions(*base, prompts, Decoding(1, 0.0, 200))
    ((usual,),) = sample_completions(load_policy("tiny"), load_tokenizer("tiny"), prompts, Decoding(1, 0.0, 200))
    assert ended == usual and not ended.truncated


@pytest.fixture
def tokenizer(base):
    """What `trainer_factory` builds trainers with."""
    return base[1]


def test_training_stops_there_and_both_counts_of_what_was_cut_off_agree(base, trainer_factory):
    trainer = trainer_factory(policy=base[0], max_completion_length=200, max_steps=1)
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "completions/clipped_ratio" in entry)
    assert log["completions/clipped_ratio"] == trainer._truncated().float().mean().item() < 1.0


@pytest.mark.parametrize("template_end", ["<|end|>", ""])
def test_conversations_to_be_learnt_end_in_a_token_that_ends_completions(template_end):
    tokenizer = load_tokenizer("tiny")
    tokenizer.chat_template = TURNS.replace("END", template_end)
    turn = [{"role": "user", "content": "a"}]
    rows = Dataset.from_list([{"prompt": turn, "completion": [{"role": "assistant", "content": "b"}]}])
    (row,) = with_end_token(rows, tokenizer)
    ids = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == (2 if template_end else 1)


def test_texts_are_ended_by_the_trainer():
    rows = Dataset.from_list([{"prompt": "a", "completion": "b"}])
    assert with_end_token(rows, load_tokenizer("tiny")) is rows
