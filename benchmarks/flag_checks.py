"""Checks of flags that several benchmarks have; each raises `UserError`, which says the value and what is right."""

from collections.abc import Collection

from common.errors import UserError, check_choice
from intrinsic import known_names, parse_names


def check_micro_batch(micro_batch: int, completions: int) -> None:
    """``--micro_batch``, completions of a pass, of the ``completions`` of a step."""
    if micro_batch < 0 or (micro_batch and completions % micro_batch):
        raise UserError(f"--micro_batch={micro_batch} must divide the {completions} completions of a step, or be 0.")


def check_listed(flag: str, value: str, known: Collection[str]) -> None:
    """``--flag``, words separated by commas, of which each is one of ``known``."""
    for name in value.split(","):
        check_choice(flag, name, known)


def check_bonuses(flag: str, value: str, others: Collection[str] = ()) -> None:
    """``--flag``, bonuses separated by commas: names as --use_ir takes them, or ``others``."""
    for name in value.split(","):
        try:
            parse_names(name, tuple(others))
        except UserError:
            known = known_names(tuple(others))
            raise UserError(f"--{flag}={value!r} names the unknown bonus {name!r}; known: {known}.") from None
