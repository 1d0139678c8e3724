"""Settings that a run was given and that cannot have an effect beside its other settings, said before it trains.

So are bonuses one of which another holds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields

from intrinsic import CONTAINED
from intrinsic.base import Bonus
from intrinsic.flags.modes import MODE_RULES, ModeRule
from intrinsic.flags.owners import is_for, owners
from intrinsic.options import BonusFlags, IntrinsicOptions
from training.run_options import RunConfig, RunOptions
from training.shared_pass import takes_old_logps

BONUS_FLAGS = {item.name: item for item in fields(BonusFlags)}
CLIPPED_LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")


@dataclass(frozen=True)
class Settings:
    """What decides over the effect of a flag: flags, bonuses, optimiser steps of the run, and training questions."""

    intrinsic: IntrinsicOptions
    options: RunOptions
    config: RunConfig
    bonuses: Sequence[Bonus]
    steps: int
    questions: int

    @property
    def ratio_is_one(self) -> bool:
        """Whether each generation serves one update and the loss takes no old log-probabilities."""
        return not takes_old_logps(self.config)

    @property
    def replaces_all(self) -> bool:
        """Whether nothing of plain GRPO's advantages is left at any step."""
        flags = self.intrinsic
        is_constant = flags.ir_schedule == "constant" and not flags.ir_warmup_steps
        weights = [weight for bonus, weight in zip(self.bonuses, flags.weights, strict=True) if bonus.replaces]
        return is_constant and 1.0 in weights

    def concerns(self, name: str) -> bool:
        """Whether the flag ``name`` is for every run, or for a bonus that this one has."""
        return name not in BONUS_FLAGS or is_for(BONUS_FLAGS[name], self.intrinsic.bonus_names)

    def given(self, name: str) -> object | None:
        """The value of the flag ``name`` unless it is the default, or what the script sets by itself; else None."""
        for group in (self.intrinsic, self.options, self.config):
            found = next((item for item in fields(group) if item.name == name), None)
            if found is not None:
                value, by_itself = getattr(group, name), self.options.script_defaults
                return None if value == by_itself.get(name, _default(found)) else value
        raise KeyError(name)


@dataclass(frozen=True)
class Rule:
    """``flags`` have no effect where ``holds``, because of ``reason``; those of a bonus only beside that bonus."""

    flags: str
    holds: Callable[[Settings], bool]
    reason: str


def _of_mode(rule: ModeRule) -> Rule:
    return Rule(rule.flags, lambda run: rule.holds(run.intrinsic), rule.reason)


def _of_column(flag: str) -> Rule:
    """That of a ``flag`` above 0 that multiplies all of a reward column."""

    def holds(run: Settings) -> bool:
        paid = [bonus.placement for bonus in run.bonuses if is_for(BONUS_FLAGS[flag], [bonus.name])]
        each = run.config.multi_objective_aggregation == "normalize_then_sum"
        return each and set(paid) == {"reward"} and getattr(run.intrinsic, flag) > 0

    reason = "normalize_then_sum brings each reward to one size in its group; --ir_weight sets what it counts"
    return Rule(flag, holds, reason)


RULES = (
    Rule(
        "epsilon epsilon_high",
        lambda run: run.ratio_is_one and run.config.loss_type in CLIPPED_LOSSES,
        "each generation serves one update, so the ratio of probabilities is 1 and nothing is clipped; it acts with "
        "--num_iterations 2 or a --steps_per_generation above --gc",
    ),
    Rule(
        "delta",
        lambda run: run.ratio_is_one and run.config.loss_type in CLIPPED_LOSSES and run.config.delta >= 1,
        "each generation serves one update, so the ratio of probabilities is 1",
    ),
    Rule(
        "sapo_temperature_neg sapo_temperature_pos vespo_k_pos vespo_k_neg vespo_lambda_pos vespo_lambda_neg",
        lambda run: run.ratio_is_one,
        "each generation serves one update, so the ratio of probabilities is 1",
    ),
    Rule(
        "off_policy_mask_threshold",
        lambda run: run.ratio_is_one and not run.config.use_vllm,  # with vLLM it looks at what vLLM gave
        "each generation serves one update, so the ratio of probabilities is 1",
    ),
    Rule(
        "epsilon epsilon_high delta", lambda run: run.config.loss_type in ("sapo", "vespo"), "this loss clips nothing"
    ),
    Rule("delta", lambda run: run.config.loss_type == "cispo", "this loss has no second bound"),
    Rule(
        "epsilon",
        lambda run: run.config.loss_type == "cispo" and run.config.epsilon_high is not None,
        "this loss is bounded above alone, by --epsilon_high",
    ),
    Rule(
        "sapo_temperature_neg sapo_temperature_pos",
        lambda run: run.config.loss_type != "sapo",
        "--loss_type is not sapo",
    ),
    Rule(
        "vespo_k_pos vespo_k_neg vespo_lambda_pos vespo_lambda_neg",
        lambda run: run.config.loss_type != "vespo",
        "--loss_type is not vespo",
    ),
    Rule(
        "vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_importance_sampling_clip_max "
        "vllm_importance_sampling_clip_min vllm_mode vllm_gpu_memory_utilization vllm_max_model_length "
        "vllm_tensor_parallel_size vllm_enable_sleep_mode vllm_structured_outputs_regex vllm_model_impl "
        "vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port "
        "vllm_importance_sampling_cap",
        lambda run: not run.config.use_vllm,
        "vLLM does not sample (--use_vllm)",
    ),
    Rule(
        "vllm_gpu_memory_utilization vllm_max_model_length vllm_tensor_parallel_size vllm_enable_sleep_mode "
        "vllm_model_impl",
        lambda run: run.config.vllm_mode == "server",
        "the server was started with its own (--vllm_mode server)",
    ),
    Rule(
        "vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port",
        lambda run: run.config.vllm_mode == "colocate",
        "vLLM runs in the processes of the trainer (--vllm_mode colocate)",
    ),
    Rule(
        "vllm_server_host vllm_server_port",
        lambda run: run.config.vllm_server_base_url is not None,
        "--vllm_server_base_url says where the server is",
    ),
    Rule(
        "vllm_importance_sampling_mode vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min",
        lambda run: not run.config.vllm_importance_sampling_correction,
        "nothing is corrected (--vllm_importance_sampling_correction)",
    ),
    Rule(
        "use_transformers_continuous_batching transformers_continuous_batching_config cache_implementation",
        lambda run: run.config.use_vllm,
        "vLLM samples (--use_vllm)",
    ),
    Rule(
        "sampling_batch",
        lambda run: run.config.use_vllm or run.config.use_transformers_continuous_batching,
        "another sampler than Hugging Face's generate takes completions as they fit (--use_vllm, "
        "--use_transformers_continuous_batching)",
    ),
    Rule(
        "entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target",
        lambda run: not run.config.use_adaptive_entropy,
        "the entropy coefficient is constant (--use_adaptive_entropy)",
    ),
    Rule(
        "ref_model_mixup_alpha ref_model_sync_steps",
        lambda run: not run.config.sync_ref_model,
        "the reference model stays as it is (--sync_ref_model)",
    ),
    Rule("use_bias_correction_kl", lambda run: not run.config.beta, "there is no KL penalty (--beta)"),
    Rule(
        "scale_rewards",
        lambda run: run.config.multi_objective_aggregation == "normalize_then_sum",
        "normalize_then_sum scales each reward by its group, then the sum by the batch",
    ),
    *map(_of_column, ("beta_s", "beta_e", "ltree_beta", "repexp_beta", "unlikely_beta")),
    Rule(
        "scale_rewards multi_objective_aggregation",
        lambda run: run.replaces_all and not run.intrinsic.match_mass,
        "a bonus replaces the advantages",
    ),
    Rule(
        "lora_r lora_alpha lora_dropout lora_target_modules",
        lambda run: not run.options.lora,
        "all weights are trained (--lora)",
    ),
    Rule(
        "eval_on_start eval_delay per_device_eval_batch_size num_generations_eval load_best_model_at_end "
        "metric_for_best_model greater_is_better prediction_loss_only batch_eval_metrics",
        lambda run: True,
        "evaluations are this project's own (--do_eval, --eval_steps)",
    ),
    Rule(
        "eval_problems eval_samples eval_batch_size eval_temperature reuse_before",
        lambda run: not run.config.do_eval,
        "nothing is evaluated (--do_eval)",
    ),
    Rule("ir_weight", lambda run: run.intrinsic.use_ir == "no", "there is no bonus (--use_ir)"),
    Rule("ir_schedule ir_warmup_steps ir_clip match_mass", lambda run: not run.bonuses, "there is no bonus (--use_ir)"),
    Rule(
        "ir_clip",
        lambda run: all(bonus.replaces or not bonus.clipped for bonus in run.bonuses),
        "what replaces or moves the advantages, or is standardised as the rewards are, is not clipped",
    ),
    Rule(
        "ir_min_std",
        lambda run: not any(bonus.placement == "reward" for bonus in run.bonuses),
        "no bonus is paid in the reward",
    ),
    Rule(
        "encoder",
        lambda run: not any("text_embedding" in bonus.needs for bonus in run.bonuses),
        "no text is embedded (--rarity_partition embedding does)",
    ),
    Rule(
        "ir_warmup_steps",
        lambda run: run.intrinsic.ir_warmup_steps >= run.steps,
        "the run ends before the weight has risen",
    ),
    Rule(
        "explore_warmup",
        lambda run: run.intrinsic.explore_warmup >= max(1, run.steps),
        "the run ends before it explores",
    ),
    Rule(
        "warmup_steps",
        lambda run: run.config.lr_scheduler_type == "constant",
        "the learning rate is constant from the first step on (constant_with_warmup is not)",
    ),
    Rule(
        "lr_scheduler_kwargs",
        lambda run: run.config.lr_scheduler_type in ("constant", "constant_with_warmup"),
        "this schedule reads none",
    ),
    Rule(
        "warmup_steps",
        lambda run: run.config.warmup_steps >= max(1, run.steps),
        "the run ends before the learning rate has risen",
    ),
    *map(_of_mode, MODE_RULES),
)


def inert_settings(run: Settings) -> Iterator[str]:
    """A line for each rule that holds of flags given to ``run``, for each bonus that waits longer than it lasts, and
    for each that another bonus holds."""
    said = set()
    for rule in RULES:
        given = {name: run.given(name) for name in rule.flags.split() if name not in said and run.concerns(name)}
        given = {name: value for name, value in given.items() if value is not None}
        if given and rule.holds(run):
            said |= given.keys()
            flags = ", ".join(f"--{name} {value}" for name, value in given.items())
            yield f"no effect: {flags}: {rule.reason}"
    yield from _of_other_bonuses(run, said)
    yield from _waiting(run)
    yield from _paid_twice(run)


def _of_other_bonuses(run: Settings, said: set[str]) -> Iterator[str]:
    """Flags given for bonuses that the run does not have."""
    for name, item in BONUS_FLAGS.items():
        value = run.given(name)
        if value is not None and name not in said and not run.concerns(name):
            names = " or ".join(sorted(owners(item)))
            yield f"no effect: --{name} {value}: it is for {names}, which --use_ir does not name"


def _waiting(run: Settings) -> Iterator[str]:
    """Bonuses that begin to pay no earlier than the run ends, or that pay for questions which never come back."""
    config = run.config
    passes = run.steps * config.gradient_accumulation_steps
    batches = -(-passes // (config.steps_per_generation * config.num_iterations))
    asked = batches * (config.generation_batch_size // config.num_generations)
    for bonus in run.bonuses:
        waits = bonus.batches_before_bonus - bonus.pretrain_batches
        if waits >= batches > 0:
            yield f"no effect: --use_ir {bonus.name}: it pays after {waits} generations, and the run has {batches}"
        if bonus.from_second_visit and 0 < asked <= run.questions:
            yield (
                f"no effect: --use_ir {bonus.name}: it pays for questions that come back, and the run asks {asked} of "
                f"{run.questions} once each"
            )


def _paid_twice(run: Settings) -> Iterator[str]:
    """Bonuses that another bonus of the run holds. That is no error: a run may measure both side by side."""
    names = run.intrinsic.bonus_names
    for whole, part in CONTAINED.items():
        if whole in names and part in names:
            yield f"paid twice: {whole} pays all that {part} pays, each from a memory of its own; leave {part} out"


def _default(item: Field) -> object:
    return item.default if item.default_factory is MISSING else item.default_factory()
