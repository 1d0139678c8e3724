"""The groups that ``--help`` and ``--dry_run`` show the flags in: those of the pipeline, in its order."""

import shutil
from argparse import ArgumentParser, HelpFormatter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from enum import Enum
from functools import partial
from types import NoneType
from typing import Any, get_args

from trl import GRPOConfig

from common.config_file import preset_names
from intrinsic.flags.owners import is_for
from intrinsic.options import IntrinsicOptions
from policy.options import PolicyOptions
from training.run_name import NAME_RULE

TASK, POLICY, BONUSES = "task and data", "policy", "bonuses"
OTHER = "other flags of TRL and transformers"
# Flags by group, in the order they are shown in; `group_of` places those that stand in no line.
_NAMED = {
    TASK: "data max_prompt_length",
    POLICY: "model_name",
    "generation": "L num_generations temperature top_p top_k min_p repetition_penalty generation_batch_size "
    "sampling_batch mask_truncated_completions use_vllm vllm_mode vllm_gpu_memory_utilization",
    "rewards": "format_weight reward_func reward_func_weight reward_legacy countdown_strict_line scale_rewards",
    BONUSES: "use_ir ir_weight ir_schedule ir_warmup_steps ir_clip ir_min_std match_mass",
    "optimisation": "bs gc micro_batch nepochs max_steps num_iterations learning_rate lr_scheduler_type warmup_steps "
    "optim adam_beta1 adam_beta2 adam_epsilon weight_decay max_grad_norm beta epsilon epsilon_high loss_type "
    "importance_sampling_level entropy_coef use_adaptive_entropy entropy_target top_entropy_quantile bf16 fp16 "
    "gradient_checkpointing seed",
    "evaluation": "do_eval eval_steps eval_problems eval_samples eval_batch_size eval_temperature eval_greedy",
    "logging and checkpoints": "output_dir run_name project report_to logging_steps log_completions save_strategy "
    "save_steps keep_checkpoints resume stop_on_collapse dry_run",
}
GROUPS = tuple(_NAMED)
_GROUP_OF = {name: group for group, names in _NAMED.items() for name in names.split()}
_WIDTH = 120


def group_of(name: str, kind: type) -> str:
    """The group of the flag ``name``, a field of the dataclass ``kind``: one of `GROUPS`, or `OTHER`."""
    if name in _GROUP_OF:
        return _GROUP_OF[name]
    for base, group in ((PolicyOptions, POLICY), (IntrinsicOptions, BONUSES), (GRPOConfig, OTHER)):
        if issubclass(kind, base):
            return group
    return TASK


def grouped(types: Sequence[type], hidden: Collection[str] = ()) -> dict[str, list[tuple[Field, type]]]:
    """The flags of the dataclasses ``types``, each with its class, by group; those in ``hidden`` are left out."""
    groups = {group: [] for group in (*GROUPS, OTHER)}
    for kind in types:
        for field in fields(kind):
            if field.init and field.name not in hidden:
                groups[group_of(field.name, kind)].append((field, kind))
    rank = {name: place for place, name in enumerate(_GROUP_OF)}
    for flags in groups.values():
        flags.sort(key=lambda flag: rank.get(flag[0].name, len(rank)))
    return groups


def help_text(
    script: str,
    types: Sequence[type],
    defaults: Mapping[str, Any],
    everything: bool,
    hidden: Collection[str] = (),
    bonuses: Collection[str] = (),
) -> str:
    """What ``--help`` prints: flags with their sentences and defaults, by group.

    The group `OTHER`, and flags of other bonuses than ``bonuses``, only if ``everything``. ``defaults``: values that
    take the place of the dataclasses' own, from the script's configuration and ``--config``.
    """
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
    parser = ArgumentParser(
        prog=f"python {script}",
        usage=f"python {script} [--config FILE] [--flag value ...]",
        description="Defaults are those for the policy and the --config file named on this command line.",
        formatter_class=partial(HelpFormatter, width=width, max_help_position=28),
        epilog=f"Run folder: outputs/<task>/<run name>, the run name being {NAME_RULE}. --run_name gives another name, "
        "--output_dir another folder.",
        add_help=False,
    )
    script_flags = parser.add_argument_group("this script")
    script_flags.add_argument(
        "--config",
        metavar="FILE",
        help=_escape(
            "YAML file of flags, which flags on the command line win over; presets of published recipes are "
            f"configs/presets/NAME.yaml with NAME one of {', '.join(preset_names())}."
        ),
    )
    script_flags.add_argument("-h", "--help", action="store_true", help="Print this, with the defaults in force.")
    groups = grouped(types, hidden)
    if not everything:
        del groups[OTHER]
        groups[BONUSES] = [(field, kind) for field, kind in groups[BONUSES] if is_for(field, bonuses)]
    script_flags.add_argument("--help_all", action="store_true", help=f"The same, flags of all bonuses, and {OTHER}.")
    for title, flags in groups.items():
        note = None if everything or title != BONUSES else "A bonus that --use_ir names shows its flags too."
        group = parser.add_argument_group(title, note)
        for field, _ in flags:
            text = f"{field.metadata['help']} [{shown(defaults.get(field.name, default_of(field)))}]"
            group.add_argument(f"--{field.name}", metavar=_metavar(field.type), help=_escape(text))
    return parser.format_help()


def default_of(field: Field) -> Any:
    """The default of a dataclass field; None for one without."""
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def shown(value: Any) -> str:
    """``value`` as one would type it after its flag; "unset" for None and the empty text."""
    if value is None or value == "":
        return "unset"
    if isinstance(value, list):
        return " ".join(map(shown, value)) or "none"
    if isinstance(value, Enum):
        return str(value.value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _metavar(kind: Any) -> str:
    names = [getattr(part, "__name__", "value") for part in get_args(kind) or (kind,) if part is not NoneType]
    return {"bool": "BOOL", "int": "INT", "float": "FLOAT"}.get(names[0], "TEXT") if len(names) == 1 else "VALUE"


def _escape(text: str) -> str:
    """``text`` without runs of blanks, for argparse, which formats with %."""
    return " ".join(text.split()).replace("%", "%%")
