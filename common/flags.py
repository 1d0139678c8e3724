"""The command line of every command: flags are the fields of dataclasses, complaints are one sentence."""

import json
import math
import sys
from argparse import ArgumentParser
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from transformers import HfArgumentParser

from common.config_file import check_keys, did_you_mean, read_config
from common.errors import UserError, check_choice, check_number
from common.files import check_output
from common.yaml_flags import as_defaults, flags_of

Options = TypeVar("Options")

# Of the weight of a reward beside correctness, for its help.
ANY_WEIGHT = (
    " In a group whose answers are all wrong, any weight above 0 gives nearly the same advantages: GRPO divides by the "
    "group's deviation, unless --scale_rewards=none."
)


@dataclass(frozen=True)
class Written:
    """Marks a flag that names a place to write to, of a ``kind`` of `common.files.check_output`.

    ``needed``: the flag has to be set.
    """

    kind: str
    needed: bool = False


# Types of flags. A place that cannot be written to is refused before anything is computed.
OutputFile = Annotated[str, Written("file")]
OutputLines = Annotated[str, Written("lines", needed=True)]
OutputStem = Annotated[str, Written("stem")]
OutputFolder = Annotated[str, Written("folder")]


class OneSentence:
    """Mixin for an argument parser: its complaints are `UserError`s instead of a page of usage.

    ``listing``: the flag that lists all flags.
    """

    listing = "--help"

    def error(self, message: str):
        raise UserError(f"{message}; --help explains every flag.")


class NamesParser(OneSentence, ArgumentParser):
    """`argparse.ArgumentParser` that complains in one sentence and takes no shortened flag: for a command that is given
    names without a flag before them, which no dataclass of flags has."""

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False)


class CommandParser(OneSentence, HfArgumentParser):
    """`transformers.HfArgumentParser` that complains in one sentence."""


def parse_one(kind: type[Options], **defaults: Any) -> Options:
    """The options of a command that takes the flags of one dataclass, see `parse_command`."""
    (options,) = parse_command(kind, **defaults)
    return options


def parse_command(*kinds: type, **defaults: Any) -> tuple:
    """One object of each of the dataclasses ``kinds`` from ``sys.argv``; ``--help`` prints their flags and exits.

    Flags win over ``--config FILE`` (YAML, one "flag: value" a line), it over ``defaults``, they over the dataclasses.
    Raises `UserError` for a flag that there is not, and for a wrong value.
    """
    parser = CommandParser(kinds, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="YAML file of flags, which the command line wins over.")
    known = flags_of(kinds)
    path = typed_value("config", sys.argv[1:], "")
    from_file = read_config(path, Path(sys.argv[0]).name) if path else {}
    check_keys(from_file, known, {}, path)
    defaults |= as_defaults(from_file, known, path)
    for action in parser._actions:
        if action.dest in defaults:
            action.default, action.required = defaults[action.dest], False
    return parse_flags(parser, sys.argv[1:], known)[: len(kinds)]


def answer_help(*kinds: type) -> None:
    """Print the flags of the dataclasses ``kinds`` and exit, if the command line asks for it.

    For a command to call before it imports anything large. What is wrong with other flags is left to its parser.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        with suppress(UserError):
            parse_command(*kinds)


def parse_flags(parser: Any, arguments: list[str], known: Collection[str]) -> tuple:
    """The dataclasses of ``parser``, an `HfArgumentParser` with `OneSentence`, from ``arguments``.

    Raises `UserError` for a flag that is not ``known``.
    """
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(
            arguments, return_remaining_strings=True, look_for_args_file=False
        )
    except UserError:
        raise
    except json.JSONDecodeError as error:
        raise UserError(f"a flag takes JSON, and {error.doc[:80]!r} is none ({error.msg}).") from error
    except RecursionError:
        raise UserError("a flag takes JSON, and what it was given nests too deeply; give less.") from None
    except ValueError as error:
        raise UserError(f"{error}") from error
    if unknown:
        name = unknown[0].lstrip("-").split("=")[0].replace("-", "_")
        raise UserError(f"{unknown[0]!r} is not a flag{did_you_mean(name, known, '--')}; {parser.listing} lists all.")
    for options in filter(is_dataclass, parsed):  # flags of no dataclass, such as --config, come as a namespace
        _refuse_nan(options)
        _check_outputs(options)
    return tuple(parsed)


def _refuse_nan(options: Any) -> None:
    """Raise `UserError` where a number that somebody gave is none, or infinite, which nothing here computes with."""
    for item in fields(options):
        value = getattr(options, item.name, None)
        if isinstance(value, float) and not math.isfinite(value) and value != item.default:
            raise UserError(f"--{item.name}={value} is no finite number; give one.")


def _check_outputs(options: Any) -> None:
    """Raise `UserError` where a flag that is set, or needed, names no place to write to."""
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, Written) and (mark.needed or getattr(options, name)):
                check_output(name, getattr(options, name), mark.kind)


def typed_value(flag: str, arguments: list[str], default: str) -> str:
    """The value of one flag in ``arguments``, before the others are parsed, which it decides over; else ``default``."""
    parser = CommandParser((), allow_abbrev=False, add_help=False)
    parser.add_argument(f"--{flag}", f"--{flag.replace('_', '-')}", default=default)
    return getattr(parser.parse_known_args(arguments)[0], flag)


def flag(default: Any, help: str) -> Any:
    """A field of a dataclass of flags, with its help sentence.

    ``default``: ``dataclasses.MISSING`` for a flag that must be given. Of a list, each object gets a copy.
    """
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": help})
    return field(default=default, metadata={"help": help})


def check_least(options: Any, **least: int) -> None:
    """Raise `UserError` where a flag of ``options`` is below the number that ``least`` has under its name."""
    for name, smallest in least.items():
        check_number(name, getattr(options, name), least=smallest)


def check_shares(options: Any, *names: str) -> None:
    """Raise `UserError` where a flag of ``options`` that is one of ``names`` is outside of [0, 1]."""
    for name in names:
        check_number(name, getattr(options, name), least=0, most=1)


def check_choices(options: Any, **choices: Collection[str]) -> None:
    """Raise `UserError` where a flag of ``options`` is none of the words that ``choices`` has under its name."""
    for name, known in choices.items():
        check_choice(name, getattr(options, name), known)
