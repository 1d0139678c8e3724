"""Reading the memories of Memory-R (arXiv 2504.02273, section 2): exploit and explore rewards of a batch against the
answers to the nearest questions, in the past alone or in the past and the rest of the batch.

Reading the past alone, the paper's order, an answer meets the others of its own question only when that question comes
back; until then the memory speaks of other questions. Left out one at a time, each answer is compared as if the others
of its batch had been stored before it.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from intrinsic.parts.episodic_memory import EpisodicMemory


def exploit_reward(responses: Tensor, stored: Tensor, counted: Tensor | None = None) -> Tensor:
    """Minus the distance of ``responses`` (n, d) to the centroid of ``stored`` (m, d), (n,); equation 4.

    ``counted`` (n, m) bool: which of the stored each response is compared with, at least one; all if None.
    """
    if counted is None:
        centroids = stored.mean(dim=0)
    else:
        centroids = counted.to(stored.dtype) @ stored / counted.sum(dim=1, keepdim=True)
    return -torch.linalg.vector_norm(responses - centroids, dim=1)


def explore_reward(responses: Tensor, stored: Tensor, counted: Tensor | None = None) -> Tensor:
    """1 minus the largest cosine of unit ``responses`` (n, d) to any unit ``stored`` (m, d), (n,); equation 5.

    ``counted`` as in `exploit_reward`.
    """
    cosines = responses @ stored.T
    if counted is not None:
        cosines = cosines.masked_fill(~counted, -math.inf)
    return 1.0 - cosines.amax(dim=1)


Reward = Callable[..., Tensor]


class MemoryBatch(NamedTuple):
    """A rollout as the memory sees it, B values to compare: whole responses, or their steps.

    Attributes:
        ids: identity of each value's question, `intrinsic.rollout.text_id`.
        keys: (B, d) unit vectors of the questions.
        responses: (B, d) unit vectors of the values.
        targets: the memory that each value goes to; None where it is not stored.
        owners: number of the completion that each value is of; values of one owner are left out together.
    """

    ids: list[str]
    keys: Tensor
    responses: Tensor
    targets: list[str | None]
    owners: list[int]

    def row(self, index: int) -> "MemoryBatch":
        rows = slice(index, index + 1)
        return MemoryBatch(*[field[rows] for field in self])  # type: ignore[arg-type]


class Raw(NamedTuple):
    """Raw reward (B,) of one part, NaN where a vector is not finite, and (B,) bool of the rows that have one at all."""

    values: Tensor
    present: Tensor


def look_up(memory: EpisodicMemory, reward: Reward, batch: MemoryBatch, k: int) -> Raw:
    """Raw reward of each row against the responses of the ``k`` questions in ``memory`` nearest to its own.

    Each distinct question is looked up once. Rows are absent where the memory is empty.
    """
    rows_of = _rows_by_question(batch.ids)
    values = torch.full((len(batch.ids),), math.nan)
    first_rows = [rows[0] for rows in rows_of.values()]
    for rows, neighbours in zip(rows_of.values(), memory.nearest(batch.keys[first_rows], k), strict=True):
        if neighbours:
            values[rows] = reward(batch.responses[rows], memory.responses(neighbours))
    return Raw(values, torch.full((len(batch.ids),), len(memory) > 0))


def look_up_leaving_one_out(memory: EpisodicMemory, name: str, reward: Reward, batch: MemoryBatch, k: int) -> Raw:
    """`look_up` in ``memory``, called ``name``, as if all of the batch that goes there were stored, but for the row's
    own completion.

    Equal values of other completions count. Capacities hold for what is stored, not for the batch read on top of it.
    Rows are absent where nothing is left to compare with. Each distinct question is looked up once.
    """
    others = _BatchOnTop(memory, name, batch)
    rows_of = _rows_by_question(batch.ids)
    first_rows = [rows[0] for rows in rows_of.values()]
    values = torch.full((len(batch.ids),), math.nan)
    present = torch.ones(len(batch.ids), dtype=torch.bool)
    # One more than k, for the rows without which their question would not be stored.
    for (question, rows), found in zip(rows_of.items(), others.nearest(batch.keys[first_rows], k + 1), strict=True):
        alone = others.only_owner(question)
        for chosen, neighbours in (
            ([row for row in rows if batch.owners[row] != alone], found),
            ([row for row in rows if batch.owners[row] == alone], [other for other in found if other != question]),
        ):
            if chosen and neighbours:
                values[chosen] = others.rewards(reward, chosen, neighbours[:k])
            elif chosen:
                present[chosen] = ~batch.keys[chosen].isfinite().all(dim=1)
    return Raw(values, present)


class _BatchOnTop:
    """A memory, and the rows of a batch that go there, to be read as one."""

    def __init__(self, memory: EpisodicMemory, name: str, batch: MemoryBatch):
        self.past = memory
        self.batch = batch
        self.rows_of: dict[str, list[int]] = defaultdict(list)
        for row, (question, target) in enumerate(zip(batch.ids, batch.targets, strict=True)):
            if target == name:
                self.rows_of[question].append(row)
        self.questions = EpisodicMemory(max(1, len(self.rows_of)), max_responses=1)
        for question, rows in self.rows_of.items():
            self.questions.insert(question, batch.keys[rows[0]], batch.responses[rows[0]])

    def nearest(self, keys: Tensor, k: int) -> list[list[str]]:
        """The ``k`` nearest questions of both, as `EpisodicMemory.nearest`; at a tie the past comes first."""
        old, new = (memory.nearest_with_similarity(keys, k) for memory in (self.past, self.questions))
        merged = (sorted(a + b, key=lambda found: -found[1]) for a, b in zip(old, new, strict=True))
        return [list(dict.fromkeys(question for question, _ in found))[:k] for found in merged]

    def only_owner(self, question: str) -> int | None:
        """The completion without which ``question`` would not be stored; None where there is none."""
        owners = {self.batch.owners[row] for row in self.rows_of.get(question, ())}
        return owners.pop() if len(owners) == 1 and question not in self.past else None

    def rewards(self, reward: Reward, rows: list[int], questions: list[str]) -> Tensor:
        """Raw reward of ``rows`` against all under ``questions`` but what is of their own completion."""
        known = [question for question in questions if question in self.past]
        new = [row for question in questions for row in self.rows_of.get(question, ())]
        stored = [self.past.responses(known)] if known else []
        stored = torch.cat([*stored, self.batch.responses[new]])
        owners = torch.tensor([-1] * (len(stored) - len(new)) + [self.batch.owners[row] for row in new])
        counted = owners != torch.tensor([self.batch.owners[row] for row in rows])[:, None]
        return reward(self.batch.responses[rows], stored, counted)


def _rows_by_question(ids: list[str]) -> dict[str, list[int]]:
    rows_of = defaultdict(list)
    for row, question in enumerate(ids):
        rows_of[question].append(row)
    return rows_of
