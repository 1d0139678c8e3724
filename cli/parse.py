"""The command line of the training scripts: how flags, ``--config`` and a script's defaults come together."""

import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import NoReturn

import datasets
import transformers
from trl import TrlParser

from cli.help import Page, page_text, show
from cli.help_flags import page_of
from common.config_file import changed_flags, check_keys, overridden, read_config
from common.errors import UserError
from common.flags import OneSentence, parse_flags, typed_value
from common.yaml_flags import as_defaults, flags_of, read_mapping
from intrinsic.options import IntrinsicOptions
from policy.load import is_embedded
from policy.options import EMBEDDED_NAME
from training.run_name import name_parts
from training.run_options import RunConfig, RunOptions

CONFIGS = Path(__file__).parent.parent / "configs"
SHADOWED = {
    "--per_device_train_batch_size": "--bs (prompts)",
    "--gradient_accumulation_steps": "--gc",
    "--max_completion_length": "--L",
    "--num_train_epochs": "--nepochs",
    "--eval_strategy": "--do_eval and --eval_steps",
    "--reward_weights": "--format_weight and --ir_weight",
    "--resume_from_checkpoint": "--resume",
}


def parse_options(task: str, task_options: type, intrinsic: type[IntrinsicOptions] = IntrinsicOptions) -> tuple:
    """(task options, intrinsic options, `RunOptions`, `RunConfig`) from the command line.

    Flags win over ``--config FILE``, and say so; it wins over the script's own defaults, ``configs/<task>_tiny.yaml``
    (an embedded policy) or ``configs/<task>.yaml`` (any other). ``--help`` and ``--help_all`` print and exit.
    """
    quiet_libraries()
    script, arguments = script_flags(sys.argv[1:])
    refuse_shadowed_flags(arguments, SHADOWED)
    types = (task_options, intrinsic, RunOptions, RunConfig)
    if script.help or script.help_all:
        print_help(page_of(f"run_{task}.py", types, SHADOWED, task))
    file_flags = read_config(script.config, f"run_{task}.py") if script.config else {}
    parser = FlagParser(types, allow_abbrev=False, add_help=False)
    known = flags_of(types)
    check_keys(file_flags, known, SHADOWED, script.config)
    from_file = as_defaults(file_flags, known, script.config)
    policy = typed_value("model_name", arguments, from_file.get("model_name", EMBEDDED_NAME))
    own = CONFIGS / f"{task}{'_tiny' if is_embedded(policy) else ''}.yaml"
    of_script = as_defaults(read_mapping(own), known, own)
    parser.set_defaults_with_config(**of_script)
    by_itself = vars(parser.parse_known_args([])[0])  # values as their flags have them, where the file has texts
    parser.set_defaults_with_config(**of_script | from_file)
    parsed = parse_flags(parser, arguments, known)
    parsed[1].check_task(task)
    options, config = parsed[2:]
    options.config_file = script.config or ""
    options.script_defaults = {name: by_itself[name] for name in of_script}
    changed = changed_flags(parser, arguments)
    options.name_parts = name_parts({flag: value for flag, (_, value) in changed.items()})
    if config.process_index == 0:
        for line in overridden(changed, file_flags, script.config):
            print(line)
    return parsed


def print_help(page: Page) -> NoReturn:
    """Print ``page`` for this command line, keep it, and exit."""
    show(page_text(page, sys.argv[1:]))
    page.save()
    sys.exit(0)


class FlagParser(OneSentence, TrlParser):
    """`trl.TrlParser` that complains in one sentence."""

    listing = "--help_all"


def script_flags(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """The flags that are no field of any options (config, help, help_all), and the other arguments."""
    parser = FlagParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--config")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--help_all", "--help-all", action="store_true")
    return parser.parse_known_args(arguments)


def quiet_libraries() -> None:
    """Bars of data loading only on a terminal; no notes on transformers' own internals that a user cannot act on."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()


def refuse_shadowed_flags(arguments: list[str], shadowed: dict[str, str]) -> None:
    """Raise `UserError` for a flag of TRL that ``shadowed`` says one of ours sets."""
    for flag in arguments:
        ours = shadowed.get("--" + flag.split("=")[0].removeprefix("--").replace("-", "_"))
        if ours:
            raise UserError(f"{flag!r} is set through {ours} here; use {ours}.")
