"""What an evaluation says of every sample of every problem, the scores that follow, and both packed as JSON.

A run's record under ``results/`` holds them packed, so that every figure can be computed again without the completions.
"""

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from evaluation.approaches import approach_counts, coverage_at_n
from evaluation.compare import problem_of
from evaluation.metrics import KS, by_problem, pass_at_k
from rewards.grade import is_false_claim

FLAGS = ("right", "false_claims", "truncated")  # one bit per sample
_DIGEST_BYTES = 4  # of a problem's text; tells problems apart under one id, not forgeries
_MAX_LENGTH = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Outcomes:
    """P problems in a fixed order of their ids; the samples of a problem may differ in number.

    Attributes:
        problems: id -> hash of what the problem is.
        right, false_claims, truncated: of each problem, whether each sample is.
        length: tokens of each sample.
        approaches: of each problem, how many right samples took each different approach, the most frequent first.
    """

    problems: dict[Any, str]
    right: list[list[bool]]
    false_claims: list[list[bool]]
    truncated: list[list[bool]]
    length: list[list[int]]
    approaches: list[list[int]]

    @classmethod
    def of_records(cls, records: Sequence[dict]) -> "Outcomes":
        """Those of the records of one pass; raises TypeError or ValueError where a value has another type."""
        found = by_problem(records, lambda record: record)
        groups = {identity: found[identity] for identity in sorted(found, key=str)}
        return cls(
            {identity: digest_of_problem(group[0]) for identity, group in groups.items()},
            [[bool(record["medium"]) for record in group] for group in groups.values()],
            [[is_false_claim(record["verdict"]) for record in group] for group in groups.values()],
            [[bool(record["truncated"]) for record in group] for group in groups.values()],
            [[int(record["length"]) for record in group] for group in groups.values()],
            [_approaches(group) for group in groups.values()],
        )

    def scores(self) -> dict[str, np.ndarray]:
        """outcome -> (P,) mean over the samples of each problem; pass@k for every k up to their number.

        And Coverage@k, where any record tells an approach and all problems have as many samples.
        """
        named = {"accuracy": self.right, "false_claims": self.false_claims, "length": self.length}
        named["truncated"] = self.truncated
        scores = {name: np.array([np.mean(values) for values in column]) for name, column in named.items()}
        samples = np.array([len(values) for values in self.right])
        right = np.array([sum(values) for values in self.right])
        for k in KS:
            if 1 < k <= samples.min():
                scores[f"pass@{k}"] = pass_at_k(samples, right, k)
                if any(self.approaches) and samples.min() == samples.max():
                    counts = [dict(enumerate(found)) for found in self.approaches]
                    scores[f"coverage@{k}"] = coverage_at_n(int(samples[0]), counts, k)
        return scores

    def packed(self) -> dict[str, Any]:
        """As JSON: bits and lengths in base64, problem after problem. A length above 65,535 is stored as 65,535."""
        counts = [len(values) for values in self.right]
        lengths = np.minimum([value for row in self.length for value in row], _MAX_LENGTH).astype("<u2")
        ids = list(self.problems)
        return {
            "ids": len(ids) if sorted(ids, key=str) == sorted(range(len(ids)), key=str) else ids,
            "problems": _text(bytes.fromhex("".join(self.problems.values()))),
            "samples": counts[0] if len(set(counts)) == 1 else counts,
            "approaches": _text(zlib.compress(json.dumps(self.approaches).encode(), 9)),
            "length": _text(zlib.compress(lengths.tobytes(), 9)),
            **{name: _text(np.packbits([bit for row in getattr(self, name) for bit in row])) for name in FLAGS},
        }

    @classmethod
    def unpacked(cls, packed: dict[str, Any]) -> "Outcomes":
        """The opposite of `packed`; raises KeyError, TypeError or ValueError where something is missing or damaged."""
        ids = packed["ids"] if isinstance(packed["ids"], list) else sorted(range(packed["ids"]), key=str)
        samples = packed["samples"]
        counts = samples if isinstance(samples, list) else [samples] * len(ids)
        digests = b64decode(packed["problems"], validate=True)
        if len(digests) != _DIGEST_BYTES * len(ids) or len(counts) != len(ids):
            raise ValueError(f"{len(ids)} problems, but {len(digests)} bytes of hashes and {len(counts)} counts")
        total, ends = sum(counts), np.cumsum(counts)[:-1]
        try:
            lengths = np.frombuffer(zlib.decompress(b64decode(packed["length"], validate=True)), "<u2")
            approaches = json.loads(zlib.decompress(b64decode(packed["approaches"], validate=True)))
        except zlib.error as error:
            raise ValueError(f"lengths or approaches: {error}") from error
        if len(lengths) != total:
            raise ValueError(f"{total} samples, but {len(lengths)} lengths")
        columns = []
        for name in FLAGS:
            bits = np.unpackbits(np.frombuffer(b64decode(packed[name], validate=True), np.uint8))
            if not total <= len(bits) < total + 8:
                raise ValueError(f"{total} samples, but {len(bits)} bits of {name}")
            columns.append([part.astype(bool).tolist() for part in np.split(bits[:total], ends)])
        texts = [digests[at : at + _DIGEST_BYTES].hex() for at in range(0, len(digests), _DIGEST_BYTES)]
        length = [part.tolist() for part in np.split(lengths, ends)]
        if len(approaches) != len(ids):
            raise ValueError(f"{len(ids)} problems, but approaches of {len(approaches)}")
        return cls(dict(zip(ids, texts, strict=True)), *columns, length, approaches)


def _approaches(group: Sequence[dict]) -> list[int]:
    counts = approach_counts([record.get("approach") for record in group], [record["medium"] for record in group])
    return sorted(counts.values(), reverse=True)


def digest_of_problem(record: dict) -> str:
    """The hash under which `Outcomes.problems` keeps the problem of a record, or of a row with its columns."""
    return blake2b(problem_of(record).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _text(content: Any) -> str:
    return b64encode(bytes(content)).decode("ascii")
