"""What the settings of every training script add to those of TRL: trackers, device, compute type, the run folder."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from common.flags import flag
from policy.precision import choose_activation_checkpointing, choose_compute_type
from training.launch import check_gpus
from training.settings_checks import check_optimizer, one_sentence
from training.trackers import chosen_trackers


@dataclass
class ScriptConfig:
    """To be named before the settings of a trainer, such as `trl.SFTConfig`, among the bases of a dataclass.

    What is unset is settled for the device at hand, and what transformers would stumble over later is refused.

    Attributes:
        further_flags: the flags of a run's other options, by name, which trackers show too.
    """

    report_to: list[str] = flag(
        ["none"], "Experiment trackers, separated by blanks or commas: none, all, wandb, tensorboard or others."
    )
    project: str = flag(
        "intrinsic-motivation", "Project that W&B and Trackio put the run into; the variable WANDB_PROJECT wins."
    )
    bf16: bool | None = flag(
        None,
        "Compute in bfloat16 by autocast; unset: where the device is fast in it, else float16 on a GPU and float32 on "
        "a CPU. false: float32.",
    )
    fp16: bool = flag(False, "Compute in float16 by autocast with scaled gradients, on a GPU; see --bf16.")
    gradient_checkpointing: bool | None = flag(
        None, "Recompute activations in the backward pass, for less memory; unset: on an accelerator only."
    )

    further_flags = MappingProxyType({})

    def __post_init__(self):
        self.report_to = chosen_trackers(self.report_to)
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        check_gpus(self.use_cpu)
        choose_compute_type(self)
        choose_activation_checkpointing(self)
        chosen_output_dir = self.output_dir
        with one_sentence(self):
            super().__post_init__()
        self.output_dir = chosen_output_dir  # the base class names "trainer_output" where none is given
        check_optimizer(self)

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name; what trackers record as the configuration of the run."""
        return dict(self.further_flags) | super().to_dict()
