"""Memory-R and Memory-R+ (arXiv 2504.02273, section 2): GRPO plus a reward for resembling past right answers and,
in Memory-R+, for differing from past wrong answers to the nearest stored questions.

Plain GRPO compares the answers of one group only; here a memory of earlier answers makes the reward of an all-wrong
group differ between its members. Differences from the reference implementation (each on purpose): the whole batch is
scored against the frozen past before it is stored; every completion is keyed by its own question; the min-max range
is one per batch; an empty memory pays 0; each distinct text is encoded once, in one batch.

``legacy`` reproduces the reference order: insert, then score, sample by sample, with a window of ``window`` values
that includes the sample, 1 - raw distance (exploit) or 0 (explore) on a window of one value, and 0 (exploit) or
1 (explore) on an empty memory. Not reproduced: its eviction crash, its use of the first prompt for all completions,
its one-by-one encoding, and its explore phase of 500 keys (``explore_warmup`` applies instead).
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from intrinsic.base import Bonus
from intrinsic.episodic_memory import EpisodicMemory
from intrinsic.normalize import WindowMinMax
from training.errors import UserError
from training.rollout import Rollout, text_id

RAW_RESOLUTION = 1e-6  # float32 rounding moves a raw by about 1e-7; min-max would blow that up to [0, 1]


def exploit_reward(responses: Tensor, stored: Tensor) -> Tensor:
    """Minus the distance of ``responses`` (n, d) to the centroid of ``stored`` (m, d), (n,); equation 4."""
    return -torch.linalg.vector_norm(responses - stored.mean(dim=0), dim=1)


def explore_reward(responses: Tensor, stored: Tensor) -> Tensor:
    """1 minus the largest cosine of unit ``responses`` (n, d) to any unit ``stored`` (m, d), (n,); equation 5."""
    return 1.0 - (responses @ stored.T).amax(dim=1)


Reward = Callable[[Tensor, Tensor], Tensor]


class _Part(NamedTuple):
    memory: str
    reward: Reward
    legacy_when_empty: float


PARTS = {
    "exploit": _Part("success", exploit_reward, legacy_when_empty=0.0),
    "explore": _Part("failure", explore_reward, legacy_when_empty=1.0),
}


class MemoryBatch(NamedTuple):
    """A rollout as the memory sees it: identity and vector of each question, vector of each response, and target."""

    ids: list[str]
    keys: Tensor
    responses: Tensor
    targets: list[str | None]

    def row(self, index: int) -> "MemoryBatch":
        rows = slice(index, index + 1)
        return MemoryBatch(self.ids[rows], self.keys[rows], self.responses[rows], self.targets[rows])


def look_up(memory: EpisodicMemory, reward: Reward, batch: MemoryBatch, k: int) -> Tensor:
    """Raw reward (B,) of each response against the responses of the ``k`` stored questions nearest to its own.

    Each distinct question is looked up once. NaN where the question's vector is not finite.
    """
    rows_of = defaultdict(list)
    for row, question in enumerate(batch.ids):
        rows_of[question].append(row)
    first_rows = [rows[0] for rows in rows_of.values()]
    raw = torch.full((len(batch.ids),), math.nan)
    for rows, neighbours in zip(rows_of.values(), memory.nearest(batch.keys[first_rows], k), strict=True):
        if neighbours:
            raw[rows] = reward(batch.responses[rows], memory.responses(neighbours))
    return raw


class MemoryR(Bonus):
    """``--use_ir=knn``: the exploit reward from a memory of right answers, in [0, beta_s].

    Args:
        k: nearest stored questions whose responses are compared with (K of the paper).
        max_questions, max_responses: capacity of each memory (N and L).
        window: past raw values in the min-max range, besides the batch (w).
        beta_s, beta_e: weights of exploit and explore.
        explore_warmup: explore is absent before this many optimiser steps (>= 1) or share of all steps (< 1).
        encoder: name of the text encoder, only to tell saved states apart.
        legacy: reproduce the reference order and its defects, see the module.

    Raises `UserError` for a weight that is not finite or a negative warm-up.
    """

    name = "knn"
    placement = "reward"
    needs = frozenset({"text_embedding"})
    part_names = ("exploit",)

    def __init__(
        self,
        k: int = 1,
        max_questions: int = 10_000,
        max_responses: int = 100,
        window: int = 100,
        beta_s: float = 1.0,
        beta_e: float = 1.0,
        explore_warmup: float = 0.1,
        encoder: str = "",
        legacy: bool = False,
    ):
        for flag, value in (("beta_s", beta_s), ("beta_e", beta_e), ("explore_warmup", explore_warmup)):
            if not math.isfinite(value):
                raise UserError(f"--{flag}={value} must be a finite number.")
        if explore_warmup < 0:
            raise UserError(f"--explore_warmup={explore_warmup} must be 0 or more (steps, or a share below 1).")
        self.k = k
        self.betas = {"exploit": beta_s, "explore": beta_e}
        self.explore_warmup = explore_warmup
        self.encoder = encoder
        self.legacy = legacy
        self.memories = {PARTS[part].memory: EpisodicMemory(max_questions, max_responses) for part in self.part_names}
        self.windows = {part: WindowMinMax(window, resolution=RAW_RESOLUTION) for part in self.part_names}

    @classmethod
    def from_options(cls, options) -> "MemoryR":
        return cls(
            k=options.k,
            max_questions=options.memory_questions,
            max_responses=options.memory_responses,
            window=options.memory_window,
            beta_s=options.beta_s,
            beta_e=options.beta_e,
            explore_warmup=options.explore_warmup,
            encoder=options.encoder,
            legacy=options.memory_legacy,
        )

    def score_parts(self, rollout: Rollout) -> dict[str, Tensor]:
        """Weighted, normalised exploit (and explore) of each completion, (B,) each; an absent part is 0."""
        batch = self.embed(rollout)
        if self.legacy:
            forks = {name: memory.fork() for name, memory in self.memories.items()}
            windows = {part: copy.copy(window) for part, window in self.windows.items()}
            paid = self._insert_and_score(batch, rollout, forks, windows)
        else:
            paid = {}
            for part, raw in self.raw_parts(batch, rollout).items():
                paid[part] = self.windows[part].normalize(raw, present=torch.ones_like(raw, dtype=torch.bool))
        zeros = torch.zeros(len(rollout))
        return {part: (self.betas[part] * paid.get(part, zeros)).to(rollout.device) for part in self.part_names}

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Append the raws that `score` normalised to the windows, then store the batch in its order.

        Returns questions and responses per memory after the update, the share of completions whose own question was
        stored before it ("known_questions") and, outside legacy, the mean of each part before normalisation
        ("exploit_unnormalized", "explore_unnormalized") where the part is present.
        """
        batch = self.embed(rollout)
        known = [any(question in memory for memory in self.memories.values()) for question in batch.ids]
        metrics = {"known_questions": sum(known) / len(known)}
        if self.legacy:
            self._insert_and_score(batch, rollout, self.memories, self.windows)
        else:
            for part, raw in self.raw_parts(batch, rollout).items():
                self.windows[part].append(raw)
                if raw.isfinite().any():
                    metrics[f"{part}_unnormalized"] = float(raw.nanmean())
            for row in range(len(rollout)):
                self._store(batch.row(row), self.memories)
        for name, memory in self.memories.items():
            metrics[f"{name}_questions"] = float(len(memory))
            metrics[f"{name}_responses"] = float(memory.num_responses)
        return metrics

    def embed(self, rollout: Rollout) -> MemoryBatch:
        """Unit float32 vectors of the rollout's questions and reasonings, through one call of its encoder."""
        reasonings = rollout.reasonings
        vectors = rollout.embed(rollout.questions + reasonings).detach().to("cpu", torch.float32)
        vectors = functional.normalize(vectors, dim=1)
        finite = vectors.isfinite().all(dim=1)
        keys, responses = vectors.split(len(rollout))
        storable = (finite[: len(rollout)] & finite[len(rollout) :]).tolist()
        targets = []
        for ok, correct, reasoning in zip(storable, rollout.correct.tolist(), reasonings, strict=True):
            memory = "success" if correct > 0.5 else "failure"
            is_empty_success = memory == "success" and not reasoning.strip()
            targets.append(memory if ok and memory in self.memories and not is_empty_success else None)
        return MemoryBatch([text_id(question) for question in rollout.questions], keys, responses, targets)

    @property
    def depends_on_length(self) -> bool:
        """Whether the warm-up of the explore part is a share of the run."""
        return "explore" in self.part_names and 0 < self.explore_warmup < 1

    def _paying(self, rollout: Rollout) -> list[str]:
        """Parts past their warm-up."""
        warmup = self.explore_warmup * (rollout.max_steps if self.depends_on_length else 1)
        return [part for part in self.part_names if part != "explore" or rollout.step >= warmup]

    def raw_parts(self, batch: MemoryBatch, rollout: Rollout) -> dict[str, Tensor]:
        """Raw reward (B,) of each part past its warm-up whose memory holds anything."""
        raws = {}
        for part in self._paying(rollout):
            memory = self.memories[PARTS[part].memory]
            if len(memory):
                raws[part] = look_up(memory, PARTS[part].reward, batch, self.k)
        return raws

    @staticmethod
    def _store(row: MemoryBatch, memories: dict[str, EpisodicMemory]) -> None:
        """Store a batch of one; a right answer with empty reasoning or a non-finite vector has no target."""
        target = row.targets[0]
        if target is not None:
            memories[target].insert(row.ids[0], row.keys[0], row.responses[0])

    def _insert_and_score(
        self,
        batch: MemoryBatch,
        rollout: Rollout,
        memories: dict[str, EpisodicMemory],
        windows: dict[str, WindowMinMax],
    ) -> dict[str, Tensor]:
        """The reference order: store each sample, then score it against a memory that already holds it."""
        paid = {part: torch.zeros(len(rollout)) for part in self._paying(rollout)}
        for index in range(len(rollout)):
            row = batch.row(index)
            self._store(row, memories)
            for part, values in paid.items():
                memory = memories[PARTS[part].memory]
                if len(memory):
                    raw = look_up(memory, PARTS[part].reward, row, self.k)
                    windows[part].append(raw)
                    values[index] = _legacy_normalized(part, raw[0], windows[part].history)
                else:
                    values[index] = PARTS[part].legacy_when_empty
        return paid

    def state_dict(self) -> dict[str, Any]:
        return {
            "memories": {name: memory.state_dict() for name, memory in self.memories.items()},
            "windows": {part: window.state_dict() for part, window in self.windows.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, memory in self.memories.items():
            memory.load_state_dict(state["memories"][name])
        for part, window in self.windows.items():
            window.load_state_dict(state["windows"][part])

    def capacity_bytes(self, embedding_width: int) -> int:
        return sum(memory.capacity_bytes(embedding_width) for memory in self.memories.values())

    def identity(self) -> dict[str, Any]:
        memory = self.memories["success"]
        return {
            "name": self.name,
            "k": self.k,
            "memory_questions": memory.max_questions,
            "memory_responses": memory.max_responses,
            "memory_window": self.windows["exploit"].window,
            "betas": self.betas,
            "explore_warmup": self.explore_warmup,
            "encoder": self.encoder,
            "memory_legacy": self.legacy,
        }


def _legacy_normalized(part: str, raw: Tensor, history: Tensor) -> Tensor:
    """Min-max over a window that ends with ``raw``; on a window of one value the reference pays 1 - raw distance
    for exploit and 0 for explore."""
    if not raw.isfinite():
        return raw
    low, high = history.aminmax()
    if high > low:
        return (raw - low) / (high - low)
    return 1.0 + raw if part == "exploit" else torch.zeros_like(raw)


class MemoryRPlus(MemoryR):
    """``--use_ir=knn+``: exploit plus the explore reward from a memory of wrong answers, in [0, beta_s + beta_e]."""

    name = "knn+"
    part_names = ("exploit", "explore")
