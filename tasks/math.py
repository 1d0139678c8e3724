"""Word problems and mathematics: rows of question and gold answer from GSM8K, SVAMP, MATH and data sets like them.

Every loader gives the columns id (row index in the source), question, gold and gold_text. ``gold`` is what graders
compare with; ``gold_text`` is the answer as the source writes it.
"""

from collections.abc import Callable, Iterable

from datasets import Dataset

from rewards.answer import last_box
from rewards.number import parse_number
from tasks.load import load_rows, require_columns
from training.errors import UserError

GSM8K, SVAMP, MATH_500 = "openai/gsm8k", "ChilleD/SVAMP", "HuggingFaceH4/MATH-500"
NUMINA = "AI-MO/NuminaMath-TIR"
_HUB_CONFIGS = {GSM8K: "main"}
_GSM8K_MARK = "####"
_BOXED = "\\boxed"


class GoldError(ValueError):
    """A row's gold answer cannot be read; says why."""


def load_gsm8k(source: str = GSM8K, split: str | None = "train") -> Dataset:
    """Rows of GSM8K or of a source shaped like it: question, and an answer that ends in ``#### <number>``.

    Raises `UserError` with the row index where the mark or the number is missing.
    """
    rows = _load(source, split, ["question", "answer"])
    return _build(source, rows["question"], rows["answer"], _gsm8k_gold)


def load_svamp(source: str = SVAMP, split: str | None = "test") -> Dataset:
    """Rows of SVAMP: Body and Question joined, and a numeric Answer. Raises `UserError` as `load_gsm8k` does."""
    rows = _load(source, split, ["Body", "Question", "Answer"])
    questions = [
        f"{body.strip().removesuffix('.')}. {question.strip()}"
        for body, question in zip(rows["Body"], rows["Question"], strict=True)
    ]
    return _build(source, questions, map(str, rows["Answer"]), _number_gold)


def load_math(source: str = MATH_500, split: str | None = None) -> Dataset:
    """Rows with LaTeX or plain answers: columns question or problem, and answer or solution.

    Without an answer column the gold is the content of the last ``\\boxed{...}`` of the solution, as in
    NuminaMath-TIR and MATH. Raises `UserError` with the row index where a gold is missing.
    """
    rows = _load(source, split, [])
    question = "question" if "question" in rows.column_names else "problem"
    answer = "answer" if "answer" in rows.column_names else "solution"
    require_columns(rows, [question, answer])
    gold = _plain_gold if answer == "answer" else _boxed_gold
    return _build(source, rows[question], map(str, rows[answer]), gold)


def _load(source: str, split: str | None, columns: list[str]) -> Dataset:
    rows = load_rows(source, split, _HUB_CONFIGS.get(source))
    require_columns(rows, columns)
    return rows


def _build(source: str, questions: Iterable, answers: Iterable, gold: Callable[[str], tuple[str, str]]) -> Dataset:
    built = []
    for index, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        try:
            value, text = gold(answer)
        except GoldError as error:
            raise UserError(f"row {index} of {str(source)!r} {error}; mend or remove the row.") from None
        built.append({"id": index, "question": question, "gold": value, "gold_text": text})
    return Dataset.from_list(built)


def _gsm8k_gold(answer: str) -> tuple[str, str]:
    _, mark, text = answer.rpartition(_GSM8K_MARK)
    if not mark:
        raise GoldError(f"has no {_GSM8K_MARK} before its final answer: {answer[-60:]!r}")
    return _number_gold(text)


def _number_gold(text: str) -> tuple[str, str]:
    value = parse_number(text)
    if value is None:
        raise GoldError(f"has the gold answer {text.strip()[:60]!r}, which is not a number")
    return str(value), text.strip()


def _plain_gold(text: str) -> tuple[str, str]:
    if not text.strip():
        raise GoldError("has an empty answer")
    return text.strip(), text.strip()


def _boxed_gold(solution: str) -> tuple[str, str]:
    boxed = last_box(solution)
    if not boxed:
        # MATH has a few solutions with \boxed 2, which its authors read up to the end of the formula.
        unbraced = solution.rpartition(f"{_BOXED} ")[2] if f"{_BOXED} " in solution else ""
        boxed = unbraced.partition("$")[0].strip()
    if not boxed:
        raise GoldError(f"has no {_BOXED}{{...}} in its solution: {solution[-60:]!r}")
    return boxed, boxed
