"""The reward column "correctness" of tasks whose rows have a gold answer, and what it logs of its grades."""

from collections.abc import Callable, Sequence

from rewards.answer import Verdict
from rewards.format import PLACE, AnswerPlace, completion_text
from rewards.grade import Grade, log_grades

GradeFunction = Callable[[str, dict], Grade]


class CorrectnessReward:
    """1.0 where the answer is right under the medium tier, else 0.0; logs verdicts, answers and the other tiers.

    Args:
        grade: (completion text, {"gold": ..., "answer_place": ...}) -> `Grade`, by which the answer is looked for where
            the row's prompt asks for it. Its exceptions pass through, with the question named.
    """

    __name__ = "correctness"
    full = 1.0

    def __init__(self, grade: GradeFunction):
        self.grade = grade

    def __call__(
        self, prompts, completions, gold, answer_place=None, log_extra=None, log_metric=None, **kwargs
    ) -> list[float]:
        grades = graded(self.grade, prompts, completions, gold, answer_place)
        log_grades(log_extra, log_metric, grades, Verdict)
        return [float(grade.medium) for grade in grades]


def graded(
    grade: GradeFunction,
    prompts: Sequence,
    completions: Sequence,
    gold: Sequence[str],
    places: Sequence[str] | None = None,
) -> list[Grade]:
    """The grade of each completion; what a grader raises is raised with the prompt it happened at.

    ``places``: column `PLACE` of the rows; None where they have none.
    """
    grades = []
    for prompt, completion, answer, place in zip(
        prompts, completions, gold, place_of_each(places, prompts), strict=True
    ):
        try:
            grades.append(grade(completion_text(completion), {"gold": answer, PLACE: place}))
        except Exception as error:
            error.add_note(f"while grading an answer to {prompt!r} with gold {answer!r}")
            raise
    return grades


def place_of_each(places: Sequence[str] | None, prompts: Sequence) -> Sequence[str]:
    return [AnswerPlace.TAGS] * len(prompts) if places is None else places
