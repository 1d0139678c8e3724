"""Supervised warm start: which rows are taken, which are dropped or refused, and on which tokens the loss is."""

import json

import pytest
import torch
from transformers import set_seed

from common.errors import UserError
from policy.load import load_policy, load_tokenizer
from tasks.traces import fitting_traces, load_traces, token_count
from training.sft import SFTOptions, SFTRunConfig, build_policy, build_trainer, longest_trace

ROW = {
    "prompt": [{"role": "user", "content": "Numbers: 1 2 3. Target: 6."}],
    "completion": [{"role": "assistant", "content": "<think>\n1+2+3=6 hit\n</think>\n<answer>1+2+3</answer>"}],
}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def config(tmp_path, **flags):
    settings = {"max_steps": 1, "per_device_train_batch_size": 2, "save_strategy": "no", "disable_tqdm": True}
    return SFTRunConfig(output_dir=str(tmp_path / "run"), learning_rate=1e-3, seed=0, **settings | flags)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("tiny")


def test_three_kinds_of_rows_become_prompt_and_completion(tmp_path):
    conversation = write(tmp_path / "a.jsonl", ROW | {"spans": [], "answer": "1+2+3"})
    assert load_traces(conversation, "train")[0] == ROW
    messages = write(tmp_path / "b.jsonl", {"messages": ROW["prompt"] + ROW["completion"]})
    assert load_traces(messages, "train")[0] == ROW
    texts = write(tmp_path / "c.jsonl", {"question": "1+1?", "answer": "2"})
    assert load_traces(texts, "train")[0] == {"prompt": "1+1?", "completion": "2"}
    numbers = write(tmp_path / "d.jsonl", {"question": "1+1?", "answer": 2, "prompt": ROW["prompt"]})
    assert load_traces(numbers, "train")[0] == {"prompt": "1+1?", "completion": "2"}


SAID = [{"role": "user", "content": "1+1?"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"completion": [{"role": "assistant", "content": " "}]}, "has no completion"),
        (ROW | {"completion": []}, "has no completion"),
        (ROW | {"prompt": []}, "has no prompt"),
        (ROW | {"completion": None}, "has no completion"),
        (ROW | {"completion": [{"role": "assistant", "content": None}]}, "completion=.*neither a text"),
        (ROW | {"completion": [{"role": "assistant", "content": ["a"]}]}, "completion=.*neither a text"),
        (ROW | {"completion": "<answer>1+2+3</answer>"}, "mixes texts and conversations"),
        (ROW | {"completion": True}, "completion=True, which is neither"),
        ({"prompt": "1+1?", "completion": "2"}, "mixes texts and conversations"),
    ],
)
def test_a_row_that_is_no_prompt_and_completion_is_named(row, message, tmp_path):
    with pytest.raises(UserError, match=f"row 1 of .*line 2, .*{message}"):
        load_traces(write(tmp_path / "a.jsonl", ROW, row), "train")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "has no completion"),
        ({"value": 2}, "completion=.'value': 2., which is neither"),
        ([2], "completion=.2., which is neither"),
        (False, "completion=False, which is neither"),
    ],
)
def test_an_answer_that_is_no_text_is_named_and_not_trained_on(answer, message, tmp_path):
    with pytest.raises(UserError, match=f"row 1 of .*{message}"):
        load_traces(
            write(tmp_path / "a.jsonl", {"question": "?", "answer": 2}, {"question": "?", "answer": answer}), "train"
        )


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "messages=None"),
        ([], "messages=.., which is no conversation"),
        (SAID, "ends with a message of 'user'"),
        ([*SAID, {"role": "assistant", "content": None}], "neither a text"),
        ([{"role": "assistant", "content": "2"}], "has no prompt"),
    ],
)
def test_a_conversation_that_the_assistant_does_not_end_is_named(messages, message, tmp_path):
    good = {"messages": ROW["prompt"] + ROW["completion"]}
    with pytest.raises(UserError, match=f"row 1 of .*{message}"):
        load_traces(write(tmp_path / "a.jsonl", good, {"messages": messages}), "train")


def test_other_columns_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="has the columns reply, text; it needs prompt and completion"):
        load_traces(write(tmp_path / "a.jsonl", {"text": "x", "reply": "y"}), "train")


def test_traces_longer_than_the_context_are_dropped_and_said_so(tmp_path, tokenizer, capsys):
    long = ROW | {"completion": [{"role": "assistant", "content": "1+2=3 low\n" * 50}]}
    rows = load_traces(write(tmp_path / "a.jsonl", ROW, long, ROW), "train")
    limit = token_count(ROW, tokenizer)
    assert len(fitting_traces(rows, tokenizer, limit)) == 2
    assert f"dropped 1 of 3 traces longer than {limit} tokens" in capsys.readouterr().out
    with pytest.raises(UserError, match="all 3 traces are longer than 5 tokens"):
        fitting_traces(rows, tokenizer, 5)


def test_context_of_the_policy_bounds_max_length(tmp_path):
    options = SFTOptions(data="x")
    assert longest_trace(options, config(tmp_path, max_length=100)) == 100
    assert longest_trace(options, config(tmp_path, max_length=5000)) == 1024
    assert longest_trace(options, config(tmp_path, max_length=None)) == 1024


@pytest.mark.parametrize(("loss_on", "counted"), [("completion", "completion"), ("all", "both")])
def test_loss_is_on_the_completion_or_on_all_tokens(loss_on, counted, tmp_path, tokenizer):
    rows = load_traces(write(tmp_path / "a.jsonl", *[ROW] * 4), "train")
    options = SFTOptions(data="x", loss_on=loss_on)
    trainer = build_trainer(options, config(tmp_path), rows, tokenizer, {})
    batch = next(iter(trainer.get_train_dataloader()))
    learnt = tokenizer.decode(batch["input_ids"][0][batch["labels"][0] != -100])
    prompt = tokenizer.apply_chat_template(ROW["prompt"], tokenize=False, add_generation_prompt=True)
    completion = ROW["completion"][0]["content"] + tokenizer.eos_token
    assert learnt == (completion if counted == "completion" else prompt + completion)


def test_training_lowers_the_loss_and_is_the_same_for_the_same_seed(tmp_path, tokenizer):
    rows = load_traces(write(tmp_path / "a.jsonl", *[ROW] * 8), "train")

    def trained():
        trainer = build_trainer(
            SFTOptions(data="x"), config(tmp_path, max_steps=6, logging_steps=1), rows, tokenizer, {}
        )
        trainer.train()
        return trainer.model, [log["loss"] for log in trainer.state.log_history if "loss" in log]

    (first, losses), (second, _) = trained(), trained()
    assert losses[-1] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_from_scratch_draws_weights_from_the_seed(tmp_path):
    options = SFTOptions(data="x", from_scratch=True)
    set_seed(5)
    first, second, other = (build_policy(options, seed, tmp_path) for seed in (1, 1, 2))
    shipped = load_policy("tiny")
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert first.config.hidden_size == shipped.config.hidden_size
    assert not torch.equal(first.lm_head.weight, shipped.lm_head.weight)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "--data is needed"),
        ({"data": "x", "loss_on": "prompt"}, "--loss_on='prompt'"),
        ({"data": "x", "from_scratch": True, "lora": True}, "--from_scratch .* --lora"),
    ],
)
def test_bad_flags_are_refused(flags, message):
    with pytest.raises(UserError, match=message):
        SFTOptions(**flags)
