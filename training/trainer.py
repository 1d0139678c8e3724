"""GRPO with intrinsic bonuses on TRL 1.16: the one file that overrides underscore methods of TRL's GRPO.

(`training.sft` overrides those of TRL's supervised trainer that save a checkpoint and say what one lacks,
`training.gathering` and `training.token_features` read what TRL keeps of a batch, `training.payment` writes advantages
and logs into it; `training.sharded_training` touches some methods of transformers, for checkpoints of a sharded
policy.)

Plain GRPO scores a group with reward functions and normalises; this trainer also
1. gathers the batch into a `Rollout` and lets every bonus score it against its frozen past,
2. pays bonuses of placement "reward" as reward columns, before the group normalisation,
3. adds bonuses of placement "advantage" (B,) and "token" (B, T) to the advantages, after it,
4. then lets every bonus learn from the batch, and logs every part apart.
Evaluation runs none of this. Training is the same as plain GRPO's but for speed (policy/buckets.py) and for an entropy
term over several micro-batches (training/micro_batches.py).
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import copy
from pathlib import Path

from accelerate.utils import is_peft_model
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import GRPOConfig, GRPOTrainer

from common.sharding import shard, whole_weights
from common.state import load_state, save_state
from intrinsic.base import Bonus
from intrinsic.metrics import score_metrics
from intrinsic.pipeline import ScoredBonus
from intrinsic.rollout import Rollout
from policy.buckets import by_length, idle_rows
from policy.chat import take_template_kwargs, with_prefill
from policy.decoding import cast_once
from policy.end_tokens import set_end_tokens
from policy.features import FROZEN_FEATURES
from policy.precision import adapters_in_float32
from policy.shared_prompts import score_in_passes, share_prompts, shared_passes, shares_prompts
from policy.slices import in_slices
from policy.stages import StageCache, allows_stages, in_stages
from training.checkpoint import check_identity, rotate, saving, without_tied
from training.completion_table import BonusColumn, write_completions
from training.gathering import RolloutGathering
from training.launch import refuse_token_features
from training.memory_keys import key_column
from training.micro_batches import share_of_tokens, update_window, with_gradient_times, with_whole_groups
from training.payment import BonusPayment
from training.python_arguments import (
    Bonuses,
    correctness_of,
    encoder_of,
    flags_beside,
    names_of,
    pipeline_of,
    policy_and_tokenizer,
    rows_of,
    settings_of,
)
from training.reference import check_adapter, check_reference
from training.sampler import EpochSampler
from training.sharded_training import ShardedTraining
from training.shared_pass import reason_for_rows
from training.token_features import TokenFeatures
from training.vllm_engine import adapter_weights, prepare_engine
from training.watchdogs.callback import text_metrics

STATE_NAME = "intrinsic_state"

logger = logging.getLogger(__name__)


class IntrinsicGRPOTrainer(RolloutGathering, TokenFeatures, BonusPayment, GRPOTrainer, ShardedTraining):
    """`trl.GRPOTrainer` whose advantages also hold intrinsic bonuses.

    Args:
        model: the policy, or its name: of the hub, a folder, or an embedded one, "tiny" or "tiny_igsm".
        reward_funcs: one reward function in TRL's convention, or several.
        args: settings; by default `training.run_options.RunConfig`, as in the scripts.
        train_dataset: rows with the column "prompt", as a data set or a list.
        bonuses: names as for ``--use_ir`` ("knn+,cfn"), an `IntrinsicOptions` with further flags, one or several
            `Bonus` objects of weight 1, or a whole `BonusPipeline`.
        encode: shared text encoder for bonuses that need "text_embedding"; by default made where one is needed.
        correctness: name of the reward function whose value above 0.5 means a right answer; by default the one called
            "correctness", else the only one. Without one, only bonuses run that need no verdict.
        match_mass: whether the advantages get plain GRPO's total size, see intrinsic/match_mass.py.
        identity: settings that a resumed run must share with the checkpoint; differences are refused. By default those
            of the bonuses.
        completions_dir: folder that gets one parquet per generation batch, one row per completion; None for none.
        keep_checkpoints: how many complete checkpoints to keep; None for all.
        sampling_batch: completions of a process that one call of Hugging Face's ``generate`` samples; 0: all of a
            generation batch.
        capture_features: read token features off the generation where Hugging Face generates; else, and with vLLM,
            they take a forward pass, see training/shared_pass.py. False for a subclass that samples by itself.
        Everything else goes to `GRPOTrainer`; the tokenizer's chat template reads ``args.chat_template_kwargs`` from
        then on, wherever it is rendered; ``args.reward_weights`` are those of ``reward_funcs`` alone.
    """

    def __init__(
        self,
        model: str | PreTrainedModel,
        reward_funcs: Callable | list[Callable],
        args: GRPOConfig | None = None,
        train_dataset: Dataset | Sequence[dict] | None = None,
        *,
        processing_class: PreTrainedTokenizerBase | None = None,
        bonuses: Bonuses = None,
        encode: Callable[[list[str]], Tensor] | None = None,
        correctness: str | None = None,
        match_mass: bool = False,
        identity: dict | None = None,
        completions_dir: Path | None = None,
        keep_checkpoints: int | None = None,
        sampling_batch: int = 0,
        capture_features: bool = True,
        **trainer_kwargs,
    ):
        args = settings_of(args, model)
        rows = rows_of(train_dataset, args)
        self.bonuses = pipeline_of(bonuses, args)
        reward_funcs = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        self.correctness_column = correctness_of(correctness, names_of(reward_funcs), self.bonuses)
        uses_adapter = trainer_kwargs.get("peft_config") is not None
        if isinstance(model, str):
            check_adapter(model, args, uses_adapter)
        else:
            uses_adapter = uses_adapter or is_peft_model(model)
        check_reference(self.bonuses.bonuses, args, uses_adapter)
        model, processing_class = policy_and_tokenizer(model, processing_class)
        self.encode = encode or encoder_of(bonuses, self.bonuses, model, processing_class, args)
        args, self.matches_mass = flags_beside(bonuses, args, match_mass, len(reward_funcs))
        self.identity = identity or {bonus.name: bonus.identity() for bonus in self.bonuses.bonuses}
        self.completions_dir = completions_dir
        self.keep_checkpoints = keep_checkpoints
        self.sampling_batch = sampling_batch
        self.num_extrinsic = len(reward_funcs)
        self._logged_columns: set[str] = set()  # by reward functions, as far as a bonus reads any
        columns = [BonusColumn(bonus, part) for bonus, part in self.bonuses.reward_columns]
        if args.reward_weights is not None and columns:
            args = copy(args)  # which another trainer may be built with
            args.reward_weights = [*args.reward_weights, *[1.0] * len(columns)]
        frozen = self._frozen_policy(model, args, uses_adapter)
        if processing_class is not None:
            set_end_tokens(model, processing_class)
        super().__init__(
            model,
            reward_funcs=[*reward_funcs, *columns],
            args=args,
            train_dataset=rows,
            processing_class=processing_class,
            **trainer_kwargs,
        )
        take_template_kwargs(self.processing_class, args.chat_template_kwargs)
        adapters_in_float32(self.model)
        if self._dist.is_zero3 or (self._dist.is_fsdp and not self.accelerator.is_fsdp2):
            refuse_token_features(self.bonuses.bonuses)
        shard(self.accelerator, self.model)
        if self.use_vllm:
            self._set_up_engine()
        self._key_column, said = key_column(self.bonuses.bonuses, self.train_dataset, self.encode)
        if said and self.accelerator.is_main_process:
            logger.warning(said)
        self._rollout: Rollout | None = None
        self._scored: list[ScoredBonus] = []
        self._plain: Tensor | None = None
        self._pretrained: list[Bonus] = []
        self._idle_rows: Tensor | None = None
        self._entropy_weight: Tensor | None = None
        self._written: tuple[int, int] = -1, 0  # step, and how many of its generation batches have a file
        policy = self.accelerator.unwrap_model(self.model)
        self._share_prompts(policy)
        self._set_up_features(policy, frozen, capture_features)

    def _set_up_engine(self) -> None:
        """Make the engine of vLLM stop where the policy's replies end, and load an adapter without drift."""
        prepare_engine(self.vllm_generation, self.eos_token_ids, self.args.seed)
        if is_peft_model(self.model):
            self.vllm_generation._iter_named_params = adapter_weights(self.model, self._dist)

    def _share_prompts(self, policy: PreTrainedModel) -> None:
        """Let passes over the policy and the reference model read each prompt once, where settings allow for it."""
        if reason_for_rows(policy, self.args) is None:
            share_prompts(policy)
            if self.ref_model is not None:
                share_prompts(self.ref_model)

    def _get_train_sampler(self, dataset=None):
        sampler = super()._get_train_sampler(dataset)
        return EpochSampler.in_place_of(sampler)

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        whole = super()._generate_single_turn
        if self._has_other_sampler:
            return whole(prompt_ids, *args, **kwargs)
        left = StageCache()
        whole = cast_once(self.accelerator.unwrap_model(self.model), self.accelerator.autocast, left)(whole)
        capture = self._capture if self.model.training else None
        longest = self.generation_config.max_new_tokens

        def generate(rows: Sequence[int], ids: list[list[int]], most: int) -> list[list[int]]:
            self.generation_config.max_new_tokens = most
            try:
                start = len(ids[0]) - len(prompt_ids[rows[0]])
                with capture.capturing(rows, start) if capture else nullcontext():
                    return whole(ids, *args, **kwargs)[0]
            finally:
                self.generation_config.max_new_tokens = longest

        if self._samples_in_stages:
            generate = in_stages(generate, self.eos_token_ids, left)
        if self._samples_in_stages or capture or self.sampling_batch:
            return in_slices(generate, self.sampling_batch)(range(len(prompt_ids)), prompt_ids, longest), None
        return whole(prompt_ids, *args, **kwargs)

    @property
    def _has_other_sampler(self) -> bool:
        """Whether another program than Hugging Face's ``generate`` samples."""
        return self.args.use_vllm or self.args.use_transformers_continuous_batching

    @property
    def _samples_in_stages(self) -> bool:
        """Whether Hugging Face generation runs on one CPU process, under settings that allow for stages."""
        one_cpu = self.accelerator.device.type == "cpu" and self.accelerator.num_processes == 1
        defaults = self.accelerator.unwrap_model(self.model).generation_config
        return one_cpu and not self.tools and not self.args.generation_kwargs and allows_stages(defaults)

    def _generate(self, prompts: list):
        with nullcontext() if self._has_other_sampler else whole_weights(self.model):
            output = super()._generate(prompts)
        self._prompt_ids_list, self._completion_ids_list = output[0], output[1]
        self._shared_pass.begin(self.model.training)
        return output

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        logps, entropies, aux_loss = self._logps_and_entropies(*args, **kwargs)
        if self._entropy_weight is not None:  # TRL's entropy term is all that takes their gradient
            entropies = with_gradient_times(entropies, self._entropy_weight)
        return logps, entropies, aux_loss

    def _logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **others
    ):
        if model is self.ref_model and self._serves_bonuses:
            names = self.bonuses.needs & FROZEN_FEATURES.keys()
            return self._frozen.logps(input_ids, attention_mask, logits_to_keep, names), None, None
        if self._shared_pass.is_awaited:
            return self._shared_pass.logps(self._token_tensors(), logits_to_keep), None, None
        # Several forward passes before one backward pass are not safe under every wrapper of several processes.
        whole = super()._get_per_token_logps_and_entropies
        if self.accelerator.num_processes > 1 or any(
            value is not None and value is not False for value in others.values()
        ):
            return whole(model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **others)

        if shares_prompts(model):
            prompt = input_ids.size(1) - logits_to_keep
            prompts = input_ids[:, :prompt], attention_mask[:, :prompt]
            passes = shared_passes(*prompts, batch_size or len(input_ids), self._idle_rows)
            if passes:
                parts = *prompts, input_ids[:, prompt:], attention_mask[:, prompt:]
                return *score_in_passes(model, passes, parts, self.accelerator.autocast, self._idle_rows), None

        def compute(ids, mask, length):
            return whole(model, ids, mask, length, batch_size, compute_entropy)[:2]

        return *by_length(compute, input_ids, attention_mask, logits_to_keep, self._idle_rows), None

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is before or not shares_prompts(self.model):
            return inputs
        self._buffered_inputs = with_whole_groups(self._buffered_inputs, update_window(self.args))
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _compute_loss(self, model, inputs):
        self._idle_rows = self._rows_without_gradient(inputs)
        if self._entropy_bonus_enabled and self.model.training:
            self._entropy_weight = share_of_tokens(inputs, self.args, self.accelerator.num_processes)
        loss = super()._compute_loss(model, inputs)
        self._idle_rows = self._entropy_weight = None
        return loss

    def _rows_without_gradient(self, inputs: dict) -> Tensor | None:
        """(B,) rows of advantage zero where the loss is the advantage times something; None where it is not."""
        if self.beta or self._entropy_bonus_enabled or self.aux_loss_enabled or not self.model.training:
            return None
        return idle_rows(inputs["advantages"], inputs["completion_mask"])

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> Tensor:
        settings = {"tokenizer": self.processing_class, **self.chat_template_kwargs}
        whole = [with_prefill(*pair, **settings) for pair in zip(prompts, completions, strict=True)]
        rewards = super()._calculate_rewards(inputs, prompts, whole, completion_ids_list)
        if not self.model.training:
            return rewards
        self._rollout = self._gather_rollout(inputs, prompts, completions, rewards)
        if self._pretrained:
            return rewards
        self._scored = self.bonuses.score(self._rollout)
        self._pay_in_reward(rewards)
        self._log_metrics(text_metrics(self._rollout) | score_metrics(self._scored, self._rollout))
        self._log_reward_shares(rewards)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        output = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return output
        if self._pretrained:
            for bonus in self._pretrained:
                bonus.update(self._rollout)
            self._rollout = self._rollout.without_states()
            return output
        self._join_after_normalisation(output)
        self._log_metrics(self.bonuses.update(self._rollout))
        if self.completions_dir is not None and self.accelerator.is_main_process:
            step = self.state.global_step
            number = self._written[1] + 1 if self._written[0] == step else 1
            write_completions(self.completions_dir, step, self._logs, self._rollout, self._scored, number)
            self._written = step, number
        self._rollout = self._rollout.without_states()  # nobody reads them while the policy trains
        return output

    def create_model_card(self, *args, **kwargs):
        """Nothing: the card of a run stands beside its final policy, see `training.publish`."""

    def _save_checkpoint(self, model, trial):
        output_dir = Path(self._get_output_dir(trial=trial))
        folder = output_dir / f"checkpoint-{self.state.global_step}"
        is_main = self.accelerator.is_main_process
        with saving(folder, is_main, self.accelerator.wait_for_everyone):
            super()._save_checkpoint(model, trial)
            if is_main:
                save_state({"identity": self.identity, "bonuses": self.bonuses.state_dict()}, folder, STATE_NAME)
        if is_main:
            rotate(output_dir, self.keep_checkpoints)

    def take_policy(self, checkpoint: Path) -> None:
        """Load the policy and the progress of ``checkpoint``, to be evaluated and not trained."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))

    def _issue_warnings_after_load(self, load_result):
        super()._issue_warnings_after_load(without_tied(load_result, self.model))

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            state = load_state(Path(checkpoint), STATE_NAME)
            check_identity(state["identity"], self.identity)
            self.bonuses.load_state_dict(state["bonuses"])
