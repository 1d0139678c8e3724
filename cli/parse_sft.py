"""The command line of run_sft.py."""

import sys
from pathlib import Path

from cli.help_flags import page_of
from cli.parse import FlagParser, print_help, quiet_libraries, refuse_shadowed_flags, script_flags
from common.config_file import changed_flags, check_keys, read_config
from common.flags import parse_flags
from common.yaml_flags import as_defaults, flags_of
from training.run_name import default_output_dir, name_parts, run_name
from training.sft import SFTOptions, SFTRunConfig

# TRL's flag -> ours, which sets it.
SHADOWED = {"--completion_only_loss": "--loss_on", "--assistant_only_loss": "--loss_on"}


def parse_sft_options(script: str) -> tuple[SFTOptions, SFTRunConfig]:
    """The options from the command line and ``--config``; ``--help`` and ``--help_all`` print and exit."""
    quiet_libraries()
    flags, arguments = script_flags(sys.argv[1:])
    refuse_shadowed_flags(arguments, SHADOWED)
    types = (SFTOptions, SFTRunConfig)
    if flags.help or flags.help_all:
        print_help(page_of(script, types, SHADOWED))
    known = flags_of(types)
    file_flags = read_config(flags.config, script) if flags.config else {}
    check_keys(file_flags, known, SHADOWED, flags.config)
    defaults = as_defaults(file_flags, known, flags.config)
    parser = FlagParser(types, allow_abbrev=False, add_help=False)
    parser.set_defaults_with_config(**defaults)
    options, config = parse_flags(parser, arguments, known)
    if config.output_dir is None:
        changed = {flag: value for flag, (_, value) in changed_flags(parser, arguments).items() if flag != "data"}
        extra = [Path(flags.config or "").stem, *name_parts(changed)]
        name = run_name(options.model_name, Path(options.data).stem, config.seed, *extra)
        config.output_dir = str(default_output_dir("sft", name))
    config.run_name = config.run_name or Path(config.output_dir).name
    return options, config
