"""Flags of a training run, and how flags, ``--config`` and a script's defaults come together."""

import sys
import warnings
from argparse import ArgumentParser
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import torch
import transformers
import yaml
from trl import GRPOConfig, TrlParser
from trl.import_utils import is_vllm_available

from training.devices import has_bfloat16
from training.errors import UserError
from training.options import IntrinsicOptions
from training.policy import EMBEDDED_NAME, PolicyOptions, is_embedded

CONFIGS = Path(__file__).parent.parent / "configs"
SHADOWED = {
    "--per_device_train_batch_size": "--bs (prompts)",
    "--gradient_accumulation_steps": "--gc",
    "--max_completion_length": "--L",
    "--num_train_epochs": "--nepochs",
    "--eval_strategy": "--do_eval and --eval_steps",
}


def _flag(default, help):
    return field(default=default, metadata={"help": help})


@dataclass
class RunOptions(PolicyOptions):
    """What is trained, evaluated and kept."""

    model_name: str = _flag(EMBEDDED_NAME, "Policy: tiny (embedded), hub name or local folder.")
    max_prompt_length: int = _flag(512, "Problems whose rendered prompt has more tokens are dropped, with a count.")
    resume: str = _flag("", "Continue a run: auto (newest complete checkpoint of the run folder) or a checkpoint path.")
    keep_checkpoints: int = _flag(2, "Complete checkpoints to keep; older ones are deleted. 0 keeps all.")
    eval_problems: int = _flag(512, "Held-out problems of each evaluation.")
    eval_samples: int = _flag(1, "Sampled completions per held-out problem.")
    eval_temperature: float = _flag(1.0, "Sampling temperature of evaluations; 0 is greedy.")
    stop_on_collapse: bool | None = _flag(
        None,
        "Stop, with a checkpoint and exit code 3, when length, repetition, KL or accuracy collapse; unset: "
        "only with sc.",
    )
    eval_greedy: bool = _flag(True, "Evaluate by greedy decoding too, one completion per problem.")

    def __post_init__(self):
        super().__post_init__()
        for flag in ("eval_problems", "eval_samples", "max_prompt_length"):
            if getattr(self, flag) < 1:
                raise UserError(f"--{flag}={getattr(self, flag)} must be at least 1.")
        if self.keep_checkpoints < 0:
            raise UserError(f"--keep_checkpoints={self.keep_checkpoints} must be 0 or more.")


@dataclass
class RunConfig(GRPOConfig):
    """`trl.GRPOConfig` with the papers' batch flags; every field of it stays a flag of its own."""

    output_dir: str | None = _flag(None, "Run folder; default outputs/<task>/<run name>.")
    do_eval: bool = _flag(True, "Evaluate on held-out problems before and after training, and keep the best policy.")
    eval_steps: int | None = _flag(None, "Also evaluate every this many optimiser steps; unset or 0 does not.")
    bs: int = _flag(24, "Prompts per accumulation step; each gets num_generations completions.")
    gc: int = _flag(1, "Gradient accumulation: an update sees bs * gc prompts.")
    micro_batch: int = _flag(
        0,
        "Completions per forward and backward pass, for less memory; 0: bs * num_generations. Same update either way.",
    )
    gradient_checkpointing: bool | None = _flag(
        None, "Recompute activations in the backward pass, for less memory; unset: on an accelerator only."
    )
    L: int = _flag(256, "Most tokens of a completion.")
    nepochs: float = _flag(1.0, "Passes over the training problems, unless max_steps is set.")

    def __post_init__(self):
        for flag in ("bs", "gc", "L"):
            if getattr(self, flag) < 1:
                raise UserError(f"--{flag}={getattr(self, flag)} must be at least 1.")
        if self.num_generations < 2:
            raise UserError(f"--num_generations={self.num_generations}: GRPO compares completions; use at least 2.")
        self._set_batch()
        self.max_completion_length = self.L
        self.num_train_epochs = self.nepochs
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        self.eval_steps = self.eval_steps or None
        if self.eval_steps and not self.do_eval:
            raise UserError(f"--eval_steps={self.eval_steps} evaluates nothing without --do_eval 1; add it.")
        if self.bf16 is None and not self.fp16:
            self.bf16 = has_bfloat16()
        if self.activation_checkpointing is None:
            asked = self.gradient_checkpointing
            self.activation_checkpointing = not self.use_cpu if asked is None else asked
        self.gradient_checkpointing = None  # its successor is set; transformers warns where both are
        if self.use_vllm and not is_vllm_available():
            raise UserError(
                "--use_vllm needs the package vllm, which is not installed; install it or leave the flag out."
            )
        chosen_output_dir = self.output_dir
        super().__post_init__()
        self.output_dir = chosen_output_dir  # the base class names "trainer_output" where none is given
        self._check_saves()

    def _set_batch(self):
        """Translate bs prompts x gc steps into TRL's count of completions, in micro-batches of equal size."""
        update = self.bs * self.gc * self.num_generations
        micro_batch = self.micro_batch or self.bs * self.num_generations
        if micro_batch < 1 or update % micro_batch:
            raise UserError(
                f"--micro_batch={self.micro_batch} does not divide the {update} completions of an update "
                f"(bs * gc * num_generations); use a divisor of {update}."
            )
        self.per_device_train_batch_size = micro_batch
        self.gradient_accumulation_steps = update // micro_batch

    def _check_saves(self):
        """Refuse save steps inside a generation batch: buffered generations are not part of a checkpoint."""
        updates = self.steps_per_generation * self.num_iterations / self.gradient_accumulation_steps
        if self.save_strategy == "steps" and self.save_steps % max(1.0, updates):
            raise UserError(
                f"--save_steps={self.save_steps} falls inside a generation batch of {updates:g} updates, which a "
                f"resumed run would sample anew; use a multiple of {updates:g}."
            )


def parse_options(task: str, task_options: type, intrinsic: type[IntrinsicOptions] = IntrinsicOptions) -> tuple:
    """(task options, intrinsic options, `RunOptions`, `RunConfig`) from the command line.

    Flags win over ``--config FILE``, which wins over ``configs/<task>_tiny.yaml`` (embedded policy) or
    ``configs/<task>.yaml`` (any other), the script's own defaults.
    """
    quiet_libraries()
    arguments = [part for flag in sys.argv[1:] for part in _split_config_flag(flag)]
    _refuse_shadowed_flags(arguments)
    parser = TrlParser((task_options, intrinsic, RunOptions, RunConfig), allow_abbrev=False)
    defaults = CONFIGS / f"{task}{'_tiny' if is_embedded(_model_name(arguments)) else ''}.yaml"
    parser.set_defaults_with_config(**yaml.safe_load(defaults.read_text()))
    try:
        return parser.parse_args_and_config(arguments)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{error}") from error


def quiet_libraries() -> None:
    """Bars of data loading only on a terminal; no notes on transformers' own internals that a user cannot act on."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()


def _split_config_flag(flag: str) -> list[str]:
    return flag.split("=", 1) if flag.startswith("--config=") else [flag]


def _refuse_shadowed_flags(arguments: list[str]) -> None:
    for flag in arguments:
        ours = SHADOWED.get(flag.split("=")[0])
        if ours:
            raise UserError(f"{flag!r} is set through {ours} here; use {ours}.")


def _model_name(arguments: list[str]) -> str:
    """The policy asked for, which decides the defaults, before the flags are parsed for real."""
    early = ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--model_name")
    early.add_argument("--config")
    known, _ = early.parse_known_args(arguments)
    if known.config is not None and not Path(known.config).is_file():
        raise UserError(f"--config={known.config!r} is not a file; give a YAML file of flags.")
    config = yaml.safe_load(Path(known.config).read_text()) if known.config else {}
    return known.model_name or config.get("model_name", EMBEDDED_NAME)
