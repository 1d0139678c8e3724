"""The graders of all tasks by name: (completion text, row) -> `Grade`."""

from collections.abc import Callable

from common.errors import UserError
from rewards.answer import grade_number
from rewards.choice import FIRST_LINE, grade_choice
from rewards.code import grade_code
from rewards.countdown import grade_countdown
from rewards.format import AnswerPlace
from rewards.grade import Grade
from rewards.igsm import grade_igsm, read_integer
from rewards.latex import grade_latex
from rewards.sql.grader import grade_sql

GRADERS: dict[str, Callable[[str, dict], Grade]] = {
    "number": lambda completion, row: grade_number(completion, row["gold"], place=AnswerPlace.of_row(row)),
    "latex": lambda completion, row: grade_latex(completion, row["gold"], place=AnswerPlace.of_row(row)),
    "countdown": lambda completion, row: grade_countdown(completion, row["numbers"], row["target"]),
    "choice": lambda completion, row: grade_choice(completion, row["choices"], row["gold"], row.get(FIRST_LINE, False)),
    "code": grade_code,
    "sql": grade_sql,
    "igsm": lambda completion, row: grade_igsm(completion, _integer(row["gold"])),
}


def _integer(gold: str) -> int:
    value = read_integer(gold)
    if value is None:
        raise UserError(f"the gold answer {gold[:80]!r} is no integer; mend the row.")
    return value
