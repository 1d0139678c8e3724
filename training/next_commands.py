"""What one may run after a training run."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_EVALUATED = {"choice": "arc_challenge", "code": "humaneval", "sql": "spider"}  # where it is not named as the script
_PARTS = {"ARC-Easy": "arc_easy", "all": "mmlu"}  # values of --subset that have a task of their own
_SMALL_WORLDS = ("sql_tiny",)  # values of --data that are tasks of run_eval.py
_OWN = ("--use_ir", "--output_dir", "--run_name", "--resume")  # flags of this run alone
_PLACES = ("--data", "--databases")
_ASKED = "reasoning"  # the prompt type of run_eval.py where none is given


def next_commands(
    task: str, arguments: Sequence[str], folder: Path, use_ir: str, asked: Mapping[str, Any] | None = None
) -> list[str]:
    """Three commands after a run of ``run_<task>.py`` with ``arguments`` that left ``folder``: the test split, the same
    run without a bonus (or with one), and a map of what single tokens were worth.

    ``asked``: the run's task flags, of which data and prompt type, wherever they were given, decide the evaluation.
    """
    asked = asked or {}
    other = "knn+" if use_ir == "no" else "no"
    same = shlex.join([*_without(arguments, _OWN), f"--use_ir={other}"])
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
