"""The check before training: an ideal answer is paid in full, for every preset, or the run is refused."""

import importlib
import sys
from dataclasses import fields

import pytest
import yaml

from cli.parse import parse_options
from common.errors import UserError
from common.flags import ANY_WEIGHT
from policy.load import load_tokenizer
from tasks.math.options import GSM8KOptions
from tests.unit.cli.test_presets import FILES, OPTIONS
from training.run_options import RunOptions
from training.self_check import check_scoring, continued

THINKS = (
    "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)


@pytest.fixture
def check(monkeypatch):
    """`check_scoring` of an entry script with the flags given, on the embedded policy's tokenizer as changed."""

    def check(script, *flags, template=None, special=()):
        monkeypatch.setattr(sys, "argv", [script, *flags])
        name = script.removeprefix("run_").removesuffix(".py")
        task, intrinsic, _, config = parse_options(name, *OPTIONS[script])
        module = importlib.import_module(script.removesuffix(".py"))
        is_math = script in ("run_gsm8k.py", "run_math.py")
        scoring = module.scoring(task, intrinsic, config) if is_math else module.scoring(task)
        tokenizer = load_tokenizer("tiny")
        if template:
            tokenizer.chat_template = template
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
        check_scoring(scoring, tokenizer, config)
        return scoring

    return check


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_preset_pays_an_ideal_answer_in_full(file, check):
    preset = yaml.safe_load(file.read_text())
    scoring = check(preset["script"], "--config", str(file))
    boxed = preset.get("prompt_type") == "qwen25-math-cot"
    assert ("\\boxed{" in scoring.answer and "<answer>" not in scoring.answer) == boxed


@pytest.mark.parametrize("prompt_type", ["reasoning", "think", "qwen25-math-cot", "plain"])
@pytest.mark.parametrize("script", ["run_gsm8k.py", "run_math.py"])
def test_every_prompt_type_pays_correctness_cosine_and_shape(script, prompt_type, check):
    check(script, "--prompt_type", prompt_type, "--use_ir=cosine", "--format_weight", "1", "--num_shots", "2")


@pytest.mark.parametrize("style", ["chat", "base"])
@pytest.mark.parametrize("script", ["run_countdown.py", "run_igsm.py"])
def test_prompts_that_open_the_thinking_themselves_are_paid_too(script, style, check):
    check(script, "--prompt_style", style, "--format_weight", "1")
    check(script, "--prompt_style", style, "--format_weight", "1", template=THINKS)


def test_a_template_that_opens_the_thinking_goes_with_prompts_whose_thinking_it_is(check):
    for template in (THINKS, THINKS.replace("<think>\n", "<think>")):
        for flags in (["--prompt_type=think"], ["--prompt_type=qwen25-math-cot"], ["--format_weight=0"]):
            check("run_gsm8k.py", *flags, template=template)
    with pytest.raises(
        UserError, match="--prompt_type=reasoning gets .* instead of 0.5 .*opens <think>, so use"
    ) as error:
        check("run_gsm8k.py", "--prompt_type=reasoning", template=THINKS)
    assert "\n" not in str(error.value)


def test_tags_that_the_tokenizer_drops_when_it_decodes_are_refused(check):
    with pytest.raises(UserError, match="gets 0 instead of 1 from the reward correctness"):
        check("run_countdown.py", special=["<answer>", "</answer>"])
    check("run_countdown.py", special=["<box>"])


def test_a_reward_that_never_pays_is_refused_though_it_only_decides_the_best_policy(check, monkeypatch):
    # Self-certainty alone pays no reward; accuracy is still read from the column.
    monkeypatch.setattr("tasks.math.options.solution", lambda *args: "<answer>22</answer>")
    preset = next(file for file in FILES if file.stem == "intuitor_math_gsm8k")
    with pytest.raises(UserError, match="qwen25-math-cot gets 0 instead of 1 from the reward correctness"):
        check("run_gsm8k.py", "--config", str(preset))


@pytest.mark.parametrize("prompt_type", ["think", "qwen25-math-cot"])
def test_the_references_arithmetic_is_refused_with_prompts_whose_answer_it_cannot_read(prompt_type):
    with pytest.raises(UserError, match=f"--reward_legacy reads .* not those of {prompt_type}"):
        GSM8KOptions(prompt_type=prompt_type, reward_legacy=True)


def test_the_references_arithmetic_is_paid_with_the_prompts_it_was_written_for(check):
    for prompt_type in ("reasoning", "plain"):
        check("run_gsm8k.py", "--prompt_type", prompt_type, "--reward_legacy", "--use_ir=cosine")


@pytest.mark.parametrize(
    ("answer", "prefill", "rest"),
    [
        ("<think>\na\n</think>\nb", "<think>\n", "a\n</think>\nb"),
        ("<think>\na\n</think>\nb", "<think>", "\na\n</think>\nb"),
        ("<think>a</think>b", "", "<think>a</think>b"),
        ("steps\nso \\boxed{5}", "<think>", "steps\n</think>\nso \\boxed{5}"),
        ("<reasoning>a</reasoning>b", "<think>", "<reasoning>a</reasoning>b"),
    ],
)
def test_an_ideal_answer_goes_on_from_what_the_prompt_has_opened(answer, prefill, rest):
    assert continued(answer, prefill) == rest


def test_help_of_every_reward_weight_says_where_it_decides_nothing():
    groups = {group for options in OPTIONS.values() for group in options} | {RunOptions}
    weights = [item for group in groups if group.__module__ != "intrinsic.options" for item in fields(group)]
    weights = [item for item in weights if item.name.endswith("_weight")]
    assert {item.name for item in weights} == {"format_weight", "execute_weight", "tests_weight", "reward_func_weight"}
    assert all(item.metadata["help"].endswith(ANY_WEIGHT) for item in weights)
