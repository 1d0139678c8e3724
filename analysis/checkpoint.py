"""The bonuses of a checkpoint, as they were: what they remember, and what they would pay for texts of one's own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from common.errors import UserError
from common.files import read_json
from common.state import load_state
from intrinsic import build_bonuses
from intrinsic.base import Bonus
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.control import Control
from intrinsic.parts.episodic_memory import EpisodicMemory
from intrinsic.rollout import Rollout
from training.trainer import STATE_NAME


def known_flags(saved: dict[str, Any]) -> dict[str, Any]:
    """Those of the ``saved`` flags of bonuses that this version knows."""
    return {name: value for name, value in saved.items() if name in IntrinsicOptions.__dataclass_fields__}


def saved_states(checkpoint: str | Path) -> dict[str, Any]:
    """Bonus name -> state, as in the ``checkpoint-N`` folder; raises `UserError` where it holds none."""
    folder = Path(checkpoint)
    if not (folder / f"{STATE_NAME}.json").is_file():
        raise UserError(f"{str(checkpoint)!r} holds no state of a bonus; give the checkpoint-<step> folder of a run.")
    return {name: state["bonus"] for name, state in load_state(folder, STATE_NAME)["bonuses"].items()}


def load_bonuses(checkpoint: str | Path) -> list[Bonus]:
    """The bonuses of the run that the ``checkpoint-N`` folder belongs to, with their state at that step."""
    saved = read_json(Path(checkpoint).parent / "run.json", "give a checkpoint inside its run folder")
    states = saved_states(checkpoint)
    bonuses = build_bonuses(IntrinsicOptions(**known_flags(saved["options"]["intrinsic"])))
    for bonus in bonuses:
        bonus.load_state_dict(states[bonus.name])
    return bonuses


def memory_table(bonuses: Sequence[Bonus]) -> pd.DataFrame:
    """A row for each memory of the bonuses, and of those inside controls: questions and responses it holds, its MiB."""
    rows = [
        {
            "bonus": bonus.name,
            "memory": name,
            "questions": len(memory),
            "responses": memory.num_responses,
            "MiB": memory.nbytes / 2**20,
        }
        for bonus in bonuses
        for name, memory in getattr(_learner(bonus), "memories", {}).items()
        if isinstance(memory, EpisodicMemory)
    ]
    return pd.DataFrame(rows, columns=["bonus", "memory", "questions", "responses", "MiB"])


def _learner(bonus: Bonus) -> Bonus:
    """``bonus``, or the one inside it where it is a control that lets it learn."""
    return bonus.bonus if isinstance(bonus, Control) and bonus.learns else bonus


def score_texts(
    bonuses: Sequence[Bonus],
    question: str,
    texts: Sequence[str],
    correct: Sequence[bool],
    encode: Callable[[list[str]], Tensor],
    step: int = 10**6,
) -> pd.DataFrame:
    """What each bonus would give the answers ``texts`` to ``question``, a row each, unweighted; nothing is learnt.

    They count as one group, of which ``correct`` says what is right. ``step``: the optimiser step it would be at.
    Raises `UserError` for a bonus that reads the policy's states or probabilities, which texts alone do not have.
    """
    rights = torch.tensor([float(right) for right in correct])
    rollout = Rollout(
        questions=[question] * len(texts),
        completions=list(texts),
        correct=rights,
        rewards=rights,
        num_generations=len(texts),
        step=step,
        max_steps=step + 1,
        encode=encode,
    )
    columns: dict[str, Sequence] = {"text": list(texts), "right": list(correct)}
    for bonus in bonuses:
        if bonus.needs - {"text_embedding"}:
            raise UserError(f"{bonus.name} reads {', '.join(sorted(bonus.needs))} of the policy, not texts alone.")
        for part, values in bonus.score_parts(rollout).items():
            columns[bonus.name if part == bonus.name else f"{bonus.name}: {part}"] = values.tolist()
    return pd.DataFrame(columns)
