"""Which rows of a task validate and which train: set aside by a hash of the question, the same for every seed."""

import hashlib
from collections.abc import Collection

from datasets import Dataset

from common.errors import UserError

MAX_VALIDATION_SHARE = 0.2  # of the rows that validation problems are set aside from


def by_hash(rows: Dataset) -> list[int]:
    """Row indices in an order that depends on the questions alone, by which validation problems are set aside."""
    digests = [hashlib.blake2b(text.encode("utf-8", "surrogatepass")).digest() for text in rows["question"]]
    return sorted(range(len(rows)), key=digests.__getitem__)


def first_by_hash(rows: Dataset, count: int) -> Dataset:
    """The first ``count`` rows in the order `by_hash`, all where there are fewer."""
    return rows.select(by_hash(rows)[:count])


def set_aside(rows: Dataset, count: int) -> Dataset:
    """``count`` training rows to validate on: at most `MAX_VALIDATION_SHARE` of them, but one at least."""
    return first_by_hash(rows, min(count, max(1, int(MAX_VALIDATION_SHARE * len(rows)))))


def without(rows: Dataset, questions: Collection[str]) -> Dataset:
    """The training rows that ask none of the validation ``questions``; raises `UserError` where none is left."""
    held_out = set(questions)
    kept = [index for index, question in enumerate(rows["question"]) if question not in held_out]
    if not kept:
        raise UserError(
            f"all {len(rows)} training problems are validation problems too; give other data, or more of it."
        )
    return rows.select(kept)


def draw(rows: Dataset, count: int, seed: int) -> Dataset:
    """``count`` rows drawn by ``seed``, all where there are fewer, in random order."""
    return rows.shuffle(seed=seed).select(range(min(count, len(rows))))


def for_traces(rows: Dataset, count: int) -> Dataset:
    """``count`` rows to teach by, 0 for all; those that `by_hash` sets aside for validation are taken last."""
    return rows.select(by_hash(rows)[::-1][: count or len(rows)])
