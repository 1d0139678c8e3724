"""Memory-R's sentence-level memory (arXiv 2504.02273; removed from the authors' program in May 2025): GRPO plus the
exploit and explore rewards of Memory-R+, with each reasoning step as one value of the memory.

Plain GRPO compares the answers of one group only. Where `knn_memory` has one vector for a response, here every step
has its own, and the reward of a response is the mean over its steps. Differences from the authors' program (each on
purpose) are those of `knn_memory`, and: the limit of values per question holds for every step, not once per response; a
step ends at a line break too; a response without a step is paid 0.
"""

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from common.errors import UserError, check_number
from intrinsic.knn_memory import MemoryRPlus
from intrinsic.parts.episodic_memory import EpisodicMemory
from intrinsic.parts.memory_read import MemoryBatch, Raw
from intrinsic.rollout import Rollout, text_id

# A sentence ends at . ! or ? before a space, but not behind the number of a list item that starts the line.
_SENTENCE_END = re.compile(r"(?<!^\d\.)(?<!^\d\d\.)(?<=[.!?])\s+")


def reasoning_steps(text: str) -> list[str]:
    """The steps of a reasoning in its order: its lines, and within a line its sentences; none for an empty text."""
    lines = (line.strip() for line in text.splitlines())
    return [step for line in lines if line for step in _SENTENCE_END.split(line)]


class StepBatch(NamedTuple):
    """A rollout as the memory sees it: identity and vector of each question, (n, d) step vectors of each response, and
    the memory that the response goes to."""

    ids: list[str]
    keys: Tensor
    steps: tuple[Tensor, ...]
    targets: list[str | None]

    def row(self, index: int) -> "StepBatch":
        rows = slice(index, index + 1)
        return StepBatch(self.ids[rows], self.keys[rows], self.steps[rows], self.targets[rows])

    @property
    def owners(self) -> Tensor:
        """(S,) response of each of the S steps of the batch."""
        counts = torch.tensor([len(vectors) for vectors in self.steps])
        return torch.arange(len(self.steps)).repeat_interleave(counts)

    def by_step(self) -> MemoryBatch:
        """The batch as if each of its S steps were a response."""
        owners = self.owners.tolist()
        ids = [self.ids[owner] for owner in owners]
        targets = [self.targets[owner] for owner in owners]
        return MemoryBatch(ids, self.keys[owners], torch.cat(self.steps), targets, owners)


def mean_by_owner(values: Tensor, owners: Tensor, size: int) -> Tensor:
    """(size,) mean of the ``values`` (S,) of each owner; NaN for one without values."""
    zeros = torch.zeros(size)
    return zeros.index_add(0, owners, values) / zeros.index_add(0, owners, torch.ones_like(values))


class SentenceMemory(MemoryRPlus):
    """``--use_ir=knn-sent``: exploit and explore, each the mean over a response's steps, in [0, beta_s + beta_e].

    Args:
        max_steps_stored: steps that each memory holds per question.
        settings: those of `MemoryRPlus` but ``max_responses``.

    Raises `UserError` for a capacity below 1, for ``legacy``, which has no sentence-level form, and as `MemoryR` does.
    """

    name = "knn-sent"

    def __init__(self, max_steps_stored: int = 1000, **settings):
        check_number("sent_steps", max_steps_stored, least=1)
        if settings.get("legacy"):
            raise UserError("--memory_legacy=True has no sentence-level form; leave it out with --use_ir=knn-sent.")
        super().__init__(max_responses=max_steps_stored, **settings)

    @classmethod
    def from_options(cls, options) -> "SentenceMemory":
        return cls(max_steps_stored=options.sent_steps, **cls.shared_settings(options))

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: responses that have a step and pass the gate."""
        has_step = torch.tensor([bool(reasoning_steps(text)) for text in rollout.reasonings], device=rollout.device)
        return has_step & super().eligible(rollout)

    def read(self, part: str, batch: StepBatch) -> Raw:
        """Raw reward of each response for one part, the mean over its steps; NaN with a non-finite vector."""
        values, present = super().read(part, batch.by_step())
        owners, size = batch.owners, len(batch.ids)
        # Steps of one response share its question and are left out together: all are present or none is.
        has_present = torch.zeros(size, dtype=torch.bool)
        has_present[owners[present]] = True
        return Raw(mean_by_owner(values, owners, size), has_present)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Append raws to the windows and store the batch, as `MemoryR.update` does, and return what it returns.

        Sizes of the memories are in steps ("success_steps", "failure_steps"); "steps" is their mean number in a
        response.
        """
        metrics = {name.replace("_responses", "_steps"): value for name, value in super().update(rollout).items()}
        metrics["steps"] = sum(len(reasoning_steps(text)) for text in rollout.reasonings) / len(rollout)
        return metrics

    def embed(self, rollout: Rollout) -> StepBatch:
        """Unit float32 vectors of the rollout's questions and steps, through one call of its encoder."""
        steps = [reasoning_steps(text) for text in rollout.reasonings]
        flat = [step for response in steps for step in response]
        vectors = rollout.embed(rollout.keys + flat).detach().to("cpu", torch.float32)
        keys, values = functional.normalize(vectors, dim=1).split([len(rollout), len(flat)])
        responses = values.split([len(response) for response in steps])
        targets = []
        for key, response, memory in zip(keys, responses, self.targets(rollout), strict=True):
            targets.append(memory if key.isfinite().all() and response.isfinite().all() else None)
        return StepBatch([text_id(question) for question in rollout.questions], keys, responses, targets)

    @staticmethod
    def _store(row: StepBatch, memories: dict[str, EpisodicMemory]) -> None:
        """Store the steps of a batch of one; one with a non-finite vector has no target."""
        target = row.targets[0]
        if target is not None:
            for step in row.steps[0]:
                memories[target].insert(row.ids[0], row.keys[0], step)

    def identity(self) -> dict[str, Any]:
        settings = super().identity()
        del settings["memory_legacy"]
        return settings | {"sent_steps": settings.pop("memory_responses")}
