"""A policy sized for a task: its tokenizer loses nothing and reads numbers as asked; its size is the one asked for."""

import json

import pytest
import torch
from datasets import Dataset

from common.errors import UserError
from policy.load import load_policy, load_tokenizer
from training import new_policy
from training.new_policy import NewPolicyOptions

ROWS = [
    {
        "prompt": [{"role": "system", "content": "Zebra."}, {"role": "user", "content": f"A bag holds {n} apples."}],
        "completion": [
            {"role": "assistant", "content": f"<think>\nbag = {n}\n</think>\n<answer>\\boxed{{{n}}}</answer>"}
        ],
    }
    for n in range(20)
]


@pytest.fixture
def folder(tmp_path, monkeypatch, capsys):
    data = tmp_path / "traces.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    flags = ["--data", str(data), "--output", str(tmp_path / "new"), "--hidden_size", "32", "--layers", "2"]
    monkeypatch.setattr("sys.argv", ["new_policy", *flags, "--context", "128"])
    new_policy.main()
    assert "million parameters" in capsys.readouterr().out
    return tmp_path / "new"


def test_loads_as_a_policy_of_the_size_asked_for(folder):
    model, tokenizer = load_policy(str(folder)), load_tokenizer(str(folder))
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.max_position_embeddings) == (32, 2, 128)
    assert config.vocab_size == len(tokenizer) and tokenizer.eos_token == "<|end|>"


def test_tokenizer_loses_nothing_and_reads_digits_one_by_one(folder):
    tokenizer = load_tokenizer(str(folder))
    for text in ("A bag holds 123 apples.", "<answer>\\boxed{-7}</answer>", "ünïcode 🦊\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("123") == ["1", "2", "3"]
    assert len(tokenizer.tokenize(" apples")) == 1


def test_whole_numbers_and_signs_are_one_token_with_the_space_before_them():
    """A value that is copied from a question to a query is then the same token in both."""
    rows = Dataset.from_list([{"prompt": f"over {n} of 'rug'", "completion": f" x >= {n} = 'rug'"} for n in range(31)])
    tokenizer = new_policy.train_tokenizer(rows, 600, "whole")
    for text in (" x >= 17", "of kind 'rug'", "1234 ünïcode\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    asked, written = (
        [*map(tokenizer.decode, tokenizer(text)["input_ids"])] for text in ("over 17", " x >= 17 = 'rug'")
    )
    assert asked[1:] == [" 17"] and written == [" x", " >", "=", " 17", " =", " '", "rug", "'"]


def test_conversations_are_rendered_with_an_end_and_without_the_system_turn(folder):
    text = load_tokenizer(str(folder)).apply_chat_template(ROWS[0]["prompt"] + ROWS[0]["completion"], tokenize=False)
    assert text.startswith("<|user|>A bag") and text.endswith("<|end|>") and "Zebra" not in text


def test_the_weights_are_those_of_the_seed(folder):
    tokenizer = load_tokenizer(str(folder))

    def weights(seed):
        options = NewPolicyOptions(data="x", output="nowhere", hidden_size=32, layers=2, seed=seed)
        return new_policy.new_model(tokenizer, options).lm_head.weight

    assert torch.equal(weights(3), weights(3)) and not torch.equal(weights(3), weights(4))


def test_heads_and_inner_width_follow_the_flags(folder):
    options = NewPolicyOptions(data="x", output="nowhere", hidden_size=32, layers=1, heads=2)
    config = new_policy.new_model(load_tokenizer(str(folder)), options).config
    assert (config.num_attention_heads, config.num_key_value_heads, config.intermediate_size) == (2, 2, 128)


@pytest.mark.parametrize("hidden_size", [32, 128])
def test_weights_start_as_large_as_the_width_asks_for(folder, hidden_size):
    options = NewPolicyOptions(data="x", output="nowhere", hidden_size=hidden_size, layers=1)
    weights = dict(new_policy.new_model(load_tokenizer(str(folder)), options).named_parameters())
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.o_proj.weight"):
        assert weights[name].std().item() * hidden_size**0.5 == pytest.approx(1, abs=0.1)


def test_words_come_from_what_is_shown_up_to_the_vocabulary():
    rows = Dataset.from_list(ROWS)
    assert len(new_policy.train_tokenizer(rows, 270)) == 270
    assert not any("Zebra" in text for text in new_policy.texts(rows))
    plain = Dataset.from_list([{"prompt": "a bag", "completion": "7"}])
    assert list(new_policy.texts(plain)) == ["a bag", "7"]


@pytest.mark.parametrize(
    "flags",
    [
        {"vocabulary": 10},
        {"layers": 0},
        {"heads": 0},
        {"numbers": "roman"},
        {"context": 1},
        {"hidden_size": 30},
        {"data": ""},
        {"output": "."},
    ],
)
def test_bad_flags_are_refused(flags):
    with pytest.raises(UserError, match=f"--{next(iter(flags))}"):
        NewPolicyOptions(**{"data": "x", "output": "nowhere"} | flags)
