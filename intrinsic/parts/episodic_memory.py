"""Episodic memory of Memory-R (arXiv 2504.02273, section 2.1): question vector -> vectors of past responses.

Look-up is a matrix product with torch. Against faiss.IndexFlatIP (exact search; one thread of a busy machine, 384
dimensions, 24 queries, K = 20), milliseconds of `EpisodicMemory.nearest` / faiss: 0.18 / 0.05 at 1e2 keys, 0.48 / 0.44
at 1e3, 4.6 / 5.7 at 1e4, 45 / 127 at 1e5. faiss gains at most 0.2 ms, where a batch costs hundreds in the encoder, and
loses on large memories, so it is not used.

Vectors are kept in float32: float16 would halve the memory but misses the method's test vectors (docs/methods/knn+.md).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from common.errors import UserError

FIRST_ROWS = 4
TIE_RESOLUTION = 1e-6  # float32 rounding moves a cosine by about 1e-7, differently for each matrix shape


def _with_room(vectors: Tensor, needed: int, limit: int, dim: int = 0) -> Tensor:
    """A matrix that has ``needed`` vectors along ``dim``, else a copy of at least twice the size, up to ``limit``."""
    held = vectors.shape[dim]
    if needed <= held:
        return vectors
    shape = list(vectors.shape)
    shape[dim] = min(limit, max(needed, 2 * held, FIRST_ROWS))
    larger = vectors.new_empty(shape)
    larger.narrow(dim, 0, held).copy_(vectors)
    return larger


class _Responses:
    """Ring of the last ``limit`` response vectors of one question, grown on demand."""

    def __init__(self, rows: Tensor, limit: int):
        self.rows = rows
        self.count = len(rows)
        self.oldest = 0
        self.limit = limit

    def append(self, value: Tensor) -> None:
        if self.count < self.limit:
            self.rows = _with_room(self.rows, self.count + 1, self.limit)
            self.rows[self.count] = value
            self.count += 1
        else:
            self.rows[self.oldest] = value
            self.oldest = (self.oldest + 1) % self.limit

    def stored(self) -> Tensor:
        """(count, d) view, in no particular order."""
        return self.rows[: self.count]

    def by_age(self) -> Tensor:
        """(count, d), oldest first."""
        return self.stored().roll(-self.oldest, dims=0)

    def copy(self) -> "_Responses":
        return _Responses(self.by_age().clone(), self.limit)


class EpisodicMemory:
    """Questions, identified by text, with the vectors of their last responses; float32, on the CPU.

    A question's identity is its `intrinsic.rollout.text_id`; its vector only decides who is whose neighbour. (The
    reference compares float vectors for identity, which breaks once texts are encoded in batches.) A full memory
    evicts the oldest stored question with all its responses, in O(1): question slots form a ring. Storage grows
    geometrically, one array for the keys and one for the responses of each question. Keys are columns of theirs: one
    query against 1e4 keys outside the cache takes 0.6 ms, where it takes 1.5 against rows.

    Args:
        max_questions: questions held (N of the paper).
        max_responses: responses held per question (L of the paper).
    """

    def __init__(self, max_questions: int, max_responses: int):
        self.max_questions = max_questions
        self.max_responses = max_responses
        self._keys = torch.empty(0, 0)  # (d, room)
        self._ids: list[str] = []
        self._responses: list[_Responses] = []
        self._slot_of: dict[str, int] = {}
        self._oldest = 0
        self._keys_borrowed = False
        self._borrowed: set[int] = set()

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, text_id: str) -> bool:
        return text_id in self._slot_of

    @property
    def num_responses(self) -> int:
        """Responses held over all questions."""
        return sum(ring.count for ring in self._responses)

    @property
    def nbytes(self) -> int:
        """Bytes of all vectors, room for growth included: when full, 4 d N (L + 1)."""
        return self._keys.nbytes + sum(ring.rows.nbytes for ring in self._responses)

    def capacity_bytes(self, width: int) -> int:
        """Bytes of all vectors of ``width`` numbers in a full memory: N keys, and L responses for each."""
        return self.max_questions * (1 + self.max_responses) * width * self._keys.element_size()

    def insert(self, text_id: str, key: Tensor, value: Tensor) -> None:
        """Store response vector ``value`` (d,) under the question ``text_id`` with vector ``key`` (d,).

        Raises `UserError` when the vectors have another width than the stored ones.
        """
        slot = self._slot_of.get(text_id)
        if slot is None:
            slot = self._add_question(text_id, key)
        elif slot in self._borrowed:
            self._responses[slot] = self._responses[slot].copy()
            self._borrowed.discard(slot)
        self._responses[slot].append(value)

    def _add_question(self, text_id: str, key: Tensor) -> int:
        self._own_keys(len(key))
        responses = _Responses(torch.empty(0, len(key)), self.max_responses)
        if len(self) < self.max_questions:
            slot = len(self)
            self._keys = _with_room(self._keys, slot + 1, self.max_questions, dim=1)
            self._ids.append(text_id)
            self._responses.append(responses)
        else:
            slot = self._oldest
            self._oldest = (slot + 1) % self.max_questions
            del self._slot_of[self._ids[slot]]
            self._ids[slot] = text_id
            self._responses[slot] = responses
            self._borrowed.discard(slot)
        self._keys[:, slot] = functional.normalize(key.float(), dim=0)
        self._slot_of[text_id] = slot
        return slot

    def _own_keys(self, width: int) -> None:
        if not self._ids:
            self._keys = torch.empty(width, 0)
        if width != len(self._keys):
            raise UserError(
                f"the memory holds vectors of width {len(self._keys)} but got {width}; "
                "resume with the --encoder the memory was filled with."
            )
        if self._keys_borrowed:
            self._keys = self._keys.clone()
            self._keys_borrowed = False

    def nearest(self, keys: Tensor, k: int) -> list[list[str]]:
        """Text ids of the ``k`` stored questions nearest to each of ``keys`` (m, d) by cosine, nearest first.

        Similarities equal within 1e-6 are ordered by insertion, oldest first. Fewer than ``k`` when fewer are stored;
        none for a key with a non-finite value.
        """
        return [[text_id for text_id, _ in found] for found in self.nearest_with_similarity(keys, k)]

    def nearest_with_similarity(self, keys: Tensor, k: int) -> list[list[tuple[str, float]]]:
        """What `nearest` returns, each text id with its cosine in whole multiples of 1e-6."""
        if not self._ids:
            return [[] for _ in keys]
        count = len(self)
        unit_keys = functional.normalize(keys.to("cpu", torch.float32), dim=1)
        similarity = (unit_keys @ self._keys[:, :count] / TIE_RESOLUTION).round_()
        threshold = similarity.topk(min(k, count), dim=1).values[:, -1:]
        similarity = similarity.numpy()
        rows, slots = np.nonzero(similarity >= threshold.numpy())
        age: np.ndarray = (slots - self._oldest) % count
        order = np.lexsort((age, -similarity[rows, slots], rows))
        rows, slots = rows[order], slots[order]
        found: list[list[tuple[str, float]]] = [[] for _ in keys]
        for row, slot, value in zip(rows.tolist(), slots.tolist(), similarity[rows, slots].tolist(), strict=True):
            if len(found[row]) < k:
                found[row].append((self._ids[slot], value))
        return found

    def responses(self, text_ids: list[str]) -> Tensor:
        """(n, d) union of all responses of the given stored questions; a view to read from, not to write to."""
        stored = [self._responses[self._slot_of[text_id]].stored() for text_id in text_ids]
        return stored[0] if len(stored) == 1 else torch.cat(stored)

    def fork(self) -> "EpisodicMemory":
        """A memory with the same content whose insertions leave this one unchanged.

        Copy on write: shares every array with this memory and copies only the rings that it appends to and, when a
        new question arrives, the keys. Valid until this memory is changed.
        """
        twin = EpisodicMemory(self.max_questions, self.max_responses)
        twin._keys, twin._keys_borrowed = self._keys, True
        twin._ids = list(self._ids)
        twin._responses = list(self._responses)
        twin._slot_of = dict(self._slot_of)
        twin._oldest = self._oldest
        twin._borrowed = set(range(len(self)))
        return twin

    def state_dict(self) -> dict[str, Any]:
        """Keys (n, d), values (total, d), counts (n,) int64 and text ids, all in order of insertion."""
        slots = [(self._oldest + age) % len(self) for age in range(len(self))]
        values = [self._responses[slot].by_age() for slot in slots]
        return {
            "ids": [self._ids[slot] for slot in slots],
            "keys": self._keys[:, slots].T.contiguous(),
            "values": torch.cat(values) if values else torch.empty(0, 0),
            "counts": torch.tensor([len(rows) for rows in values], dtype=torch.int64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the content by a saved one; raises `UserError` when it exceeds this memory's capacities."""
        ids, counts = list(state["ids"]), state["counts"].tolist()
        if len(ids) > self.max_questions or max(counts, default=0) > self.max_responses:
            raise UserError(
                f"the saved memory holds {len(ids)} questions of up to {max(counts, default=0)} responses, more than "
                f"--memory_questions={self.max_questions} --memory_responses={self.max_responses}; raise these flags."
            )
        self._ids = ids
        self._slot_of = {text_id: slot for slot, text_id in enumerate(ids)}
        self._keys = state["keys"].detach().to("cpu", torch.float32).T.clone(memory_format=torch.contiguous_format)
        values = state["values"].detach().to("cpu", torch.float32).split(counts) if ids else ()
        self._responses = [_Responses(rows.clone(), self.max_responses) for rows in values]
        self._oldest = 0
        self._keys_borrowed = False
        self._borrowed = set()
