"""Outcome-based exploration (arXiv 2509.06941): GRPO that pays final answers for being rare, whatever led to them.

Plain GRPO rewards a right answer alike each time; here the finished advantage also holds, for each completion whose
final answer can be parsed, c times a bonus of that answer: one over the root of how often its problem was answered so
before, minus a baseline ("historical"), or minus the share of the group that says the same ("batch"). Counting answers
is tractable where counting texts is not. Counts are those before the batch; the batch is counted afterwards.
"""

import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import check_choice, check_number
from intrinsic.base import Bonus
from intrinsic.rollout import Rollout, text_id

MODES = ("historical", "batch")
BASELINES = ("group", "constant")
ID_BYTES = 16  # of `text_id`


class AnswerCounts:
    """How often each question was given each answer; both named by their `text_id`.

    Args:
        max_questions: questions held; the one not met for longest is dropped with its answers.
        max_answers: answers held per question; the rarest is dropped, of several the one first met longest ago.
    """

    def __init__(self, max_questions: int, max_answers: int):
        self.max_questions = max_questions
        self.max_answers = max_answers
        self._counts: OrderedDict[str, Counter[str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, question: str, answer: str) -> int:
        """Visits of ``answer`` under ``question`` so far."""
        return self._counts[question][answer] if question in self._counts else 0

    def visits(self, question: str) -> list[int]:
        """The counts of all answers held for ``question``; none for an unknown one."""
        return list(self._counts.get(question, {}).values())

    def add(self, question: str, answers: Iterable[str]) -> None:
        """Count one visit for each of ``answers``, in their order."""
        counts = self._counts.setdefault(question, Counter())
        counts.update(answers)
        self._counts.move_to_end(question)
        if len(counts) > self.max_answers:
            # Newest first, so that the stable sort of most_common drops the oldest of equally rare ones.
            newest_first = Counter(dict(reversed(counts.items())))
            kept = {answer for answer, _ in newest_first.most_common(self.max_answers)}
            self._counts[question] = Counter({answer: n for answer, n in counts.items() if answer in kept})
        if len(self._counts) > self.max_questions:
            self._counts.popitem(last=False)

    def state_dict(self) -> dict[str, Any]:
        """Question ids from the one not met for longest on, answers per question, and ids and counts of the answers."""
        pairs = [pair for counts in self._counts.values() for pair in counts.items()]
        ids = b"".join(bytes.fromhex(answer) for answer, _ in pairs)
        return {
            "questions": list(self._counts),
            "sizes": torch.tensor([len(counts) for counts in self._counts.values()], dtype=torch.int64),
            "answers": torch.from_numpy(np.frombuffer(ids, np.uint8).copy()).view(-1, ID_BYTES),
            "counts": torch.tensor([count for _, count in pairs], dtype=torch.int64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ids = (row.tobytes().hex() for row in state["answers"].cpu().numpy())
        pairs = zip(ids, state["counts"].tolist(), strict=True)
        self._counts = OrderedDict(
            (question, Counter(dict(next(pairs) for _ in range(size))))
            for question, size in zip(state["questions"], state["sizes"].tolist(), strict=True)
        )


def count_entropy(visits: list[int]) -> float:
    """Shannon entropy in nats of the distribution that ``visits`` of at least one answer form."""
    total = sum(visits)
    return -sum(count / total * math.log(count / total) for count in visits)


class Outcome(Bonus):
    """``--use_ir=outcome``: rarity of the final answer, by its history or in its group.

    Args:
        mode: "historical", min(1, 1 / sqrt(N)) minus a baseline, or "batch", -(others with the same answer) / n.
        baseline: historical only: "group", the mean bonus of the group's parsed answers, or "constant".
        constant: the constant baseline.
        scale: c, the weight beside the normalised reward.
        max_questions, max_answers: how much is counted, see `AnswerCounts`.

    Raises `UserError` for a value out of range.
    """

    name = "outcome"
    placement = "advantage"
    reads = frozenset({"answer"})

    def __init__(
        self,
        mode: str = "historical",
        baseline: str = "group",
        constant: float = 0.5,
        scale: float = 0.2,
        max_questions: int = 10_000,
        max_answers: int = 1_000,
    ):
        check_choice("outcome_mode", mode, MODES)
        check_choice("outcome_baseline", baseline, BASELINES)
        check_number("outcome_constant", constant, least=0, most=1)
        check_number("outcome_scale", scale, least=0)
        for flag, value in (("outcome_questions", max_questions), ("outcome_answers", max_answers)):
            check_number(flag, value, least=1)
        self.mode = mode
        self.baseline = baseline
        self.constant = constant
        self.scale = scale
        self.counts = AnswerCounts(max_questions, max_answers)

    @classmethod
    def from_options(cls, options) -> "Outcome":
        return cls(
            mode=options.outcome_mode,
            baseline=options.outcome_baseline,
            constant=options.outcome_constant,
            scale=options.outcome_scale,
            max_questions=options.outcome_questions,
            max_answers=options.outcome_answers,
        )

    @property
    def from_second_visit(self) -> bool:
        """Without earlier answers all are alike, and so equal to the mean of their group."""
        return self.mode == "historical" and self.baseline == "group"

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: completions whose final answer could be parsed."""
        return torch.tensor([answer is not None for answer in rollout.answers], device=rollout.device)

    def score(self, rollout: Rollout) -> Tensor:
        """Bonus of each completion's answer, (B,), in [-1, 1]; 0 where no answer could be parsed."""
        parsed = self.eligible(rollout).view(-1, rollout.num_generations)
        if self.mode == "batch":
            values = -self._others_alike(rollout)
        else:
            values = self.novelty(rollout)
            values = values - (self.constant if self.baseline == "constant" else _mean(values, parsed))
        return torch.where(parsed, values, 0.0).flatten()

    def novelty(self, rollout: Rollout) -> Tensor:
        """min(1, 1 / sqrt(N)) by visits N of the answer before this batch, (groups, n); 1 where it has none."""
        counts = [
            0 if answer is None else self.counts.count(text_id(question), text_id(answer))
            for question, answer in zip(rollout.questions, rollout.answers, strict=True)
        ]
        visits = torch.tensor(counts, dtype=torch.float32, device=rollout.device)
        return visits.clamp(min=1.0).rsqrt().view(-1, rollout.num_generations)

    def _others_alike(self, rollout: Rollout) -> Tensor:
        """Share of the group that is another completion with the same answer, (groups, n)."""
        n = rollout.num_generations
        groups = [rollout.answers[start : start + n] for start in range(0, len(rollout), n)]
        tallies = [Counter(group) for group in groups]
        shares = [[(tally[answer] - 1) / n for answer in group] for group, tally in zip(groups, tallies, strict=True)]
        return torch.tensor(shares, dtype=torch.float32, device=rollout.device)

    def combine(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        """``advantages + c * scores``, both (B,) or (B, T)."""
        return advantages + self.scale * scores

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Count the batch's answers.

        Returns "parsed" (share of completions with an answer) and, where there is one, "new_answers" (share of the
        answers that their problem had not been given before this batch) and the means over the batch's problems of
        "distinct_answers" (so far) and "count_entropy" (of the counts so far, nats).
        """
        given = defaultdict(list)
        for question, answer in zip(rollout.questions, rollout.answers, strict=True):
            if answer is not None:
                given[text_id(question)].append(text_id(answer))
        new = [self.counts.count(question, answer) == 0 for question in given for answer in given[question]]
        metrics = {"parsed": len(new) / len(rollout)}
        visits = []
        for question, answers in given.items():
            self.counts.add(question, answers)
            visits.append(self.counts.visits(question))
        if new:
            metrics["new_answers"] = sum(new) / len(new)
            metrics["distinct_answers"] = sum(map(len, visits)) / len(visits)
            metrics["count_entropy"] = sum(map(count_entropy, visits)) / len(visits)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return self.counts.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts.load_state_dict(state)

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "outcome_mode": self.mode,
            "outcome_baseline": self.baseline,
            "outcome_constant": self.constant,
            "outcome_scale": self.scale,
            "outcome_questions": self.counts.max_questions,
            "outcome_answers": self.counts.max_answers,
        }


def _mean(values: Tensor, present: Tensor) -> Tensor:
    """Mean of the present ``values`` of each group, (groups, 1); 0 where none is."""
    return (values * present).sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True).clamp(min=1)
