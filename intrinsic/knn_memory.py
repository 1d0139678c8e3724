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
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from common.errors import UserError, check_choice, check_number
from intrinsic.base import Bonus
from intrinsic.parts.episodic_memory import EpisodicMemory
from intrinsic.parts.memory_read import (
    MemoryBatch,
    Raw,
    Reward,
    exploit_reward,
    explore_reward,
    look_up,
    look_up_leaving_one_out,
)
from intrinsic.parts.normalize import WindowMinMax
from intrinsic.parts.once import OncePerRollout
from intrinsic.rollout import Rollout, text_id

RAW_RESOLUTION = 1e-6  # float32 rounding moves a raw by about 1e-7; min-max would blow that up to [0, 1]
READS = ("past", "leave_one_out")
GATES = ("all", "valid")


class _Part(NamedTuple):
    memory: str
    reward: Reward
    legacy_when_empty: float


PARTS = {
    "exploit": _Part("success", exploit_reward, legacy_when_empty=0.0),
    "explore": _Part("failure", explore_reward, legacy_when_empty=1.0),
}


class MemoryR(Bonus):
    """``--use_ir=knn``: the exploit reward from a memory of right answers, in [0, beta_s].

    Args:
        k: nearest stored questions whose responses are compared with (K of the paper).
        max_questions, max_responses: capacity of each memory (N and L).
        window: past raw values in the min-max range, besides the batch (w).
        beta_s, beta_e: weights of exploit and explore.
        explore_warmup: explore is absent before this many optimiser steps (>= 1) or share of all steps (< 1).
        exploit_keys: exploit is absent until the memory of right answers holds this many questions.
        read: "past", or "leave_one_out": the past and the batch, but for the answer itself.
        gate: "all", or "valid": only answers that obey the task's rules are paid, stored and part of the range.
        encoder: name of the text encoder, only to tell saved states apart.
        legacy: reproduce the reference order and its defects, see the module.

    Raises `UserError` for a weight that is not finite, a value out of range, and ``legacy`` with "leave_one_out".
    """

    name = "knn"
    placement = "reward"
    needs_verdict = True
    advantage_weight = 0.5
    needs = frozenset({"text_embedding"})
    part_names: tuple[str, ...] = ("exploit",)

    def __init__(
        self,
        k: int = 1,
        max_questions: int = 10_000,
        max_responses: int = 100,
        window: int = 100,
        beta_s: float = 1.0,
        beta_e: float = 1.0,
        explore_warmup: float = 0.1,
        exploit_keys: int = 0,
        read: str = "past",
        gate: str = "all",
        encoder: str = "",
        legacy: bool = False,
    ):
        for flag, value in (("beta_s", beta_s), ("beta_e", beta_e), ("explore_warmup", explore_warmup)):
            check_number(flag, value)
        if explore_warmup < 0:
            raise UserError(f"--explore_warmup={explore_warmup} must be 0 or more (steps, or a share below 1).")
        if not 0 <= exploit_keys <= max_questions:
            raise UserError(
                f"--exploit_keys={exploit_keys} must be from 0 to --memory_questions={max_questions}, the most that "
                "the memory can hold."
            )
        check_choice("memory_read", read, READS)
        check_choice("memory_gate", gate, GATES)
        if legacy and read != "past":
            raise UserError(
                f"--memory_read={read} does not go with --memory_legacy=True, which stores each answer before it is "
                "compared; leave one of them out."
            )
        self.k = k
        self.betas = {"exploit": beta_s, "explore": beta_e}
        self.explore_warmup = explore_warmup
        self.exploit_keys = exploit_keys
        self.reading = read
        self.gate = gate
        self.encoder = encoder
        self.legacy = legacy
        self.memories = {PARTS[part].memory: EpisodicMemory(max_questions, max_responses) for part in self.part_names}
        self.windows = {part: WindowMinMax(window, resolution=RAW_RESOLUTION) for part in self.part_names}
        # For `score_parts`, `present_parts` and `update`.
        self._batch_and_raws = OncePerRollout(self._read)

    @classmethod
    def from_options(cls, options) -> "MemoryR":
        return cls(max_responses=options.memory_responses, **cls.shared_settings(options))

    @staticmethod
    def shared_settings(options) -> dict[str, Any]:
        """The arguments that every form of the memory takes from the flags."""
        return {
            "k": options.k,
            "max_questions": options.memory_questions,
            "window": options.memory_window,
            "beta_s": options.beta_s,
            "beta_e": options.beta_e,
            "explore_warmup": options.explore_warmup,
            "exploit_keys": options.exploit_keys,
            "read": options.memory_read,
            "gate": options.memory_gate,
            "encoder": options.encoder,
            "legacy": options.memory_legacy,
        }

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: all completions, or those whose answer obeys the task's rules (gate "valid").

        Raises `UserError` where the gate needs verdicts and the task gives none.
        """
        if self.gate == "all":
            return super().eligible(rollout)
        if not any(rollout.verdicts):
            raise UserError(
                f"--memory_gate={self.gate} needs a task whose reward logs a verdict on each answer, and this one logs "
                "none; use --memory_gate=all."
            )
        return rollout.valid

    def score_parts(self, rollout: Rollout) -> dict[str, Tensor]:
        """Weighted, normalised exploit (and explore) of each completion, (B,) each; 0 where a part is absent, and for
        completions that are not eligible."""
        if self.legacy:
            batch = self.embed(rollout)
            forks = {name: memory.fork() for name, memory in self.memories.items()}
            windows = {part: copy.copy(window) for part, window in self.windows.items()}
            paid = self._insert_and_score(batch, rollout, forks, windows)
        else:
            _, raws = self._batch_and_raws(rollout)
            paid = {part: self.windows[part].normalize(raw.values, raw.present) for part, raw in raws.items()}
        zeros = torch.zeros(len(rollout))
        return {part: (self.betas[part] * paid.get(part, zeros)).to(rollout.device) for part in self.part_names}

    def present_parts(self, rollout: Rollout) -> dict[str, Tensor]:
        """Of each part the eligible completions that it can compare with anything, (B,) bool each.

        Nothing for ``legacy``, whose reference pays whatever it finds.
        """
        if self.legacy:
            return {}
        _, raws = self._batch_and_raws(rollout)
        none = torch.zeros(len(rollout), dtype=torch.bool)
        return {part: (raws[part].present if part in raws else none).to(rollout.device) for part in self.part_names}

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Append the raws that `score` normalised to the windows, then store the batch in its order.

        Returns questions and responses per memory after the update, the share of completions whose own question was
        stored before it ("known_questions"), with the gate "valid" the share that it lets through ("valid"), and,
        outside legacy, the mean of each part before normalisation ("exploit_unnormalized", "explore_unnormalized")
        where the part is present.
        """
        batch, raws = (self.embed(rollout), {}) if self.legacy else self._batch_and_raws(rollout)
        self._batch_and_raws.forget()  # the memories are others from here on
        known = [any(question in memory for memory in self.memories.values()) for question in batch.ids]
        metrics = {"known_questions": sum(known) / len(known)}
        if self.gate == "valid":
            metrics["valid"] = self.eligible(rollout).float().mean().item()
        if self.legacy:
            self._insert_and_score(batch, rollout, self.memories, self.windows)
        else:
            for part, raw in raws.items():
                finite = raw.values[raw.present & raw.values.isfinite()]
                self.windows[part].append(finite)
                if len(finite):
                    metrics[f"{part}_unnormalized"] = float(finite.mean())
            for row in range(len(rollout)):
                self._store(batch.row(row), self.memories)
        for name, memory in self.memories.items():
            metrics[f"{name}_questions"] = float(len(memory))
            metrics[f"{name}_responses"] = float(memory.num_responses)
        return metrics

    def _read(self, rollout: Rollout) -> tuple[MemoryBatch, dict[str, Raw]]:
        batch = self.embed(rollout)
        return batch, self.raw_parts(batch, rollout)

    def embed(self, rollout: Rollout) -> MemoryBatch:
        """Unit float32 vectors of the rollout's questions and reasonings, through one call of its encoder."""
        reasonings = rollout.reasonings
        vectors = rollout.embed(rollout.keys + reasonings).detach().to("cpu", torch.float32)
        vectors = functional.normalize(vectors, dim=1)
        finite = vectors.isfinite().all(dim=1)
        keys, responses = vectors.split(len(rollout))
        storable = (finite[: len(rollout)] & finite[len(rollout) :]).tolist()
        targets = []
        for ok, memory, reasoning in zip(storable, self.targets(rollout), reasonings, strict=True):
            is_empty_success = memory == "success" and not reasoning.strip()
            targets.append(memory if ok and not is_empty_success else None)
        ids = [text_id(question) for question in rollout.questions]
        return MemoryBatch(ids, keys, responses, targets, list(range(len(rollout))))

    def targets(self, rollout: Rollout) -> list[str | None]:
        """The memory that each completion goes to by its verdict; None where there is none, or it is not eligible."""
        memories = ["success" if correct > 0.5 else "failure" for correct in rollout.correct.tolist()]
        eligible = self.eligible(rollout).tolist()
        return [
            memory if ok and memory in self.memories else None for ok, memory in zip(eligible, memories, strict=True)
        ]

    @property
    def depends_on_length(self) -> bool:
        """Whether the warm-up of the explore part is a share of the run."""
        return "explore" in self.part_names and 0 < self.explore_warmup < 1

    def _paying(self, rollout: Rollout) -> list[str]:
        """Parts past their warm-up."""
        warmup = self.explore_warmup * (rollout.max_steps if self.depends_on_length else 1)
        past = {"exploit": len(self.memories["success"]) >= self.exploit_keys, "explore": rollout.step >= warmup}
        return [part for part in self.part_names if past[part]]

    def raw_parts(self, batch: MemoryBatch, rollout: Rollout) -> dict[str, Raw]:
        """Raw reward of each part past its warm-up, for the eligible completions that it can compare with anything."""
        eligible = self.eligible(rollout).cpu()
        raws = {part: self.read(part, batch) for part in self._paying(rollout)}
        return {part: Raw(values, present & eligible) for part, (values, present) in raws.items()}

    def read(self, part: str, batch: MemoryBatch) -> Raw:
        """Raw reward of each row of ``batch`` for one part."""
        name, reward, _ = PARTS[part]
        if self.reading == "past":
            return look_up(self.memories[name], reward, batch, self.k)
        return look_up_leaving_one_out(self.memories[name], name, reward, batch, self.k)

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
        for index in self.eligible(rollout).nonzero().flatten().tolist():
            row = batch.row(index)
            self._store(row, memories)
            for part, values in paid.items():
                memory = memories[PARTS[part].memory]
                if len(memory):
                    raw = look_up(memory, PARTS[part].reward, row, self.k).values
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
        self._batch_and_raws.forget()
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
            "exploit_keys": self.exploit_keys,
            "memory_read": self.reading,
            "memory_gate": self.gate,
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
