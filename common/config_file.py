"""``--config FILE``: flags from a YAML file, among them the presets of published recipes in ``configs/presets/``.

A key is a flag without its dashes. The key ``script`` names the entry script that the file is written for; another
script refuses the file instead of training something else under the recipe's name.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.yaml_flags import read_mapping

PRESETS = Path(__file__).parent.parent / "configs" / "presets"
SCRIPT_KEY = "script"
_ABSENT = object()
# What other programs call flags of ours.
USUAL_NAMES = {
    "lr": "learning_rate",
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs"), "nepochs num_train_epochs"),
    **dict.fromkeys(("batch_size", "train_batch_size", "b"), "bs batch_size per_device_train_batch_size"),
    **dict.fromkeys(("grad_accum", "grad_accumulation_steps", "accumulation_steps"), "gc gradient_accumulation_steps"),
    **dict.fromkeys(
        ("max_tokens", "max_new_tokens", "max_length", "max_response_length"), "L max_new_tokens max_length"
    ),
    **dict.fromkeys(("model", "model_path", "policy", "checkpoint"), "model_name"),
    **dict.fromkeys(("group_size", "n_samples", "rollouts", "num_samples", "G"), "num_generations n"),
    **dict.fromkeys(("kl", "kl_coef", "kl_beta"), "beta"),
    **dict.fromkeys(("bonus", "intrinsic", "ir", "reward"), "use_ir"),
    **dict.fromkeys(("weight", "coef", "ir_coef", "bonus_weight"), "ir_weight"),
    **dict.fromkeys(("steps", "num_steps", "total_steps"), "max_steps"),
    **dict.fromkeys(("dataset", "dataset_name", "train_file", "file"), "data"),
    **dict.fromkeys(("output", "out", "save_dir", "out_dir"), "output_dir output"),
    **dict.fromkeys(("temp", "t"), "temperature"),
    **dict.fromkeys(("warmup", "num_warmup_steps", "warmup_ratio"), "warmup_steps"),
    **dict.fromkeys(("wandb", "logger", "tracker"), "report_to"),
}


def preset_names() -> list[str]:
    """The presets' names, sorted: those of the files in ``configs/presets/`` without their ending."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def read_config(path: str, script: str) -> dict[str, Any]:
    """The flags in the YAML file ``path``, without the key that says which script they are for.

    Raises `UserError` when there is no such file (naming the presets), when `read_mapping` cannot read it, or when it
    was written for another script than ``script``.
    """
    if not Path(path).is_file():
        raise UserError(
            f"--config={path!r} is not a file; give a YAML file of flags or a preset, configs/presets/NAME.yaml, "
            f"where NAME is one of: {', '.join(preset_names())}."
        )
    flags = read_mapping(path)
    meant_for = flags.pop(SCRIPT_KEY, script)
    if meant_for != script:
        raise UserError(
            f"--config={path!r} is for {meant_for}, not for {script}; run python {meant_for} --config {path}."
        )
    return flags


def check_keys(flags: Mapping[str, Any], known: Collection[str], refused: Mapping[str, str], path: str) -> None:
    """Raise `UserError` for a key of the file ``path`` that is no flag, or one of ``refused`` (flag -> what to use)."""
    for key in flags:
        if f"--{key}" in refused:
            raise UserError(f"{key!r} in --config={path!r} is set through {refused[f'--{key}']} here; use that.")
        if key not in known:
            raise UserError(
                f"{key!r} in --config={path!r} is not a flag{did_you_mean(key, known)}; --help_all lists all."
            )


def did_you_mean(name: str, known: Collection[str], prefix: str = "") -> str:
    """A question in brackets that names the flag meant by ``name``, or spelt most like it; nothing where none is."""
    close = [flag for flag in USUAL_NAMES.get(name, "").split() if flag in known] or get_close_matches(name, known, n=1)
    return f" (did you mean {prefix}{close[0]}?)" if close else ""


def changed_flags(parser: ArgumentParser, arguments: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Flag -> (default of ``parser``, value) of the ``arguments`` that differ from it, in the parser's order."""
    defaults = vars(parser.parse_known_args([])[0])
    typed, _ = parser.parse_known_args(list(arguments), Namespace(**dict.fromkeys(defaults, _ABSENT)))
    return {
        flag: (defaults[flag], value)
        for flag, value in vars(typed).items()
        if value is not _ABSENT and value != defaults[flag]
    }


def overridden(changed: Mapping[str, tuple[Any, Any]], flags: Mapping[str, Any], path: str) -> list[str]:
    """One line for each key of the file ``path`` that is among the `changed_flags`; the file's values are defaults."""
    return [
        f"{key}: {path} says {changed[key][0]}, the command line {changed[key][1]}; the command line wins"
        for key in flags
        if key in changed
    ]
