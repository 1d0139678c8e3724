"""Policies and trainers of the GPU checks: real shapes on a GPU, toys on a CPU, nothing from the hub."""

from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer

from benchmarks.shapes import Shape
from intrinsic import build_bonuses
from intrinsic.base import Bonus, WeightSchedule
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.encoder import POLICY, build_encoder
from intrinsic.pipeline import BonusPipeline
from policy.load import load_policy, load_tokenizer
from policy.options import PolicyOptions
from tests.equivalence.cases import FAST
from tests.equivalence.scripted import ScriptedTrainer, correctness
from training.trainer import IntrinsicGRPOTrainer

PROMPTS, GROUP = 3, 4
SHAPE_OF_GPU, SHAPE_OF_CPU = Shape(49_152, 1024, 4096, 14, 16, 4), Shape(512, 64, 128, 2, 4, 2)
# A step against the gradient itself: Adam would turn the rounding of a small gradient into a whole step, and a clipped
# gradient would not tell its size.
DESCENT = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "max_grad_norm": 1e9}


@dataclass(frozen=True)
class Machine:
    """Where the checks run: the device, and the folder of the policy."""

    device: torch.device
    policy: str

    @property
    def has_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def length(self) -> int:
        """Most tokens of a sampled completion."""
        return 128 if self.has_gpu else 8

    @property
    def tolerance(self) -> float:
        """Relative difference of means that the order of sums may make: bfloat16's on a GPU, float32's on a CPU."""
        return 0.05 if self.has_gpu else 1e-4

    def assert_close(self, first: dict, second: dict) -> None:
        """The tensors of two dicts are equal up to the order of sums: their mean difference over their mean size."""
        assert first.keys() == second.keys()
        for name, value in second.items():
            difference = (first[name].float() - value.float()).abs().mean()
            assert difference <= self.tolerance * value.float().abs().mean() + 1e-12, name


class Recorder(Bonus):
    """Pays nothing and keeps the rollouts that it sees, with the features it asks for."""

    name = "recorder"
    placement = "advantage"

    def __init__(self, *needs: str):
        self.needs = frozenset(needs)
        self.seen: list = []

    def score(self, rollout):
        return torch.zeros(len(rollout), device=rollout.device)

    def update(self, rollout):
        self.seen.append(rollout)
        return {}


class ScriptedTRL(GRPOTrainer):
    """TRL's own trainer on the completions of `ScriptedTrainer`."""

    _generate_single_turn = ScriptedTrainer._generate_single_turn
    _completion = ScriptedTrainer._completion


def config_of(machine: Machine, folder: Path, **changes) -> GRPOConfig:
    """Two steps on 3 x 4 completions, in the precision of the device."""
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": PROMPTS * GROUP,
        "num_generations": GROUP,
        "max_completion_length": machine.length,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "bf16": machine.has_gpu,
        "gradient_checkpointing": False,
        "use_cpu": not machine.has_gpu,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 0,
    }
    return GRPOConfig(**settings | changes)


def build(
    machine: Machine,
    folder: Path,
    flags: dict | None = None,
    recorder: Recorder | None = None,
    trainer_class: type[GRPOTrainer] = IntrinsicGRPOTrainer,
    policy_options: PolicyOptions | None = None,
    model_name: str | None = None,
    own: dict | None = None,
    **changes,
) -> GRPOTrainer:
    """A trainer of the policy ``model_name``, by default the machine's.

    Args:
        flags: of `IntrinsicOptions`.
        recorder: a bonus of no weight in place of those of ``flags``.
        policy_options: adapter, precision and attention.
        own: settings of `IntrinsicGRPOTrainer` that `GRPOTrainer` does not have.
        changes: of `config_of`.
    """
    set_seed(0)
    policy_options = policy_options or PolicyOptions(dtype="float32")
    name = model_name or machine.policy
    policy, tokenizer = load_policy(name, policy_options), load_tokenizer(name)
    if issubclass(trainer_class, IntrinsicGRPOTrainer):
        options = IntrinsicOptions(**FAST | (flags or {"use_ir": "no"}))
        pipeline = BonusPipeline(build_bonuses(options), options.schedules(), options.ir_clip)
        if recorder is not None:
            pipeline = BonusPipeline([recorder], [WeightSchedule(0.0)])
        encode = build_encoder(POLICY, policy, tokenizer) if "text_embedding" in pipeline.needs else None
        own = {"bonuses": pipeline, "encode": encode} | (own or {})
    return trainer_class(
        model=policy,
        args=config_of(machine, folder, **changes),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": f"Numbers: {n}."}]} for n in range(7, 7 + 4 * PROMPTS)]
        ),
        reward_funcs=[correctness],
        processing_class=tokenizer,
        peft_config=policy_options.lora_config(),
        **(own or {}),
    )


def trained(machine: Machine, folder: Path, *args, **settings) -> GRPOTrainer:
    """`build`, after its training."""
    trainer = build(machine, folder, *args, **settings)
    trainer.train()
    return trainer


def weights_of(trainer: GRPOTrainer) -> dict[str, torch.Tensor]:
    """A copy of the policy's weights by name."""
    policy = trainer.accelerator.unwrap_model(trainer.model)
    return {name: value.detach().clone() for name, value in policy.named_parameters()}


def assert_learnt(trainer: GRPOTrainer, before: dict[str, torch.Tensor]) -> None:
    """Some weight has moved from ``before``, all are finite, and so are the losses."""
    after = weights_of(trainer)
    assert any(not torch.equal(after[name], value.to(after[name].device)) for name, value in before.items())
    assert all(value.isfinite().all() for value in after.values())
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses and all(abs(loss) < float("inf") for loss in losses)
