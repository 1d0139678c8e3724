"""The steps that every training script shares: folder, checks, trainer, training between two evaluations, closing."""

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from common.state import load_state
from common.threads import choose_threads
from evaluation.evaluate import HeldOut
from intrinsic import build_bonuses
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.encoder import POLICY, build_encoder
from intrinsic.pipeline import BonusPipeline, check_bonuses
from policy.end_tokens import described_end_tokens, end_tokens_differ
from policy.load import check_lora_targets, load_policy, lora_base
from policy.precision import Precision
from policy.setup_line import setup_of, unseen_gpu
from rewards.grade import Grade
from training.callbacks import InterruptCallback, MetricsCallback, install_progress
from training.checkpoint import abandon_after, check_identity, find_checkpoint, other_start, step_of
from training.closing import keep_unevaluated, make_final, print_closing, publish
from training.evaluations import Evaluations
from training.finite_updates import FiniteUpdates
from training.fit.out_of_memory import out_of_memory_advice, work_of
from training.fit.room import room_warning
from training.held_out import held_out_of, samples_of
from training.identity import grpo_settings
from training.inert import Settings, inert_settings
from training.launch import check_fsdp
from training.next_commands import next_commands
from training.problems import longest_prompt
from training.reference import check_adapter, check_reference
from training.run_folder import (
    check_run_folder,
    create_run_folder,
    refuse_finished,
    refuse_used,
    take_recorded_threads,
)
from training.run_name import default_output_dir, run_name
from training.run_options import RunConfig, RunOptions, total_steps
from training.shared_pass import reason_for_rows
from training.trackers import shield_trackers
from training.trainer import STATE_NAME, IntrinsicGRPOTrainer
from training.watchdogs.callback import WatchdogCallback, judged
from training.watchdogs.collapse import EXIT_CODE, CollapseCallback, stops_on_collapse

PROGRESS = {"train accuracy": "rewards/correctness/mean", "reward": "reward", "entropy": "entropy"}


class Run:
    """One training run: owns its folder and the checkpoint it goes on from.

    Building it checks model name, bonuses, folder, the checkpoint to resume from (one made with other settings is
    refused) and the encoder. No file is written; `build_trainer` makes and locks the folder once the trainer is built.
    Where a checkpoint is resumed, torch computes with the number of threads of that run from here on.

    ``config`` is changed: ``run_name`` and ``output_dir`` are filled in where they are unset, ``push_to_hub`` becomes
    false for the library (the final policy alone is pushed), and ``further_flags`` the other flags, for trackers.

    Args:
        task: name of the task, a level of the default output folder.
        task_options: the task's own dataclass of flags.
        rows: the training problems with their prompts, which a resumed run must share, as all that `training.identity`
            does not list as free.
    """

    def __init__(
        self,
        task: str,
        task_options,
        intrinsic: IntrinsicOptions,
        options: RunOptions,
        config: RunConfig,
        rows: Dataset,
    ):
        check_adapter(options.model_name, config, options.lora)
        check_lora_targets(options.model_name, options)
        check_fsdp(config, options.lora)
        self.task = task
        self.intrinsic, self.options, self.config = intrinsic, options, config
        self.bonuses = build_bonuses(intrinsic)
        check_bonuses(self.bonuses)
        for bonus in self.bonuses:
            bonus.check(config.num_generations, config.L)
        check_reference(self.bonuses, config, options.lora)
        config.run_name = config.run_name or self._default_name()
        if config.output_dir is None:
            config.output_dir = str(default_output_dir(task, config.run_name))
        self.path = Path(config.output_dir)
        if self._is_main:
            check_run_folder(self.path)
            if not options.resume:
                refuse_used(self.path)
        self.identity = grpo_settings(task_options, intrinsic, options, config, self.bonuses, rows)
        self.checkpoint = find_checkpoint(self.path, options.resume)
        if self._is_main and self.checkpoint is None:
            refuse_finished(self.path)
            self._name_other_start()
        if self.checkpoint is not None:
            check_identity(load_state(self.checkpoint, STATE_NAME)["identity"], self.identity)
            take_recorded_threads(self.checkpoint.parent)
        if config.device.type == "cpu":
            self._print(str(choose_threads()))
        if warning := unseen_gpu():
            self._print(warning)
        settings = Settings(intrinsic, options, config, self.bonuses, total_steps(len(rows), config), len(rows))
        for line in inert_settings(settings):
            self._print(line)
        groups = {"task": task_options, "intrinsic": intrinsic, "run": options, "grpo": config}
        self.flags = {name: _flags(group) for name, group in groups.items()}
        config.further_flags = self.flags["task"] | self.flags["intrinsic"] | self.flags["run"]
        # The library would upload the whole run, completions included.
        self.pushes, config.push_to_hub = config.push_to_hub, False
        self.encoder = self._load_encoder()
        self.watchdogs = WatchdogCallback(self.path, judged(self.bonuses), self._is_main)

    def _default_name(self) -> str:
        extra = [Path(self.options.config_file).stem, *self.options.name_parts]
        return run_name(self.options.model_name, self.intrinsic.use_ir, self.config.seed, *extra)

    def _name_other_start(self) -> None:
        """A flag that changes training changes the name of the folder, in which --resume auto then finds nothing."""
        stem = run_name(self.options.model_name, self.intrinsic.use_ir, self.config.seed)
        if self.options.resume and (line := other_start(self.path, stem)):
            self._print(line)

    def build_trainer(
        self,
        rows: Dataset,
        reward_funcs: Sequence[Callable],
        reward_weights: Sequence[float],
        tokenizer: PreTrainedTokenizerBase,
        callbacks: Sequence = (),
    ) -> IntrinsicGRPOTrainer:
        """Load the policy, build the trainer on it, and make the run folder, which a failed start leaves alone."""
        if warning := room_warning(self.options, self.config, self.bonuses, self.encoder):
            self._print(warning)
        base = lora_base(self.options.model_name, self.options, self.path / "base", resumes=self.checkpoint is not None)
        policy = load_policy(base, self.options)
        reason = reason_for_rows(policy, self.config, self.options.lora_dropout if self.options.lora else 0.0)
        prompts = f"trained once per completion ({reason})" if reason else "trained once per group"
        precision = str(Precision.of(self.config))
        self.setup = setup_of(policy, self.config.device, precision, self.config.sampler, prompts)
        self._print(str(self.setup))
        if end_tokens_differ(tokenizer, policy.generation_config):
            self._print(described_end_tokens(tokenizer, policy.generation_config))
        # Columns of weight 0 are logged and pay nothing.
        self.config.reward_weights = [0.0 if self.intrinsic.sc_alone else weight for weight in reward_weights]
        callbacks = [MetricsCallback(self.path / "metrics.jsonl"), FiniteUpdates(), self.watchdogs, *callbacks]
        trainer = self.make_trainer(policy, self.config, rows, reward_funcs, tokenizer, callbacks)
        install_progress(trainer, PROGRESS)
        shield_trackers(trainer)
        self._claim_folder()
        return trainer

    def make_trainer(self, policy, config, rows, reward_funcs, tokenizer, callbacks) -> IntrinsicGRPOTrainer:
        """The trainer of this run's bonuses on any policy, settings and problems; makes ``config.output_dir``, no file.

        Where the policy is the text encoder, that of this run becomes ``policy``.
        """
        if self._needs_encoder and self.intrinsic.encoder == POLICY:
            autocast = Precision.of(config).autocast
            self.encoder = build_encoder(POLICY, policy=policy, tokenizer=tokenizer, autocast=autocast)
        schedules, clip, least = self.intrinsic.schedules(), self.intrinsic.ir_clip, self.intrinsic.ir_min_std
        return IntrinsicGRPOTrainer(
            model=policy,
            args=config,
            train_dataset=rows,
            reward_funcs=list(reward_funcs),
            processing_class=tokenizer,
            peft_config=self.options.lora_config(),
            bonuses=BonusPipeline(self.bonuses, schedules, clip, least),
            encode=self.encoder,
            match_mass=self.intrinsic.match_mass,
            identity=self.identity,
            completions_dir=self.path / "completions",
            keep_checkpoints=self.options.keep_checkpoints or None,
            sampling_batch=config.sampling_batch,
            callbacks=list(callbacks),
        )

    def _claim_folder(self) -> None:
        if self._is_main:
            resumes = bool(self.options.resume)
            from_start = self.checkpoint is None
            self.folder = create_run_folder(self.path, self.flags, resumes, asdict(self.setup), from_start)
        PartialState().wait_for_everyone()

    @property
    def _needs_encoder(self) -> bool:
        return any("text_embedding" in bonus.needs for bonus in self.bonuses)

    def _load_encoder(self):
        """The sentence encoder, if a bonus needs one; the policy as encoder has to wait for the policy."""
        if not self._needs_encoder or self.intrinsic.encoder == POLICY:
            return None
        return build_encoder(self.intrinsic.encoder, device=self.config.device)

    def held_out(self, rows: Dataset | None, grade: Callable[[str, dict], Grade]) -> HeldOut | None:
        """The evaluation of ``rows`` under this run's flags, or None where there is none to make."""
        if rows is None or not self.config.do_eval:
            return None
        options, config = self.options, self.config
        work = work_of(options, config, self.bonuses, self.encoder, longest_prompt(options, config))
        samples = samples_of(rows, options.model_name, self.identity["run"], self.setup, config)
        return held_out_of(self.task, rows, grade, self.path, options, config, work.evaluation_batch, samples)

    def train(
        self, trainer: IntrinsicGRPOTrainer, held_out: HeldOut | None, write_report: Callable[[Path], Path]
    ) -> None:
        """Evaluate, train, evaluate again, save the policy, and write plots, report and the closing table.

        The policy with the best validation accuracy is kept in ``best/``, the last one in ``final/``; with LoRA,
        ``final/`` holds the merged model and ``adapter/`` the adapter. Until it is evaluated, the last one is in
        ``unevaluated/``. Without ``held_out`` nothing is evaluated. ``write_report`` makes the report of the run folder
        and returns its path. Raises `RunError` with advice when memory runs out.
        """
        prompt = longest_prompt(self.options, self.config)
        work = partial(work_of, self.options, self.config, self.bonuses, self.encoder, prompt)
        with out_of_memory_advice(self.options, work, self._where_to_go_on):
            self._train(trainer, held_out, write_report)

    def _where_to_go_on(self) -> str:
        checkpoint = find_checkpoint(self.path, "auto", report=lambda line: None)
        if checkpoint is None:
            return "No checkpoint had been written."
        return f"{checkpoint} is complete: the same command with --resume auto goes on from it."

    def _train(
        self, trainer: IntrinsicGRPOTrainer, held_out: HeldOut | None, write_report: Callable[[Path], Path]
    ) -> None:
        evaluations, before = None, None
        if held_out:
            chooses = self.flags["task"].get("eval_split") != "test"
            evaluations = Evaluations(trainer, held_out, self.path, chooses, self.watchdogs)
            before = evaluations.before(self.checkpoint is not None, self.options.reuse_before)
        interrupt = InterruptCallback(self.config.updates_per_generation)
        trainer.add_callback(interrupt)
        collapse = CollapseCallback(lambda: self.watchdogs.history, self.config.updates_per_generation)
        if stops_on_collapse(self.options.stop_on_collapse, self.intrinsic.bonus_names):
            trainer.add_callback(collapse)
        if evaluations and self.config.eval_steps:
            trainer.add_callback(evaluations.every(int(self.config.eval_steps)))
        if self.checkpoint is None:
            trainer.pretrain_bonuses()
        else:
            self._print(f"resuming from {self.checkpoint} at step {step_of(self.checkpoint)}")
            self._leave_later_checkpoints()
        try:
            self._train_or_take(trainer)
        finally:
            interrupt.restore()
        if interrupt.signal is not None:
            self._print("stopped by a signal after saving; go on with --resume auto")
            sys.exit(interrupt.exit_code)
        if collapse.stopped:
            if self._is_main:
                write_report(self.path)
            self._print(collapse.message)
            sys.exit(EXIT_CODE)
        try:
            self._close(trainer, before, evaluations, write_report)
        except KeyboardInterrupt:
            self._print(f"stopped after training, before all was evaluated and saved. {self._where_to_go_on()}")
            sys.exit(128 + signal.SIGINT)

    def _train_or_take(self, trainer: IntrinsicGRPOTrainer) -> None:
        steps = total_steps(len(trainer.train_dataset), self.config)
        if self.checkpoint is not None and step_of(self.checkpoint) >= steps:
            # transformers would train one more step before it looks at their number.
            self._print(f"all {steps} steps are trained; what is left is to evaluate and to save")
            trainer.take_policy(self.checkpoint)
        else:
            trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)

    def _close(
        self,
        trainer: IntrinsicGRPOTrainer,
        before: dict | None,
        evaluations: Evaluations | None,
        write_report: Callable[[Path], Path],
    ) -> None:
        unevaluated = keep_unevaluated(trainer, self.path)
        try:
            after = evaluations.after() if evaluations else None
        except BaseException:
            self._print(f"the trained policy is in {unevaluated}, not evaluated")
            raise
        if self._is_main:
            make_final(self.path, self.options)
            report = write_report(self.path)
            publish(self.path, self.config, self.task, self.bonuses, before, after, self.pushes)
            asked = self.flags["task"]
            commands = next_commands(self.task, sys.argv[1:], self.path, self.intrinsic, asked)
            print_closing(self.path, report, before, after, commands)

    def _leave_later_checkpoints(self) -> None:
        """Take the trust from checkpoints beyond the one that this run goes on from."""
        if self._is_main:
            abandon_after(self.path, step_of(self.checkpoint))

    @property
    def _is_main(self) -> bool:
        return self.config.process_index == 0

    def _print(self, line: str) -> None:
        if self._is_main:
            print(line, flush=True)


def _flags(options) -> dict:
    return options.to_dict() if isinstance(options, RunConfig) else asdict(options)
