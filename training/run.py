"""The steps that every training script shares: folder, checks, trainer, training between two evaluations, closing."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from analysis.report import write_report
from analysis.table import closing_table
from evaluation.evaluate import HeldOut, HeldOutCallback
from intrinsic import build_bonuses
from intrinsic.encoder import POLICY, build_encoder
from training.bonus_pipeline import BonusPipeline
from training.callbacks import InterruptCallback, MetricsCallback, install_progress
from training.checkpoint import abandon_after, check_identity, find_checkpoint, load_state, step_of
from training.errors import UserError
from training.options import IntrinsicOptions
from training.policy import load_policy, resolve
from training.run_folder import RunFolder, create_run_folder, default_output_dir
from training.run_options import RunConfig, RunOptions
from training.trainer import STATE_NAME, IntrinsicGRPOTrainer

PROGRESS = {"accuracy": "rewards/correctness/mean", "reward": "reward", "entropy": "entropy"}


class Run:
    """One training run: owns its folder and the checkpoint it goes on from.

    Building it checks model name, encoder and the checkpoint to resume from (one made with other settings is refused),
    then makes and locks the folder, all before the policy is read.

    Args:
        task: name of the task, a level of the default output folder.
        task_options: the task's own dataclass of flags.
        identity: settings of the data that a resumed run must share, beside those of policy, optimiser and bonuses.
    """

    def __init__(
        self,
        task: str,
        task_options,
        intrinsic: IntrinsicOptions,
        options: RunOptions,
        config: RunConfig,
        identity: dict,
    ):
        resolve(options.model_name)
        self.intrinsic, self.options, self.config = intrinsic, options, config
        self.bonuses = build_bonuses(intrinsic)
        self.encoder = self._load_encoder()
        if config.output_dir is None:
            config.output_dir = str(self._default_folder(task))
        self.identity = self._identity(identity)
        self.checkpoint = find_checkpoint(Path(config.output_dir), options.resume)
        if self.checkpoint is not None:
            check_identity(load_state(self.checkpoint, STATE_NAME)["identity"], self.identity)
        groups = {"task": task_options, "intrinsic": intrinsic, "run": options, "grpo": config}
        flags = {name: _flags(group) for name, group in groups.items()}
        self.folder: RunFolder = create_run_folder(Path(config.output_dir), flags, resume=bool(options.resume))

    @property
    def path(self) -> Path:
        return self.folder.path

    def _default_folder(self, task: str) -> Path:
        if self.config.run_name:
            return Path("outputs") / task / self.config.run_name
        legacy = ["legacy"] if self.intrinsic.memory_legacy else []
        return default_output_dir(task, self.options.model_name, self.intrinsic.use_ir, self.config.seed, *legacy)

    def _identity(self, data: dict) -> dict:
        config = self.config
        return {
            "model": self.options.model_name,
            "seed": config.seed,
            "data": data,
            "bonuses": {bonus.name: bonus.identity() for bonus in self.bonuses},
            "weights": self.intrinsic.weights,
            "weight schedule": [self.intrinsic.ir_schedule, self.intrinsic.ir_warmup_steps, self.intrinsic.ir_clip],
            "batch": {"bs": config.bs, "gc": config.gc, "num_generations": config.num_generations, "L": config.L},
        }

    def build_trainer(
        self,
        rows: Dataset,
        reward_funcs: Sequence[Callable],
        reward_weights: Sequence[float],
        tokenizer: PreTrainedTokenizerBase,
        callbacks: Sequence = (),
    ) -> IntrinsicGRPOTrainer:
        """Load the policy and build the trainer on it."""
        policy = load_policy(self.options.model_name)
        if self._needs_encoder and self.intrinsic.encoder == POLICY:
            self.encoder = build_encoder(POLICY, policy=policy, tokenizer=tokenizer)
        self.config.reward_weights = list(reward_weights)
        trainer = IntrinsicGRPOTrainer(
            model=policy,
            args=self.config,
            train_dataset=rows,
            reward_funcs=list(reward_funcs),
            processing_class=tokenizer,
            bonuses=BonusPipeline(
                self.bonuses, self.intrinsic.schedules(), self.intrinsic.ir_clip, self.intrinsic.ir_min_std
            ),
            encode=self.encoder,
            identity=self.identity,
            completions_dir=self.path / "completions",
            keep_checkpoints=self.options.keep_checkpoints or None,
            callbacks=[MetricsCallback(self.path / "metrics.jsonl"), *callbacks],
        )
        install_progress(trainer, PROGRESS)
        return trainer

    @property
    def _needs_encoder(self) -> bool:
        return any("text_embedding" in bonus.needs for bonus in self.bonuses)

    def _load_encoder(self):
        """The sentence encoder, if a bonus needs one; the policy as encoder has to wait for the policy."""
        if not self._needs_encoder or self.intrinsic.encoder == POLICY:
            return None
        return build_encoder(self.intrinsic.encoder, device=self.config.device)

    def train(self, trainer: IntrinsicGRPOTrainer, held_out: HeldOut, tokenizer: PreTrainedTokenizerBase) -> None:
        """Evaluate, train, evaluate again, save the policy, and write plots, report and the closing table."""
        before = after = None
        if self.config.do_eval and self.checkpoint is None:
            before = held_out.evaluate(trainer.model, tokenizer, "before")
            print(f"before training: accuracy {before['metrics']['accuracy']['mean']:.3f}", flush=True)
        elif self.config.do_eval:
            before = held_out.load("before")
        interrupt = InterruptCallback(self._updates_per_generation)
        trainer.add_callback(interrupt)
        if self.config.do_eval and self.options.eval_every:
            trainer.add_callback(HeldOutCallback(held_out, tokenizer, self.options.eval_every))
        if self.checkpoint is not None:
            print(f"resuming from {self.checkpoint} at step {step_of(self.checkpoint)}", flush=True)
            abandon_after(self.path, step_of(self.checkpoint))
        try:
            trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
        finally:
            interrupt.restore()
        if interrupt.signal is not None:
            print("stopped by a signal after saving; go on with --resume auto", flush=True)
            sys.exit(interrupt.exit_code)
        if self.config.do_eval:
            after = held_out.evaluate(trainer.model, tokenizer, "after", trainer.state.global_step)
        trainer.save_model(str(self.path / "final"))
        report = write_report(self.path)
        if after is not None:
            print(closing_table(before, after))
        print(f"run folder: {self.path} (report: {report})")

    @property
    def _updates_per_generation(self) -> int:
        config = self.config
        return max(1, config.steps_per_generation * config.num_iterations // config.gradient_accumulation_steps)


def drop_long_prompts(rows: Dataset, tokenizer: PreTrainedTokenizerBase, longest: int) -> Dataset:
    """Rows whose rendered prompt has at most ``longest`` tokens; prints how many were dropped.

    Raises `UserError` when none is left.
    """

    def fits(row: dict) -> bool:
        prompt = row["prompt"]
        if not isinstance(prompt, str):
            prompt = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        return len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) <= longest

    kept = rows.filter(fits)
    if len(kept) < len(rows):
        print(f"dropped {len(rows) - len(kept)} of {len(rows)} prompts longer than {longest} tokens")
    if not len(kept):
        raise UserError(f"all {len(rows)} prompts are longer than {longest} tokens; raise --max_prompt_length.")
    return kept


def check_batch(rows: Dataset, config: RunConfig) -> None:
    """Raise `UserError` when ``rows`` cannot fill one generation batch."""
    needed = config.generation_batch_size // config.num_generations
    if len(rows) < needed:
        raise UserError(
            f"{len(rows)} training problems cannot fill a batch of {needed} prompts (bs * gc); lower --bs or --gc, "
            "or use more problems."
        )


def _flags(options) -> dict:
    return options.to_dict() if isinstance(options, RunConfig) else asdict(options)
