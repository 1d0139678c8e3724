"""What an update is: prompts x generations, whatever the accumulation and the micro-batch."""

import pytest
import torch

from common.errors import UserError
from policy.load import load_policy
from training.run_options import RunConfig
from training.sft import SFTRunConfig


def config(**flags) -> RunConfig:
    return RunConfig(**{"output_dir": "unused", "use_cpu": True, "report_to": "none", "num_generations": 16} | flags)


def test_bs_counts_prompts_as_in_the_papers():
    # Memory-R's README: bs 2, gc 8, 16 generations are 256 completions per update.
    paper = config(bs=2, gc=8)
    assert paper.per_device_train_batch_size * paper.gradient_accumulation_steps == 256
    assert paper.generation_batch_size == 256 and paper.per_device_train_batch_size == 32


@pytest.mark.parametrize("micro_batch", [1, 8, 64, 256])
def test_micro_batch_changes_memory_only(micro_batch):
    small = config(bs=2, gc=8, micro_batch=micro_batch)
    assert small.per_device_train_batch_size == micro_batch
    assert small.generation_batch_size == 256


@pytest.mark.fault("F21")
def test_micro_batch_that_does_not_divide_the_update_is_refused():
    with pytest.raises(UserError, match="divisor of 256"):
        config(bs=2, gc=8, micro_batch=7)


@pytest.mark.parametrize("kind", [RunConfig, SFTRunConfig])
def test_activations_are_recomputed_only_on_an_accelerator_unless_asked(kind, monkeypatch):
    cpu = {"output_dir": "unused", "use_cpu": True, "bf16": False}
    assert kind(**cpu).activation_checkpointing is False
    assert kind(**cpu, gradient_checkpointing=True).activation_checkpointing is True
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert kind(**cpu | {"use_cpu": False}).activation_checkpointing is True
    assert kind(**cpu | {"use_cpu": False}, gradient_checkpointing=False).activation_checkpointing is False


def test_continuous_batching_that_would_halve_the_precision_of_the_weights_is_refused():
    with pytest.raises(UserError, match="--bf16 false"):
        config(use_transformers_continuous_batching=True, bf16=True)
    assert config(use_transformers_continuous_batching=True, bf16=False).use_transformers_continuous_batching


@pytest.mark.parametrize(
    "passes",
    [{"steps_per_generation": 2}, {"generation_batch_size": 256}, {"steps_per_generation": 1, "num_iterations": 2}],
)
def test_updates_that_would_take_parts_of_generation_batches_are_refused(passes):
    with pytest.raises(UserError, match="and 3 .* make an update.*a multiple of the other"):
        config(bs=4, gc=3, **passes)


@pytest.mark.parametrize(("passes", "saves"), [(1, 1), (3, 1), (6, 2)])
def test_saves_fall_between_generation_batches(passes, saves):
    sizes = {"bs": 4, "gc": 3, "steps_per_generation": passes, "save_strategy": "steps"}
    assert config(**sizes, save_steps=saves).updates_per_generation == saves
    if saves > 1:
        with pytest.raises(UserError, match="inside a generation batch of 2 updates"):
            config(**sizes, save_steps=1)


def updated_weights(trainer_factory, **batch) -> dict[str, torch.Tensor]:
    sizes = RunConfig(output_dir="unused", use_cpu=True, bf16=False, num_generations=4, **batch)
    trainer = trainer_factory(
        policy=load_policy("tiny"),
        per_device_train_batch_size=sizes.per_device_train_batch_size,
        gradient_accumulation_steps=sizes.gradient_accumulation_steps,
        max_steps=1,
        loss_type="grpo",
        beta=0.04,
        # The gradient itself as the update: Adam would turn rounding differences of tiny gradients into full steps.
        optim="sgd",
        learning_rate=1.0,
    )
    trainer.train()
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


@pytest.mark.parametrize("other", [{"bs": 4, "gc": 2}, {"bs": 8, "gc": 1}, {"bs": 2, "gc": 4, "micro_batch": 2}])
def test_the_same_prompts_give_the_same_update_however_they_are_cut(trainer_factory, other):
    reference = updated_weights(trainer_factory, bs=2, gc=4)
    cut = updated_weights(trainer_factory, **other)
    untrained = dict(load_policy("tiny").named_parameters())
    moved = max((reference[name] - untrained[name]).abs().max().item() for name in reference)
    assert moved > 1e-3
    for name in reference:
        torch.testing.assert_close(cut[name], reference[name], rtol=1e-4, atol=1e-4 * moved)


def test_evaluation_steps_without_evaluation_are_refused():
    with pytest.raises(UserError, match="--do_eval 1"):
        config(eval_steps=5, do_eval=False)
    assert config(eval_steps=5).eval_steps == 5 and config(eval_steps=0).eval_steps is None
