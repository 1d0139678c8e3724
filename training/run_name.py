"""What a run is called: policy, bonus, seed, then each flag of the command line that makes it another experiment."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from training.identity import FREE

NAME_RULE = (
    "<last part of --model_name>_<--use_ir>_seed<--seed>, then _<name of the --config file>, and _<flag><value> for "
    "each flag on the command line that differs from the defaults and changes what is trained, but for the number of "
    "steps; a model folder named final gives the name of the run it belongs to"
)
# In the name anyway, or no other experiment: a resumed run may be made longer.
_NOT_NAMED = FREE | {"model_name", "use_ir", "seed", "micro_batch", "max_steps", "nepochs", "num_train_epochs"}
_OF_A_RUN = re.compile(r"final|best|unevaluated|adapter|base|checkpoint-[0-9]+")  # folders within a run folder
_UNSAFE = re.compile(r"[^A-Za-z0-9.+_-]+")
_LONGEST_PART = 80
_LONGEST = 200  # characters of a name; file systems take 255


def run_name(model: str, bonus: str, seed: int, *extra: str) -> str:
    """The one rule for run names: ``<model>_<bonus>_seed<seed>`` and, joined by "_", whatever else tells runs apart.

    ``model``: hub name or path, of which the last part is used, and for a folder within a run folder the run's name
    before it; ``bonus``: the value of ``--use_ir``. Characters outside ``A-Z a-z 0-9 . + _ -`` become "-". Of a name
    beyond `_LONGEST` characters the end is a digest.
    """
    policy = _policy_name(model)
    parts = [policy, bonus, f"seed{seed}", *extra]
    safe = [_UNSAFE.sub("-", part)[:_LONGEST_PART].strip("-") for part in parts]
    name = "_".join(part for part in safe if part).lstrip(".")
    if not safe[0].strip("."):
        raise UserError(f"no run name can be made from the model {model!r}; give one with --run_name.")
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
    return name


def _policy_name(model: str) -> str:
    parts = re.split(r"[\\/]", model.rstrip("\\/"))
    if len(parts) == 1 or not _OF_A_RUN.fullmatch(parts[-1]) or not parts[-2].strip("."):
        return parts[-1]
    return parts[-2] if parts[-1] == "final" else f"{parts[-2]}-{parts[-1]}"


def default_output_dir(task: str, name: str) -> Path:
    """``outputs/<task>/<run name>``, see `run_name`."""
    return Path("outputs") / task / name


def name_parts(flags: Mapping[str, Any]) -> list[str]:
    """The parts of a run name for ``flags`` (flag -> value): ``k4``, ``lora``, ``ir_level-reward``.

    Flags that leave training as it is (`training.identity.FREE`) and the number of steps have none.
    """
    return [_part(flag, value) for flag, value in flags.items() if flag not in _NOT_NAMED]


def _part(flag: str, value: Any) -> str:
    if value is True:
        return flag
    if value is None or isinstance(value, bool):
        return f"{flag}-{str(value).lower()}"
    if isinstance(value, int | float):
        return f"{flag}{value:g}"
    texts = value if isinstance(value, list | tuple) else [value]
    # Of a path the name; "a/b" may be a hub name, of which the last part tells as much.
    return f"{flag}-{'-'.join(Path(str(text)).name for text in texts)}"
