"""Values of TRL's flags that it would take and fail with later are refused while the flags are read."""

import sys

import pytest

from cli.parse import parse_options
from cli.parse_sft import parse_sft_options
from common.errors import UserError
from run_gsm8k import GSM8KOptions, MathIntrinsicOptions
from training.run_options import RunConfig
from training.value_checks import OF_GRPO, RANGES


def parsed(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["run_gsm8k.py", *flags])
    return parse_options("gsm8k", GSM8KOptions, MathIntrinsicOptions)[3]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("loss_type", "no", "use one of grpo, dr_grpo"),
        ("scale_rewards", "yes", "use one of group, batch, none"),
        ("importance_sampling_level", "tokens", "use one of token, sequence"),
        ("multi_objective_aggregation", "sum", "use one of sum_then_normalize"),
        ("learning_rate", "-1", "must be 0 or more"),
        ("learning_rate", "nan", "nan"),
        ("epsilon", "-0.2", "must be 0 or more"),
        ("temperature", "0", "must be above 0"),
        ("nepochs", "0", "must be above 0"),
        ("num_iterations", "0", "must be 1 or more"),
        ("top_p", "2", "must be above 0 and at most 1"),
        ("min_p", "-1", "must be from 0 to 1"),
        ("adam_beta2", "1", "must be 0 or more and below 1"),
        ("seed", "-1", "must be from 0 to 4294967295"),
        ("max_grad_norm", "inf", "is no finite number"),
        ("ir_min_std", "nan", "is no finite number"),
        ("eval_temperature", "nan", "is no finite number"),
        ("deepspeed", "nowhere.json", "--deepspeed='nowhere.json' cannot be used"),
        ("generation_kwargs", '{"top_pp": 0.9}', "'top_pp', which is no setting of generate (did you mean top_p"),
        ("accelerator_config", '{"foo": 1}', "unexpected keyword argument 'foo')."),
        ("optim_args", "junk", "--optim_args='junk' cannot be made"),
        ("lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs=None cannot be made (One of min_lr"),
        ("lr_scheduler_type", "warmup_stable_decay", "argument: 'num_decay_steps'); name what it needs there"),
        ("model_init_kwargs", '{"foo": 1}', "would not reach the policy; use --dtype"),
        ("generation_kwargs", '{"top_pp": 0.9}', "'top_pp', which is no setting of generate (did you mean top_p?)"),
        ("generation_kwargs", "{bad", "takes JSON, and '{bad' is none"),
        ("generation_kwargs", "top_k", "must be a JSON object"),
    ],
)
def test_a_bad_value_is_one_sentence(monkeypatch, name, value, words):
    with pytest.raises(UserError) as refused:
        parsed(monkeypatch, f"--{name}", value)
    assert words in str(refused.value) and (name in str(refused.value) or "{bad" in value)


@pytest.mark.parametrize(("flag", "value"), [("learning_rate", "-1"), ("weight_decay", "nan"), ("adam_beta1", "2")])
def test_a_warm_start_refuses_the_same(monkeypatch, flag, value):
    monkeypatch.setattr(sys, "argv", ["run_sft.py", "--data", "traces.jsonl", f"--{flag}", value])
    with pytest.raises(UserError, match=f"--{flag}"):
        parse_sft_options("run_sft.py")


@pytest.mark.parametrize(("given", "taken"), [("true", "group"), ("false", "none"), ("batch", "batch")])
def test_rewards_are_scaled_as_yes_and_no_say(monkeypatch, tmp_path, given, taken):
    config = tmp_path / "own.yaml"
    config.write_text(f"scale_rewards: {given}\n")
    assert parsed(monkeypatch, "--config", str(config)).scale_rewards == taken
    assert parsed(monkeypatch, "--scale_rewards", given).scale_rewards == taken


def test_every_checked_flag_is_one_and_its_default_passes(tmp_path):
    config = RunConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    names = [*OF_GRPO, *(name for limits in RANGES for name in limits.flags.split())]
    assert [name for name in names if not hasattr(config, name)] == []
