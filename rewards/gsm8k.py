"""Reward columns of GSM8K and of mathematics: Memory-R's five, its cosine comparison, and step markers, mended.

Memory-R (arXiv:2504.02273, section 4.1 and utils_gsm8k.py) pays correctness 1.0 and up to 0.5 for each of four shapes.
Against the reference: numbers are compared as numbers, regexes see past a line break, no reward falls below 0, and
the cosine counts tokens and is clamped. `rewards.legacy` has the reference's arithmetic.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from rewards.answer import Verdict
from rewards.format import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    THINKING,
    completion_text,
    cut_thinking,
    is_well_formed,
    last_answer,
)
from rewards.grade import Grade

SHAPE_REWARD = 0.5
TAG_REWARD = 0.125
TAIL_PENALTY = 0.001  # per character after the last closing tag
STEPS_WANTED = 3

_INTEGER = re.compile(r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)")
_STEP = re.compile(r"^(?:step \d+|\d+[.)]|[-*•])[ :.]|\b(?:first|second|third|next|then|finally)(?:ly)?,", re.I | re.M)

GradeFunction = Callable[[str, dict], Grade]


class CorrectnessReward:
    """1.0 where the answer is right under the medium tier, else 0.0; logs verdicts, answers and the other tiers.

    Args:
        grade: (completion text, {"gold": ...}) -> `Grade`. Its exceptions pass through, with the question named.
    """

    __name__ = "correctness"

    def __init__(self, grade: GradeFunction):
        self.grade = grade

    def __call__(self, prompts, completions, gold, log_extra=None, log_metric=None, **kwargs) -> list[float]:
        grades = graded(self.grade, prompts, completions, gold)
        if log_extra is not None:
            log_extra("verdict", [grade.verdict for grade in grades])
            log_extra("answer", [grade.answer or "" for grade in grades])
        if log_metric is not None and grades:
            for tier in ("strict", "medium", "loose"):
                log_metric(f"accuracy/{tier}", sum(getattr(grade, tier) for grade in grades) / len(grades))
            counts = Counter(grade.verdict for grade in grades)
            # All of them, always: processes gather their metrics name by name and must agree on the names.
            for verdict in Verdict:
                log_metric(f"verdict/{verdict}", counts[verdict] / len(grades))
        return [float(grade.medium) for grade in grades]


def graded(grade: GradeFunction, prompts: Sequence, completions: Sequence, gold: Sequence[str]) -> list[Grade]:
    """The grade of each completion; what a grader raises is raised with the prompt it happened at."""
    grades = []
    for prompt, completion, answer in zip(prompts, completions, gold, strict=True):
        try:
            grades.append(grade(completion_text(completion), {"gold": answer}))
        except Exception as error:
            error.add_note(f"while grading an answer to {prompt!r} with gold {answer!r}")
            raise
    return grades


class IntegerReward:
    """0.5 where the one answer block outside the thinking holds an integer, commas between thousands allowed."""

    __name__ = "integer"

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        answers = [last_answer(cut_thinking(completion_text(completion))) for completion in completions]
        return [
            SHAPE_REWARD * bool(answer and not answer.repeated and _INTEGER.fullmatch(answer.text.strip()))
            for answer in answers
        ]


class StrictFormatReward:
    """0.5 where the whole completion is one thinking and one answer block with every tag on a line of its own."""

    __name__ = "strict_format"

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        return [SHAPE_REWARD * _is_strict(completion_text(completion)) for completion in completions]


def _is_strict(text: str) -> bool:
    lines = text.split("\n")
    tags = [tag for pair in THINKING for tag in pair] + [ANSWER_OPEN, ANSWER_CLOSE]
    return is_well_formed(text) and all(lines.count(tag) == text.count(tag) for tag in tags)


class SoftFormatReward:
    """0.5 where the completion begins with a thinking block that an answer block follows, whatever comes after."""

    __name__ = "soft_format"

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        return [SHAPE_REWARD * _is_soft(completion_text(completion)) for completion in completions]


def _is_soft(text: str) -> bool:
    text = text.lstrip()
    for opening, closing in THINKING:
        end = text.find(closing)
        if text.startswith(opening) and end >= 0:
            rest = text[end + len(closing) :].lstrip()
            return rest.startswith(ANSWER_OPEN) and ANSWER_CLOSE in rest
    return False


class XmlCountReward:
    """0.125 for each of the four tags that occurs once, less 0.001 per character after the last; in [0, 0.5]."""

    __name__ = "xml_count"

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        return [_xml_count(completion_text(completion)) for completion in completions]


def _xml_count(text: str) -> float:
    pair = next((pair for pair in THINKING if pair[0] in text or pair[1] in text), THINKING[0])
    tags = (*pair, ANSWER_OPEN, ANSWER_CLOSE)
    reward = TAG_REWARD * sum(text.count(tag) == 1 for tag in tags)
    tail = text.rpartition(ANSWER_CLOSE)[2].strip() if ANSWER_CLOSE in text else ""
    return max(0.0, reward - TAIL_PENALTY * len(tail))


class CosineReward:
    """Right answers from 1.0 (no tokens) to 0.5 (``max_length`` tokens) by half a cosine, wrong ones the negative.

    The length-aware reward of Yeo et al. (arXiv:2502.03373) with Memory-R's constants; progress is clamped to [0, 1].
    """

    __name__ = "cosine"

    def __init__(self, grade: GradeFunction, max_length: int):
        self.grade, self.max_length = grade, max_length

    def __call__(self, prompts, completions, gold, completion_ids, **kwargs) -> list[float]:
        grades = graded(self.grade, prompts, completions, gold)
        lengths = [min(1.0, len(tokens) / self.max_length) for tokens in completion_ids]
        return [cosine(progress, grade.medium) for progress, grade in zip(lengths, grades, strict=True)]


def cosine(progress: float, correct: bool) -> float:
    """0.5 + 0.25 (1 + cos(pi * progress)), negated for a wrong answer."""
    value = 0.5 + 0.25 * (1.0 + math.cos(math.pi * progress))
    return value if correct else -value


class StepsReward:
    """min(1, markers / 3) for numbered, listed or named steps, like open-r1's reasoning-steps reward."""

    __name__ = "steps"

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        found = [len(_STEP.findall(completion_text(completion))) for completion in completions]
        return [min(1.0, count / STEPS_WANTED) for count in found]


def gsm8k_rewards(grade: GradeFunction, legacy: bool, cosine: bool, max_length: int) -> list:
    """The reward columns of GSM8K, in the reference's order; ``legacy`` takes the reference's arithmetic."""
    if legacy:
        from rewards.legacy import legacy_rewards

        return legacy_rewards(cosine, max_length)
    shapes = [XmlCountReward(), SoftFormatReward(), StrictFormatReward(), IntegerReward()]
    return [*shapes, CorrectnessReward(grade), *([CosineReward(grade, max_length)] if cosine else [])]


def math_rewards(grade: GradeFunction, cosine: bool, max_length: int) -> list:
    """The reward columns of the second data set (section 4.2): tags and steps, no integer reward."""
    shapes = [XmlCountReward(), SoftFormatReward(), StrictFormatReward(), StepsReward()]
    return [*shapes, CorrectnessReward(grade), *([CosineReward(grade, max_length)] if cosine else [])]
