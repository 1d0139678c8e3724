"""Word problems and mathematics: rows of question and gold answer from GSM8K, SVAMP, MATH and data sets like them.

Every loader gives the columns id (row index in the source), question, gold and gold_text. ``gold`` is what graders
compare with; ``gold_text`` is the answer as the source writes it. The grader's own reader reads every gold here, so
that none can end a run at the step that meets it.
"""

import re
from collections.abc import Callable, Iterable

from datasets import Dataset

from common.errors import UserError
from rewards.answer import last_box
from rewards.latex import canonical_latex
from rewards.latex_reading import MAX_LENGTH
from rewards.number import parse_number
from tasks.load import exact_number, load_rows, require_columns, row_place

GSM8K, SVAMP, MATH_500 = "openai/gsm8k", "ChilleD/SVAMP", "HuggingFaceH4/MATH-500"
NUMINA = "AI-MO/NuminaMath-TIR"
_HUB_CONFIGS = {GSM8K: "main"}
_GSM8K_MARK = "####"
_CALCULATED = re.compile(r"<<[^<>]*>>")  # a note of GSM8K's calculator
_BOXED = "\\boxed"


class RowError(ValueError):
    """A row cannot be used; says why, and what to do about it."""

    def __init__(self, reason: str, fix: str = "mend or remove the row"):
        super().__init__(f"{reason}; {fix}.")


def load_gsm8k(source: str = GSM8K, split: str | None = "train") -> Dataset:
    """Rows of GSM8K or of a source shaped like it: question, and an answer that ends in ``#### <number>``.

    Raises `UserError` with the row index where question, mark or number is missing.
    """
    rows = _load(source, split, ["question", "answer"])
    return _build(source, split, rows["question"], rows["answer"], _gsm8k_gold)


def load_gsm8k_solutions(source: str = GSM8K, split: str | None = "train") -> Dataset:
    """Rows as of `load_gsm8k`, with the column steps: the solution without the notes of its calculator, a line a step.

    Raises as `load_gsm8k` does, and where a solution has no steps.
    """
    rows = _load(source, split, ["question", "answer"])
    built = _build(source, split, rows["question"], rows["answer"], _gsm8k_gold)
    steps = list(map(_gsm8k_steps, rows["answer"]))
    if "" in steps:
        place = row_place(source, split, steps.index(""))
        raise UserError(f"{place} has no steps before {_GSM8K_MARK}; add them, or leave the row out.")
    return built.add_column("steps", steps)


def load_svamp(source: str = SVAMP, split: str | None = "test") -> Dataset:
    """Rows of SVAMP: Body and Question joined, and a numeric Answer. Raises `UserError` as `load_gsm8k` does."""
    rows = _load(source, split, ["Body", "Question", "Answer"])
    questions = map(_svamp_question, rows["Body"], rows["Question"])
    return _build(source, split, questions, rows["Answer"], _number_gold)


def load_math(source: str = MATH_500, split: str | None = None) -> Dataset:
    """Rows with LaTeX or plain answers: columns question or problem, and answer or solution.

    The gold is the answer, or the content of the last ``\\boxed{...}`` in it. Without an answer column it is that of
    the solution, as in NuminaMath-TIR and MATH. Raises `UserError` with the row index where a question is missing, or a
    gold is missing, no text or number, a worked solution of GSM8K, or beyond what `grade_latex` reads.
    """
    rows = _load(source, split, [])
    question, answer = require_columns(rows, [("question", "problem"), ("answer", "solution")])
    gold = _answer_gold if answer == "answer" else _boxed_gold
    return _build(source, split, rows[question], rows[answer], gold)


def _load(source: str, split: str | None, columns: list[str]) -> Dataset:
    rows = load_rows(source, split, _HUB_CONFIGS.get(source))
    require_columns(rows, columns)
    return rows


def _build(
    source: str, split: str | None, questions: Iterable, answers: Iterable, gold: Callable[[str], tuple[str, str]]
) -> Dataset:
    built = []
    for index, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        try:
            value, text = gold(_answer_text(answer))
            if not isinstance(question, str) or not question.strip():
                raise RowError(f"has the question {_shown(question)}, which is no text")
        except RowError as error:
            raise UserError(f"{row_place(source, split, index)} {error}") from None
        built.append({"id": index, "question": question, "gold": value, "gold_text": text})
    return Dataset.from_list(built)


def _shown(value) -> str:
    """``value`` for a message, its end if it is a long text: that is where the answer stands."""
    return repr(value[-60:] if isinstance(value, str) else value)[:200]


def _answer_text(value) -> str:
    """An answer as text: a text as it is, an exact number as its shortest decimal."""
    if isinstance(value, str):
        if not value.strip():
            raise RowError("has an empty answer")
        return value
    if value is None:
        raise RowError("has no answer (null)")
    number = exact_number(value)
    if number is None:
        raise RowError(f"has the answer {_shown(value)}, which is neither a text nor an exact number")
    return number


def _svamp_question(body, question) -> str | None:
    """The problem as one text; None where a part of it is no text."""
    if not isinstance(body, str) or not isinstance(question, str):
        return None
    return f"{body.strip().removesuffix('.')}. {question.strip()}"


def _gsm8k_gold(answer: str) -> tuple[str, str]:
    _, mark, text = answer.rpartition(_GSM8K_MARK)
    if not mark:
        raise RowError(f"has no {_GSM8K_MARK} before its final answer: {_shown(answer)}")
    return _number_gold(text)


def _gsm8k_steps(answer: str) -> str:
    lines = _CALCULATED.sub("", answer.rpartition(_GSM8K_MARK)[0]).splitlines()
    return "\n".join(filter(None, map(str.strip, lines)))


def _number_gold(text: str) -> tuple[str, str]:
    value = parse_number(text)
    if value is None:
        raise RowError(f"has the gold answer {_shown(text.strip())}, which is not a number")
    return str(value), text.strip()


def _answer_gold(answer: str) -> tuple[str, str]:
    if _GSM8K_MARK in answer:
        raise RowError(
            f"has a worked solution as its answer, as in GSM8K: {_shown(answer)}",
            f"use run_gsm8k.py (run_eval.py --task=gsm8k), or keep what follows the {_GSM8K_MARK} alone",
        )
    return _latex_gold(last_box(answer) or answer)


def _boxed_gold(solution: str) -> tuple[str, str]:
    boxed = last_box(solution)
    if not boxed:
        # MATH has a few solutions with \boxed 2, which its authors read up to the end of the formula.
        unbraced = solution.rpartition(f"{_BOXED} ")[2] if f"{_BOXED} " in solution else ""
        boxed = unbraced.partition("$")[0].strip()
    if not boxed:
        raise RowError(f"has no {_BOXED}{{...}} in its solution: {_shown(solution)}")
    return _latex_gold(boxed)


def _latex_gold(text: str) -> tuple[str, str]:
    if canonical_latex(text) is None:
        raise RowError(
            f"has the gold answer {_shown(text.strip())}, which the grader cannot read (it is blank, longer than "
            f"{MAX_LENGTH} characters, or has braces that do not match or are nested too deeply)"
        )
    return text.strip(), text.strip()
