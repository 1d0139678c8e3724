"""The reference procedure of Memory-R+ (arXiv 2504.02273), to time and check ours against.

Re-created from its description, with one encoder shared instead of two and a constant-time eviction: it goes through
the completions one by one. Each insertion encodes question and answer, each of the two scores encodes both again, one
text per call, and searches a flat L2 index of faiss.
"""

from collections.abc import Callable
from typing import NamedTuple

import faiss
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from intrinsic.knn_memory import PARTS
from intrinsic.parts.episodic_memory import EpisodicMemory
from intrinsic.parts.memory_read import Reward
from intrinsic.rollout import Rollout

Encode = Callable[[list[str]], Tensor]


class Contents(NamedTuple):
    """What a memory holds at the start: unit vectors of N questions (N, d) and of their L responses each (N, L, d)."""

    keys: Tensor
    values: Tensor

    @classmethod
    def random(cls, questions: int, responses: int, dim: int, seed: int) -> "Contents":
        """Uniformly drawn vectors of unit length."""
        generator = torch.Generator().manual_seed(seed)
        keys = torch.empty(questions, dim).uniform_(-1, 1, generator=generator)
        values = torch.empty(questions, responses, dim).uniform_(-1, 1, generator=generator)
        return cls(functional.normalize(keys, dim=-1, out=keys), functional.normalize(values, dim=-1, out=values))

    def first(self, questions: int) -> "Contents":
        """The first questions alone; a view."""
        return Contents(self.keys[:questions], self.values[:questions])

    def fill(self, memory: EpisodicMemory) -> None:
        """Make this the content of ``memory``."""
        questions, responses, dim = self.values.shape
        state = {"ids": [f"stored {number}" for number in range(questions)], "keys": self.keys}
        state |= {"values": self.values.view(-1, dim), "counts": torch.full((questions,), responses)}
        memory.load_state_dict(state)


class ReferenceMemory:
    """One memory of the reference procedure: identity by equal vectors, flat L2 search, one text per encoder call.

    Args:
        contents: what it holds; read, never written to.
        k: nearest stored questions whose responses are compared with.
        max_responses: capacity per question; questions are not limited.
        encode: text encoder.
    """

    def __init__(self, contents: Contents, k: int, max_responses: int, encode: Encode):
        self.k = k
        self.max_responses = max_responses
        self.encode = encode
        self.keys = contents.keys.numpy()
        self.values = [list(rows) for rows in contents.values.numpy()]
        self.index = faiss.IndexFlatL2(self.keys.shape[1])
        self.index.add(self.keys)

    def encode_pair(self, question: str, answer: str) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (d,) of both texts."""
        return self.encode([question])[0].cpu().numpy(), self.encode([answer])[0].cpu().numpy()

    def insert(self, question: str, answer: str) -> None:
        """Append the answer to the question whose vector is the same, or to a new one."""
        key, value = self.encode_pair(question, answer)
        same = (self.keys == key).all(axis=1).nonzero()[0]
        if len(same):
            rows = self.values[same[0]]
            rows.append(value)
            del rows[: -self.max_responses]
        else:
            self.keys = np.concatenate([self.keys, key[None]])
            self.index.add(key[None])
            self.values.append([value])

    def score(self, question: str, answer: str, reward: Reward) -> float:
        """Raw reward of one answer."""
        return self.look_up(*self.encode_pair(question, answer), reward)

    def look_up(self, key: np.ndarray, value: np.ndarray, reward: Reward) -> float:
        """Raw reward of one vector (d,) against the responses of the stored questions nearest to ``key`` (d,)."""
        _, nearest = self.index.search(key[None], min(self.k, len(self.values)))
        stored = np.stack([row for question in nearest[0] for row in self.values[question]])
        return float(reward(torch.from_numpy(value)[None], torch.from_numpy(stored)))


def reference_batch(memories: dict[str, ReferenceMemory], batch: Rollout) -> None:
    """Insert, then score, completion by completion."""
    for question, answer, right in zip(batch.questions, batch.reasonings, batch.correct.tolist(), strict=True):
        memories["success" if right else "failure"].insert(question, answer)
        for part in PARTS.values():
            memories[part.memory].score(question, answer, part.reward)
