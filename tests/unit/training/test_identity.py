"""A resumed run is the same experiment: every flag that changes training is compared with the checkpoint."""

import copy
from dataclasses import fields

import pytest
from datasets import Dataset

from intrinsic import build_bonuses
from intrinsic.options import MathIntrinsicOptions
from tasks.countdown.options import CountdownOptions
from tasks.igsm.options import IGSMOptions
from tasks.math.options import GSM8KOptions, NuminaOptions
from training.identity import DERIVED, FREE, grpo_settings, sft_settings
from training.run_options import RunConfig, RunOptions
from training.sft import SFTOptions, SFTRunConfig

ROWS = Dataset.from_list([{"prompt": "1+1?", "gold": "2"}, {"prompt": "1+2?", "gold": "3"}])
PLAIN = {"use_cpu": True, "bf16": False, "report_to": "none"}
TASKS = (CountdownOptions, IGSMOptions, GSM8KOptions, NuminaOptions)


def grpo(intrinsic=None, task=None, options=None, rows=ROWS, **flags) -> dict:
    intrinsic = intrinsic or MathIntrinsicOptions()
    config = RunConfig(**PLAIN | {"bs": 2, "gc": 4, "num_generations": 4, "lr_scheduler_type": "constant"} | flags)
    settings = task or GSM8KOptions(), intrinsic, options or RunOptions(), config
    return grpo_settings(*settings, build_bonuses(intrinsic), rows)


def sft(rows=ROWS, options=None, **flags) -> dict:
    config = SFTRunConfig(**PLAIN | {"lr_scheduler_type": "constant"} | flags)
    return sft_settings(options or SFTOptions(data="x"), config, rows)


def names(settings: dict) -> set[str]:
    return {name for group in settings.values() if isinstance(group, dict) for name in group}


@pytest.mark.parametrize("kind", [*TASKS, MathIntrinsicOptions, RunOptions, RunConfig])
def test_every_flag_is_compared_unless_it_is_listed(kind):
    task = kind() if kind in TASKS else None
    assert not {item.name for item in fields(kind)} - FREE - DERIVED - names(grpo(task=task))


@pytest.mark.parametrize("kind", [SFTOptions, SFTRunConfig])
def test_every_flag_of_supervised_training_is_compared_unless_it_is_listed(kind):
    assert not {item.name for item in fields(kind)} - FREE - DERIVED - names(sft())


def test_only_flags_that_there_are_are_listed():
    kinds = (*TASKS, MathIntrinsicOptions, RunOptions, RunConfig, SFTOptions, SFTRunConfig)
    assert not (FREE | DERIVED) - {item.name for kind in kinds for item in fields(kind)}


CHANGES = [
    {"temperature": 0.7},
    {"beta": 0.01},
    {"scale_rewards": "batch"},
    {"loss_type": "dr_grpo"},
    {"learning_rate": 1e-2},
    {"weight_decay": 0.5},
    {"adam_beta2": 0.9},
    {"warmup_steps": 7},
    {"lr_scheduler_type": "cosine"},
    {"epsilon_high": 0.28},
    {"num_iterations": 2},
    {"generation_kwargs": {"min_new_tokens": 3}},
    {"L": 17},
    {"bs": 4},
    {"gc": 8},
    {"seed": 1},
    {"generation_batch_size": 16},
    {"rows": ROWS.select([0])},
    {"rows": ROWS.select([1, 0])},
    {"intrinsic": MathIntrinsicOptions(ir_min_std=0.1)},
    {"intrinsic": MathIntrinsicOptions(match_mass=True)},
    {"intrinsic": MathIntrinsicOptions(maxrl_order=2)},
    {"intrinsic": MathIntrinsicOptions(use_ir="knn")},
    {"intrinsic": MathIntrinsicOptions(use_ir="cosine")},
    {"task": GSM8KOptions(format_weight=0.5)},
    {"options": RunOptions(dtype="bfloat16")},
    {"options": RunOptions(lora=True)},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_another_experiment_differs(change):
    assert grpo(**change) != grpo()


@pytest.mark.parametrize(
    "change",
    [
        {"micro_batch": 4},
        {"bs": 4, "gc": 2},
        {"bs": 8, "gc": 1},
        {"activation_checkpointing": True},
        {"logging_steps": 7, "save_steps": 2, "do_eval": False},
        {"max_steps": 9},
        {"nepochs": 3},
        {"warmup_steps": 0.0},
        {"options": RunOptions(resume="auto", eval_problems=3, keep_checkpoints=0)},
        {"intrinsic": MathIntrinsicOptions(use_ir="no", ir_weight="1")},
    ],
    ids=str,
)
def test_the_same_experiment_in_another_layout_is_the_same(change):
    assert grpo(**change) == grpo()


def test_whole_numbers_of_a_file_and_of_the_command_line_are_equal():
    assert grpo(warmup_steps=5) == grpo(warmup_steps=5.0)


def test_the_micro_batch_counts_where_the_loss_is_normalised_by_it():
    assert grpo(loss_type="bnpo", micro_batch=4) != grpo(loss_type="bnpo")
    assert grpo(top_entropy_quantile=0.2, micro_batch=4) != grpo(top_entropy_quantile=0.2)


LONGER = [
    ({"lr_scheduler_type": "cosine"}, {}, False),
    ({"lr_scheduler_type": "linear"}, {}, False),
    ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.1}, {}, False),
    ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5}, {}, True),
    ({}, {"use_ir": "knn+", "explore_warmup": 10}, True),
    ({}, {"use_ir": "knn+", "explore_warmup": 0.1}, False),
    ({}, {"use_ir": "knn", "explore_warmup": 0.1}, True),
    ({}, {"use_ir": "shuffle:cfn"}, False),
    ({}, {"use_ir": "ppl"}, False),
    ({}, {"use_ir": "rnd"}, True),
    ({}, {"use_ir": "rnd", "ir_schedule": "cosine"}, False),
]


@pytest.mark.parametrize(("flags", "bonus", "may"), LONGER)
def test_a_run_may_get_longer_where_nothing_is_scheduled_to_its_end(flags, bonus, may):
    intrinsic = MathIntrinsicOptions(**bonus)
    short, long = (grpo(copy.deepcopy(intrinsic), max_steps=steps, **flags) for steps in (10, 20))
    assert (short == long) is may


def test_supervised_training_too():
    assert sft(learning_rate=1.0) != sft() and sft(rows=ROWS.select([0])) != sft()
    assert sft(per_device_train_batch_size=8, gradient_accumulation_steps=2) == sft() == sft(max_steps=9)
    assert sft(lr_scheduler_type="linear", max_steps=9) != sft(lr_scheduler_type="linear")


def test_where_databases_are_on_a_machine_is_no_setting():
    here, there = (ROWS.add_column("databases", [[f"{place}/a.sqlite"]] * 2) for place in ("/home/me", "/data"))
    assert grpo(rows=here) == grpo(rows=there) == grpo() != grpo(rows=here.add_column("tie_groups", [[[1]]] * 2))
