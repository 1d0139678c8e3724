"""``--reward_func module:function``: reward functions of the user's own beside those of the task."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from common.errors import UserError
from training.completion_table import RESERVED
from training.self_check import Scoring


def with_own_rewards(scoring: Scoring, reward_func: str, weight: float) -> Scoring:
    """``scoring`` with the functions that ``reward_func`` names, "module:function" separated by commas, each paid
    ``weight``; modules are looked for in the current folder too.

    Raises `UserError` for a name that leads to no function, and for one that a column has already.
    """
    own = [_load(name.strip()) for name in reward_func.split(",") if name.strip()]
    taken = {column.__name__ for column in scoring.columns} | RESERVED
    for function in own:
        if function.__name__ in taken:
            raise UserError(
                f"--reward_func={reward_func!r}: completions have a column {function.__name__!r} already; give the "
                "function another name."
            )
        taken.add(function.__name__)
    columns, weights = [*scoring.columns, *own], [*scoring.weights, *[weight] * len(own)]
    return scoring._replace(columns=columns, weights=weights)


def _load(name: str) -> Callable:
    module, colon, function = name.partition(":")
    module = module.removesuffix(".py")
    if not (colon and all(part.isidentifier() for part in [*module.split("."), function])):
        raise UserError(
            f"--reward_func={name!r} must be module:function, such as my_rewards:short_answers for the function "
            "short_answers of my_rewards.py in the current folder."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(import_module(module), function)
    except Exception as error:  # whatever the module does when it is imported
        raise UserError(
            f"--reward_func={name!r} cannot be loaded ({type(error).__name__}: {error}); check module and function."
        ) from error
    if not callable(found):
        raise UserError(f"--reward_func={name!r} is no function; name one that takes prompts and completions.")
    if not hasattr(found, "__name__"):
        raise UserError(f"--reward_func={name!r} has no name to log it by; name a function or a class with __name__.")
    return found
