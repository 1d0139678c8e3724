"""Flags of a training run; how flags, ``--config`` and a script's defaults come together is in `cli.parse`."""

import math
from dataclasses import dataclass, field

from trl import GRPOConfig

from common.errors import UserError
from common.flags import ANY_WEIGHT, check_choices, check_least, flag
from policy.options import EMBEDDED_NAME, PolicyOptions
from policy.precision import check_dtype
from policy.setup_line import GENERATE
from training.run_name import NAME_RULE
from training.script_config import ScriptConfig
from training.settings_checks import check_generation
from training.value_checks import OF_GRPO, check_values
from training.vllm_checks import check_vllm


@dataclass
class RunOptions(PolicyOptions):
    """What is trained, evaluated and kept."""

    model_name: str = flag(EMBEDDED_NAME, "Policy: tiny or tiny_igsm (embedded), smollm2, hub name or folder.")
    max_prompt_length: int = flag(512, "Problems whose rendered prompt has more tokens are dropped, with a count.")
    resume: str = flag(
        "",
        "Continue a run: auto (newest complete checkpoint of the run folder) or a checkpoint path. Flags that change "
        "training must be the checkpoint's; evaluation, logging, saving and layout may change, and max_steps where no "
        "schedule ends with it.",
    )
    reward_func: str = flag(
        "",
        "Reward functions of your own, module:function separated by commas, paid beside the task's; TRL's convention: "
        "they take prompts, completions and the columns of the rows as keywords and return one number per completion.",
    )
    reward_func_weight: float = flag(1.0, "Weight of each function of --reward_func; correctness has 1." + ANY_WEIGHT)
    keep_checkpoints: int = flag(2, "Complete checkpoints to keep; older ones are deleted. 0 keeps all.")
    eval_problems: int = flag(512, "Validation problems of each evaluation during training.")
    eval_samples: int = flag(1, "Sampled completions per validation problem.")
    eval_batch_size: int = flag(
        0,
        "Completions that evaluations sample at once. 0: 256 on a CPU; on a GPU as many, up to 256, as take no more "
        "memory than training by the estimate. Sampled completions depend on it, greedy ones do not.",
    )
    reuse_before: bool = flag(
        False,
        "Take the evaluation before training from a run beside this one (same parent folder) that made the same one, "
        "if there is any: policy, problems, decoding, seed, device and versions.",
    )
    eval_temperature: float = flag(1.0, "Sampling temperature of evaluations; 0 is greedy.")
    stop_on_collapse: bool | None = flag(
        None,
        "Stop, with a checkpoint and exit code 3, when length, repetition, KL or accuracy collapse; unset: "
        "only with sc, majority or certain.",
    )
    eval_greedy: bool = flag(True, "Evaluate by greedy decoding too, one completion per problem.")
    dry_run: bool = flag(
        False,
        "Print every setting, check flags, packages, device, model, data, rewards, bonuses and run folder, train two "
        "steps on the longest prompts, say whether the run fits, and end; nothing is written.",
    )
    config_file: str = field(default="", init=False)  # the value of --config, which is no flag of a dataclass
    name_parts: list[str] = field(default_factory=list, init=False)  # of the run name, for what differs from defaults

    def __post_init__(self):
        super().__post_init__()
        self.script_defaults: dict[str, object] = {}  # what the script sets by itself, configs/<task>.yaml
        check_dtype(self.dtype, trained=not self.lora)
        check_least(self, eval_problems=1, eval_samples=1, max_prompt_length=1, keep_checkpoints=0, eval_batch_size=0)


@dataclass
class RunConfig(ScriptConfig, GRPOConfig):
    """`trl.GRPOConfig` with the papers' batch flags; every field of it stays a flag of its own."""

    output_dir: str | None = flag(None, "Run folder; unset: outputs/<task>/<run name>.")
    run_name: str | None = flag(None, f"Name of the run; unset: {NAME_RULE}.")
    do_eval: bool = flag(True, "Evaluate on validation problems before and after training, and keep the best policy.")
    eval_steps: int | None = flag(None, "Also evaluate every this many optimiser steps; unset or 0 does not.")
    bs: int = flag(24, "Prompts per accumulation step; each gets num_generations completions.")
    gc: int = flag(1, "Gradient accumulation: an update sees bs * gc prompts.")
    micro_batch: int = flag(
        0,
        "Completions per forward and backward pass, for less memory; 0: bs * num_generations. Same update either way, "
        "but with --loss_type bnpo, --top_entropy_quantile below 1 or a mixture of experts (--router_aux_loss_coef), "
        "which look at the tokens of one pass.",
    )
    sampling_batch: int = flag(
        0,
        "Completions that each process samples at once with Hugging Face's generate, for less memory; 0: all of a "
        "generation batch. The completions that a seed draws depend on it; their distribution does not.",
    )
    L: int = flag(256, "Most tokens of a completion.")
    nepochs: float = flag(1.0, "Passes over the training problems, unless max_steps is set.")

    def __post_init__(self):
        check_least(self, bs=1, gc=1, L=1, sampling_batch=0)
        if self.num_generations < 2:
            raise UserError(f"--num_generations={self.num_generations}: GRPO compares completions; use at least 2.")
        # TRL's help offers True and False too, which a command line can only spell.
        self.scale_rewards = {"true": "group", "false": "none"}.get(f"{self.scale_rewards}".lower(), self.scale_rewards)
        check_choices(self, **OF_GRPO)
        check_values(self)
        self._set_batch()
        self.max_completion_length = self.L
        self.num_train_epochs = self.nepochs
        self.eval_steps = self.eval_steps or None
        if self.eval_steps and not self.do_eval:
            raise UserError(f"--eval_steps={self.eval_steps} evaluates nothing without --do_eval 1; add it.")
        super().__post_init__()
        if self.use_transformers_continuous_batching and (self.bf16 or self.fp16):
            raise UserError(
                "--use_transformers_continuous_batching turns the trained weights into half precision for good (TRL "
                "1.16), where updates of usual learning rates vanish; add --bf16 false, or leave it out."
            )
        check_generation(self)
        if self.use_vllm:
            check_vllm(self)
        self._check_generations()
        self._check_saves()

    @property
    def updates_per_generation(self) -> int:
        """Optimiser steps fed by one generation batch."""
        return max(1, self.steps_per_generation * self.num_iterations // self.gradient_accumulation_steps)

    @property
    def sampler(self) -> str:
        """What samples the completions."""
        if self.use_vllm:
            return f"vLLM ({self.vllm_mode})"
        return "continuous batching of transformers" if self.use_transformers_continuous_batching else GENERATE

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

    def _check_generations(self):
        """Refuse updates that end inside a generation batch and begin with what is left of it."""
        passes, accumulated = self.steps_per_generation * self.num_iterations, self.gradient_accumulation_steps
        if passes % accumulated and accumulated % passes:
            raise UserError(
                f"--steps_per_generation={self.steps_per_generation} times --num_iterations={self.num_iterations} "
                f"passes train on a generation batch and {accumulated} (bs * gc * num_generations / micro_batch) make "
                "an update, which would mix batches that no checkpoint holds; let one be a multiple of the other."
            )

    def _check_saves(self):
        """Refuse save steps inside a generation batch: buffered generations are not part of a checkpoint."""
        updates = self.updates_per_generation
        if self.save_strategy == "steps" and self.save_steps % updates:
            raise UserError(
                f"--save_steps={self.save_steps} falls inside a generation batch of {updates} updates, which a "
                f"resumed run would sample anew; use a multiple of {updates}."
            )


def total_steps(rows: int, config: RunConfig) -> int:
    """Optimiser steps of the whole run over that many training problems."""
    if config.max_steps > 0:
        return config.max_steps
    # The sampler leaves out what does not fill a generation batch, epoch by epoch.
    batches = rows // (config.generation_batch_size // config.num_generations)
    passes = batches * config.steps_per_generation * config.num_iterations
    return math.ceil(config.nepochs * math.ceil(passes / config.gradient_accumulation_steps))
