"""The judgement of one completion under three tiers, the common result of every grader."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

TIERS = ("strict", "medium", "loose")


@dataclass(frozen=True)
class Grade:
    """What a grader says of one completion; ``strict`` implies ``medium``, and ``medium`` implies ``loose``.

    Attributes:
        strict: right, and the whole completion is exactly the asked shape.
        medium: right, at the place that the prompt asks for and outside the reasoning; what training rewards.
        loose: right, wherever the answer stands.
        answer: canonical text of the answer at that place, or, where none can be read there, of the one that the loose
            tier read; None when there is none. Equal answers have equal texts, so they can be counted and voted on.
        verdict: one word on the medium tier, for example correct, wrong, no_answer, multiple_answers or unparsable.
        well_formed: the whole completion is exactly the asked shape, whatever its answer.
        approach: normal form of the way to the answer, equal texts for equal ways; None where none can be read, or
            where the task has no such form.
    """

    strict: bool
    medium: bool
    loose: bool
    answer: str | None
    verdict: str
    well_formed: bool
    approach: str | None = None


def is_false_claim(verdict: str) -> bool:
    """Whether a completion gives an answer that is not right: any verdict but "correct" and "no_answer".

    An answer that cannot be read, or several where one is asked for, is a claim that does not hold.
    """
    return verdict not in ("correct", "no_answer")


def log_verdicts(log_metric: Callable[[str, float], None], verdicts: Sequence[str], kinds: type[StrEnum]) -> None:
    """Log the share of each of the task's verdicts ``kinds`` among ``verdicts``, of which there is at least one."""
    counts = Counter(verdicts)
    # All of them, always: processes gather their metrics name by name and must agree on the names.
    for kind in kinds:
        log_metric(f"verdict/{kind}", counts[kind] / len(verdicts))


def log_grades(
    log_extra: Callable[[str, list], None] | None,
    log_metric: Callable[[str, float], None] | None,
    grades: Sequence[Grade],
    kinds: type[StrEnum],
) -> None:
    """Log what a reward column says of its ``grades``, through TRL's functions, of which either may be None.

    The verdict and the answer of each; and, where there is a grade at all, the accuracy under each tier and
    `log_verdicts`.
    """
    verdicts = [grade.verdict for grade in grades]
    if log_extra is not None:
        log_extra("verdict", verdicts)
        log_extra("answer", [grade.answer or "" for grade in grades])
    if log_metric is not None and grades:
        for tier in TIERS:
            log_metric(f"accuracy/{tier}", sum(getattr(grade, tier) for grade in grades) / len(grades))
        log_verdicts(log_metric, verdicts, kinds)
