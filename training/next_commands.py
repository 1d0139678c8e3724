"""What one may run after a training run."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from intrinsic.options import IntrinsicOptions

_EVALUATED = {"choice": "arc_challenge", "code": "humaneval", "sql": "spider"}  # where it is not named as the script
_PARTS = {"ARC-Easy": "arc_easy", "all": "mmlu"}  # values of --subset that have a task of their own
_SMALL_WORLDS = ("sql_tiny",)  # values of --data that are tasks of run_eval.py
_OWN = ("--use_ir", "--output_dir", "--run_name", "--resume")  # flags of this run alone
_OF_BONUSES = (*(f"--{item.name}" for item in fields(IntrinsicOptions)), *_OWN)  # what plain GRPO has no use for
_PLACES = ("--data", "--databases")
_ASKED = "reasoning"  # the prompt type of run_eval.py where none is given


def next_commands(
    task: str,
    arguments: Sequence[str],
    folder: Path,
    intrinsic: IntrinsicOptions,
    asked: Mapping[str, Any] | None = None,
) -> list[str]:
    """Three commands after a run of ``run_<task>.py`` with ``arguments`` that left ``folder``: the test split, the same
    run without a bonus (or with one), and a map of what single tokens were worth.

    ``intrinsic``: the run's flags of bonuses, wherever they were given. ``asked``: its task flags, of which data and
    prompt type, wherever they were given, decide the evaluation.
    """
    asked = asked or {}
    if intrinsic.use_ir == "no":
        same = shlex.join([*_without(arguments, _OWN), "--use_ir=knn+"])
    else:
        same = shlex.join([*_without(arguments, _OF_BONUSES), *_unbound(arguments, intrinsic), "--use_ir=no"])
    policy = shlex.quote(str(folder / "final"))
    is_generated = asked.get("data") in _SMALL_WORLDS
    evaluated = asked["data"] if is_generated else _PARTS.get(asked.get("subset"), _EVALUATED.get(task, task))
    # A hub data set has the questions of SQL without the databases.
    further = _only(arguments, _PLACES) if task == "sql" and not is_generated else []
    if asked.get("prompt_type", _ASKED) != _ASKED:
        further.append(f"--prompt_type={asked['prompt_type']}")
    return [
        f"python run_eval.py --task={evaluated} --model_name={policy}"
        + "".join(f" {shlex.quote(text)}" for text in further),
        f"python run_{task}.py {same}",
        f"python -m analysis.token_map --run {shlex.quote(str(folder))} --model_name {policy} --out map.html",
    ]


def _unbound(arguments: Sequence[str], intrinsic: IntrinsicOptions) -> list[str]:
    """Flags that put back what the run's ``--config`` file may say and plain GRPO is refused with: weights and levels
    of several bonuses, and a bonus that stands alone."""
    if not _only(arguments, ["--config"]):
        return []
    refused = {
        "--ir_weight=": "," in intrinsic.ir_weight,
        "--ir_level=advantage": "," in intrinsic.ir_level,
        "--sc_alone=false": intrinsic.sc_alone,
    }
    return [text for text, is_set in refused.items() if is_set or _only(arguments, [text.partition("=")[0]])]


def _without(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """``arguments`` without the flags ``names`` and their values."""
    return [argument for argument, is_named in _named(arguments, names) if not is_named]


def _only(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """The flags ``names`` of ``arguments`` with their values."""
    return [argument for argument, is_named in _named(arguments, names) if is_named]


def _named(arguments: Sequence[str], names: Sequence[str]) -> list[tuple[str, bool]]:
    """Each argument with whether it is one of the flags ``names`` or a value of one."""
    told, takes = [], False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        is_named = takes
        if argument.startswith("--"):
            is_named = flag.replace("-", "_").replace("__", "--", 1) in names
            takes = is_named and not equals
        told.append((argument, is_named))
    return told
