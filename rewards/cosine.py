"""The length-aware correctness reward that Memory-R compares with."""

import math

from rewards.correctness import GradeFunction, graded


class CosineReward:
    """Right answers from 1.0 (no tokens) to 0.5 (``max_length`` tokens) by half a cosine, wrong ones the negative.

    The length-aware reward of Yeo et al. (arXiv:2502.03373) with Memory-R's constants; progress is clamped to [0, 1].
    """

    __name__ = "cosine"
    full = 1.0

    def __init__(self, grade: GradeFunction, max_length: int):
        self.grade, self.max_length = grade, max_length

    def __call__(self, prompts, completions, gold, completion_ids, answer_place=None, **kwargs) -> list[float]:
        grades = graded(self.grade, prompts, completions, gold, answer_place)
        lengths = [min(1.0, len(tokens) / self.max_length) for tokens in completion_ids]
        return [cosine(progress, grade.medium) for progress, grade in zip(lengths, grades, strict=True)]


def cosine(progress: float, correct: bool) -> float:
    """0.5 + 0.25 (1 + cos(pi * progress)), negated for a wrong answer."""
    value = 0.5 + 0.25 * (1.0 + math.cos(math.pi * progress))
    return value if correct else -value
