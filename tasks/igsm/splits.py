"""Splits of iGSM problems that share no template (the rule of iGSM, arXiv 2407.20311, here with a validation split)."""

from collections.abc import Iterable

from common.errors import UserError, check_choice

BINS = 23
TEST = "test"
SPLITS = {"train": range(0, 16), "validation": range(16, 19), TEST: range(19, 23), "all": range(0, 23)}


def check_split(split: str) -> None:
    """Raise `UserError` unless ``split`` is one of `SPLITS`."""
    check_choice("split", split, SPLITS)


def template_bin(template: str) -> int:
    """The bin of a template, 0 to 22; `SPLITS` says which bins a split takes."""
    return int(template, 16) % BINS


def check_leak(split: str, source: str, templates: Iterable[str]) -> None:
    """Raise `UserError` when ``split`` may draw a template that the problems of ``source`` have."""
    leaking = {template for template in templates if template_bin(template) in SPLITS[split]}
    if leaking:
        raise UserError(
            f"--split={split} could repeat {len(leaking)} solution templates of {source}, for example {min(leaking)}; "
            "take another --split, or leave the file out of --disjoint_from."
        )
