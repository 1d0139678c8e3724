"""Which training problems a run takes: prompts that fit, to the token, and enough of them for a batch."""

import copy

import pytest
from datasets import Dataset

from common.errors import UserError
from training.problems import check_batch, fitting_rows, longest_prompt
from training.run_options import RunConfig, RunOptions


@pytest.fixture
def config(tmp_path):
    flags = {"bs": 2, "gc": 2, "num_generations": 4, "L": 16, "bf16": False, "use_cpu": True}
    return RunConfig(output_dir=str(tmp_path), report_to="none", **flags)


def rows(*prompts):
    return Dataset.from_list([{"prompt": prompt} for prompt in prompts])


def test_a_prompt_may_be_as_long_as_the_limit_and_no_longer(tokenizer, config):
    short, long = "7 7 7", "7 7 7 7"
    limit = len(tokenizer(short)["input_ids"])
    assert len(tokenizer(long)["input_ids"]) > limit
    assert fitting_rows(rows(short, long), tokenizer, RunOptions(max_prompt_length=limit), config)["prompt"] == [short]
    with pytest.raises(UserError, match=f"all 2 prompts are longer than {limit - 1} tokens"):
        fitting_rows(rows(short, long), tokenizer, RunOptions(max_prompt_length=limit - 1), config)


def test_the_context_is_shared_by_prompt_and_completion(config):
    assert longest_prompt(RunOptions(max_prompt_length=5000), config) == 1024 - 16
    assert longest_prompt(RunOptions(max_prompt_length=100), config) == 100
    config.L = 1023
    assert longest_prompt(RunOptions(max_prompt_length=100), config) == 1
    config.L = 1024
    with pytest.raises(UserError, match="--L=1024 leaves no room"):
        longest_prompt(RunOptions(max_prompt_length=100), config)


def test_a_conversation_needs_a_chat_template(tokenizer, config):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        fitting_rows(rows([{"role": "user", "content": "7"}]), bare, RunOptions(), config)
    assert len(fitting_rows(rows("7"), bare, RunOptions(), config)) == 1


def test_problems_fill_one_batch_or_are_too_few(config):
    check_batch(rows(*"abcd"), config)
    with pytest.raises(UserError, match="3 training problems cannot fill a batch of 4 prompts"):
        check_batch(rows(*"abc"), config)
