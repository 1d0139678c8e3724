"""Values of TRL's and transformers' own flags, which these take unseen until a model is loaded or a step is trained."""

from collections.abc import Callable
from dataclasses import dataclass

from common.errors import UserError

OF_GRPO = {
    "loss_type": ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}
JSON_FLAGS = (
    *("generation_kwargs", "chat_template_kwargs", "model_init_kwargs", "lr_scheduler_kwargs"),
    *("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
)


@dataclass(frozen=True)
class Range:
    """Flags whose values ``holds`` is true of, in words."""

    words: str
    holds: Callable[[float], bool]
    flags: str


RANGES = (
    Range(
        "0 or more",
        lambda value: value >= 0,
        "learning_rate weight_decay max_grad_norm beta epsilon epsilon_high warmup_steps dataloader_num_workers top_k",
    ),
    Range(
        "above 0",
        lambda value: value > 0,
        "temperature repetition_penalty adam_epsilon delta sapo_temperature_neg sapo_temperature_pos nepochs "
        "num_train_epochs logging_steps save_steps",
    ),
    Range(
        "1 or more",
        lambda value: value >= 1,
        "num_iterations steps_per_generation generation_batch_size per_device_train_batch_size "
        "gradient_accumulation_steps",
    ),
    Range("1 or more, or -1 for the length of --nepochs", lambda value: value == -1 or value >= 1, "max_steps"),
    Range("above 0 and at most 1", lambda value: 0 < value <= 1, "top_p"),
    Range("from 0 to 1", lambda value: 0 <= value <= 1, "min_p top_entropy_quantile ref_model_mixup_alpha"),
    Range("0 or more and below 1", lambda value: 0 <= value < 1, "adam_beta1 adam_beta2"),
    Range("from 0 to 4294967295", lambda value: 0 <= value < 2**32, "seed data_seed"),
)


def check_values(config) -> None:
    """Raise `UserError` for a number or JSON of ``config``, training arguments of TRL, that it cannot train with.

    Flags that ``config`` does not have, or that are unset, are passed over.
    """
    for limits in RANGES:
        for name in limits.flags.split():
            value = getattr(config, name, None)
            if isinstance(value, int | float) and not limits.holds(value):
                raise UserError(f"--{name}={value} must be {limits.words}.")
    for name in JSON_FLAGS:
        value = getattr(config, name, None)
        if isinstance(value, str) and value.strip()[:1] != "{":
            raise UserError(f"--{name}={value!r} must be a JSON object, such as '{{\"name\": 1}}'.")
