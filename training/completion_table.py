"""One row per completion: what was asked, said, paid and learnt; a parquet file per generation batch."""

import json
from pathlib import Path

import pandas as pd

from common.files import write_atomically
from evaluation.approaches import group_columns
from intrinsic.parts.groups import sequence_mean
from intrinsic.pipeline import ScoredBonus
from intrinsic.rollout import Rollout

# Columns of the table that no reward may be named like.
RESERVED = frozenset(
    {"step", "prompt", "question", "completion", "correct", "verdict", "answer", "approach", "advantage"}
)


class BonusColumn:
    """The reward function that reserves a column for a bonus; `IntrinsicGRPOTrainer` fills the column in."""

    def __init__(self, bonus: str, part: str):
        self.__name__ = f"ir_{bonus}" if part == bonus else f"ir_{bonus}_{part}"

    def __call__(self, prompts, **kwargs) -> list[float]:
        return [0.0] * len(prompts)


def _group_columns(rollout: Rollout) -> dict[str, list[float]]:
    return group_columns(rollout.approaches, (rollout.correct > 0.5).tolist(), rollout.num_generations)


def write_completions(
    folder: Path, step: int, logs: dict, rollout: Rollout, scored: list[ScoredBonus], number: int = 1
) -> None:
    """Write the batch of ``step`` to ``folder``, which is made; ``logs`` are TRL's own of that batch.

    An update that several batches feed has a file of each: ``number`` counts them from 1.
    """
    columns = {
        "prompt": [json.dumps(prompt) for prompt in logs["prompt"]],
        "question": rollout.questions,
        "completion": rollout.completions,
        "correct": [None if verdict.isnan() else bool(verdict) for verdict in rollout.correct],
        **{name: list(values) for name, values in logs["extra"].items()},
        **(_group_columns(rollout) if "approach" in logs["extra"] else {}),
        **{name: list(values) for name, values in logs["rewards"].items()},
        "advantage": list(logs["advantages"]),
    }
    for item in scored:
        for part, scores in item.raw.items():
            raw = sequence_mean(scores, rollout.completion_mask)
            columns[f"raw_{BonusColumn(item.bonus.name, part).__name__}"] = raw.tolist()
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"step": step, **columns})
    further = f"_{number}" if number > 1 else ""
    write_atomically(folder / f"step_{step:06d}{further}.parquet", table.to_parquet)
