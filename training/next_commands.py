"""What one may run after a training run."""

import shlex
from collections.abc import Sequence
from pathlib import Path

_OWN = ("--use_ir", "--output_dir", "--run_name", "--resume")  # flags of this run alone


def next_commands(task: str, arguments: Sequence[str], folder: Path, use_ir: str) -> list[str]:
    """Three commands after a run of ``run_<task>.py`` with ``arguments`` that left ``folder``: the test split, the same
    run without a bonus (or with one), and a map of what single tokens were worth."""
    other = "knn+" if use_ir == "no" else "no"
    same = shlex.join([*_without(arguments, _OWN), f"--use_ir={other}"])
    policy = shlex.quote(str(folder / "final"))
    return [
        f"python run_eval.py --task={task} --model_name={policy}",
        f"python run_{task}.py {same}",
        f"python -m analysis.token_map --run {shlex.quote(str(folder))} --model_name {policy} --out map.html",
    ]


def _without(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """``arguments`` without the flags ``names`` and their values."""
    kept, skips = [], False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if argument.startswith("--"):
            is_out = flag.replace("-", "_").replace("__", "--", 1) in names
            skips = is_out and not equals
            if is_out:
                continue
        elif skips:
            continue
        kept.append(argument)
    return kept
