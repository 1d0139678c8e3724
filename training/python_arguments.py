"""What `IntrinsicGRPOTrainer` takes from Python, in TRL's conventions: a policy by name, one function or a list, rows,
and bonuses as ``--use_ir`` names them."""

from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path

from datasets import Dataset
from torch.nn import Module
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig
from trl.trainer.utils import get_callable_name, get_config_model_id

from common.errors import UserError
from intrinsic import build_bonuses
from intrinsic.base import Bonus, WeightSchedule
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.encoder import POLICY, build_encoder
from intrinsic.pipeline import BonusPipeline, check_bonuses
from policy.load import load_policy, load_tokenizer
from policy.precision import Precision
from training.problems import check_batch
from training.run_options import RunConfig
from training.self_check import CORRECTNESS

Bonuses = str | IntrinsicOptions | Bonus | Sequence[Bonus] | BonusPipeline | None


def policy_and_tokenizer(
    model: str | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """The policy, loaded where ``model`` is a name or folder, and its tokenizer, which stays where it is given."""
    if not isinstance(model, str):
        return model, tokenizer
    return load_policy(model), tokenizer or load_tokenizer(model)


def settings_of(args: GRPOConfig | None, model: str | PreTrainedModel) -> GRPOConfig:
    """``args``, by default those of the scripts, in ``outputs/<name of the model>-GRPO`` where they name no folder."""
    name = model if isinstance(model, str) else model.config._name_or_path
    if args is not None and args.output_dir is not None:
        return args
    args = copy(args) if args else RunConfig()
    args.output_dir = str(Path("outputs") / f"{Path(name).name or 'policy'}-GRPO")
    return args


def rows_of(rows: Dataset | Sequence[dict] | None, args: GRPOConfig) -> Dataset | None:
    """The data set of a list of rows; what is none stays as it is.

    Raises `UserError` for rows that cannot fill a generation batch of ``args``, of which TRL would train no step.
    """
    rows = Dataset.from_list(list(rows)) if isinstance(rows, list | tuple) else rows
    if isinstance(rows, Dataset):
        check_batch(rows, args, "give args=RunConfig(bs=...) with fewer prompts")
    return rows


def pipeline_of(bonuses: Bonuses, args: GRPOConfig) -> BonusPipeline:
    """The bonuses with their schedules: from ``--use_ir``'s names, from flags, or from objects, whose weight is 1.

    Raises `UserError` for a name that is none, and for bonuses that do not go with each other or with ``args``.
    """
    if isinstance(bonuses, list | tuple) and bonuses and all(isinstance(name, str) for name in bonuses):
        bonuses = ",".join(bonuses)
    if isinstance(bonuses, BonusPipeline):
        made, pipeline = bonuses.bonuses, bonuses
        check_bonuses(made)
    elif bonuses is None or isinstance(bonuses, str | IntrinsicOptions):
        options = bonuses if isinstance(bonuses, IntrinsicOptions) else IntrinsicOptions(use_ir=bonuses or "no")
        if options.reward_weights:
            raise UserError(
                f"use_ir={options.use_ir!r} names {', '.join(options.reward_weights)}, a reward of the scripts; leave "
                "it out and give its function among reward_funcs."
            )
        made = build_bonuses(options)
        pipeline = BonusPipeline(made, options.schedules(), options.ir_clip, options.ir_min_std)
    else:
        made = list(bonuses) if isinstance(bonuses, list | tuple) else [bonuses]
        check_bonuses(made)
        pipeline = BonusPipeline(made, [WeightSchedule() for _ in made])
    for bonus in made:
        bonus.check(args.num_generations, args.max_completion_length)
    return pipeline


def flags_beside(bonuses: Bonuses, args: GRPOConfig, match_mass: bool, rewards: int) -> tuple[GRPOConfig, bool]:
    """(``args``, ``match_mass``) with what the flags of an `IntrinsicOptions` say of more than its bonuses.

    With its ``sc_alone`` each of the ``rewards`` functions has the weight 0; with its ``match_mass`` masses match.
    """
    if not isinstance(bonuses, IntrinsicOptions):
        return args, match_mass
    if bonuses.sc_alone and match_mass:
        raise UserError("match_mass=True needs plain GRPO's advantages, and with sc_alone no reward makes any.")
    if bonuses.sc_alone:
        args = copy(args)  # which another trainer may be built with
        args.reward_weights = [0.0] * rewards
    return args, match_mass or bonuses.match_mass


def encoder_of(
    bonuses: Bonuses,
    pipeline: BonusPipeline,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    args: GRPOConfig,
) -> Callable | None:
    """The text encoder that a bonus needs, by default the one that ``--encoder`` names by default; None for none."""
    if "text_embedding" not in pipeline.needs:
        return None
    name = bonuses.encoder if isinstance(bonuses, IntrinsicOptions) else IntrinsicOptions().encoder
    if name == POLICY:
        return build_encoder(POLICY, policy=policy, tokenizer=tokenizer, autocast=Precision.of(args).autocast)
    return build_encoder(name, device=args.device)


def names_of(reward_funcs: Sequence[Callable | PreTrainedModel | str]) -> list[str]:
    """The names that TRL logs reward functions by: that of a function, or the last part of a reward model's name."""
    names = []
    for func in reward_funcs:
        model = get_config_model_id(func.config) if isinstance(func, Module) else func
        names.append(model.split("/")[-1] if isinstance(model, str) else get_callable_name(model))
    return names


def correctness_of(asked: str | None, names: Sequence[str], pipeline: BonusPipeline) -> int | None:
    """The place among the reward functions ``names`` of the one that says which completions are right.

    That is the one ``asked`` for, else the one called "correctness", else the only one. None where there is no such
    function. Raises `UserError` where none has the name ``asked`` for, and where bonuses need one.
    """
    if asked is not None and asked not in names:
        raise UserError(f"correctness={asked!r} is no reward function; there are {', '.join(names)}.")
    if asked is None:
        asked = CORRECTNESS if CORRECTNESS in names else names[0] if len(names) == 1 else None
    if asked is not None:
        return names.index(asked)
    lost = [bonus.name for bonus in pipeline.bonuses if bonus.needs_verdict]
    if lost:
        raise UserError(
            f"{', '.join(lost)} needs to know which completions are right: name the reward function that says so, "
            f"correctness='...' with one of {', '.join(names)} (a value above 0.5 is right), or call one {CORRECTNESS}."
        )
    return None
