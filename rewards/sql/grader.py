"""SQL: does the query of a completion have the gold's result, on the database asked about and on hidden ones?"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from common.errors import RunError, UserError
from rewards.format import FormatReward, completion_text, cut_thinking, is_well_formed, last_answer
from rewards.grade import Grade, log_grades
from rewards.sql.rows import digest, loosely_same, same_result
from rewards.sql.runner import Result, runner
from rewards.sql.text import QueryError, continued_query, loose_query, read_query, reads_clock

CONTINUES = "continues_sql"  # column: whether the prompt ends in "SQL:", so that the completion begins with the query
R1_LENGTH = 2_048  # characters from which on SQL-R1 pays no more for length
JUDGED_BY = ("gold", "databases", "tie_groups")  # columns by which a completion is judged


class SqlVerdict(StrEnum):
    """What the query at its place is; `CORRECT` alone makes the medium tier true.

    ACCIDENTAL: the gold's result on the first database, and another one, or none, on a hidden database.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    ACCIDENTAL = "accidental"
    ERROR = "error"
    FORBIDDEN = "forbidden"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    UNPARSABLE = "unparsable"
    MULTIPLE_ANSWERS = "multiple_answers"
    NO_ANSWER = "no_answer"


RAN = (SqlVerdict.CORRECT, SqlVerdict.WRONG, SqlVerdict.ACCIDENTAL)  # verdicts of queries that gave a result


@dataclass(frozen=True)
class SqlGrade(Grade):
    """A grade with one more field.

    Attributes:
        same_set: the query at its place gives the gold's set of rows on the first database, BIRD's execution accuracy:
            order, duplicates and hidden databases do not count.
    """

    same_set: bool = False


def run_query(path: str, sql: str) -> Result:
    """The result of a policy's query. One that reads the clock is forbidden: its verdict would change with the day."""
    if reads_clock(sql):
        return Result(SqlVerdict.FORBIDDEN, [], 0, "reads the clock")
    return runner().run(path, sql)


def gold_result(path: str, gold: str) -> Result:
    """The gold's result. Raises `RunError` where it has none, which loading the rows excludes."""
    result = runner().run(path, gold)
    if result.status != "ok":
        raise RunError(f"the gold query {gold!r} gives {result.status} on {path} ({result.message}); mend the row.")
    return result


def is_right(path: str, sql: str, gold: str, tie_groups: Sequence[int]) -> bool:
    """Whether ``sql`` has the gold's result on the database ``path``, in its order up to ties where the gold sorts."""
    found, target = run_query(path, sql), gold_result(path, gold)
    return found.status == "ok" and found.width == target.width and same_result(found.rows, target.rows, tie_groups)


def grade_sql(completion: str, row: dict) -> SqlGrade:
    """`SqlGrade` of ``completion`` by running its query.

    medium: the query at its place has the gold's result on the first database and on all others. Its place is the one
    answer block outside the thinking, or with ``row["continues_sql"]`` the completion up to a ``;`` or blank line.
    strict: the whole completion has the asked shape too. loose: medium, or `loosely_same` on the first database alone,
    by the query at its place, or, where none stands there, by `loose_query`. The answer is a hash of the result on the
    first database, so that queries which do the same count as the same.

    Args:
        row: gold (a query), databases (paths of files, the one asked about first), tie_groups (one list per database,
            see `same_result`).

    Raises `UserError` where the row names no databases, as the records of an evaluation do not.
    """
    if "databases" not in row:
        raise UserError("records of SQL name no databases, so they cannot be judged again; evaluate the policy again.")
    query, verdict = _placed_query(completion, row.get(CONTINUES, False))
    well_formed = bool(row.get(CONTINUES)) or is_well_formed(completion)
    text = query if query is not None else loose_query(completion)
    if text is None:
        return SqlGrade(False, False, False, None, verdict, well_formed)
    first, gold, ties = row["databases"][0], row["gold"], row["tie_groups"]
    found = run_query(first, text)
    if found.status != "ok":
        verdict = found.status if query is not None else verdict
        return SqlGrade(False, False, False, None, str(verdict), well_formed)
    target, medium = gold_result(first, gold), False
    if query is not None:
        right = is_right(first, query, gold, ties[0])
        hidden = zip(row["databases"][1:], ties[1:], strict=True)
        medium = right and all(is_right(path, query, gold, groups) for path, groups in hidden)
        verdict = SqlVerdict.CORRECT if medium else SqlVerdict.ACCIDENTAL if right else SqlVerdict.WRONG
    loose = medium or (found.width == target.width and loosely_same(found.rows, target.rows))
    same_set = query is not None and found.width == target.width and set(found.rows) == set(target.rows)
    answer = digest(found.rows, ties[0])
    return SqlGrade(medium and well_formed, medium, loose, answer, str(verdict), well_formed, same_set=same_set)


def _placed_query(completion: str, continues: bool) -> tuple[str | None, str]:
    """(the query at its place, "") or (None, the verdict where there is no one query)."""
    try:
        if continues:
            return continued_query(completion), ""
        block = last_answer(cut_thinking(completion))
        if block is None:
            return None, SqlVerdict.NO_ANSWER
        if block.repeated:
            return None, SqlVerdict.MULTIPLE_ANSWERS
        return read_query(block.text), ""
    except QueryError as error:
        return None, str(error)


class SqlReward:
    """TRL reward column "correctness": 1.0 where the query has the gold's results (medium tier), else 0.0.

    Logs verdict and answer of each completion, the share of each verdict, the tiers, ``accidental_share`` (of the
    queries that are right on the first database, those that are wrong on a hidden one), and, per question, how many
    different results and texts its completions have (``distinct_results``, ``distinct_texts``).
    """

    __name__ = "correctness"
    full = 1.0

    def __call__(
        self,
        prompts,
        completions,
        gold,
        databases,
        tie_groups,
        question,
        log_extra=None,
        log_metric=None,
        **columns,
    ) -> list[float]:
        texts = list(map(completion_text, completions))
        grades = grade_batch(texts, gold, databases, tie_groups, columns.get(CONTINUES))
        log_grades(log_extra, log_metric, grades, SqlVerdict)
        if log_metric is not None and grades:
            verdicts = [grade.verdict for grade in grades]
            accidental, correct = map(verdicts.count, (SqlVerdict.ACCIDENTAL, SqlVerdict.CORRECT))
            log_metric("accidental_share", accidental / max(1, accidental + correct))
            log_metric("distinct_results", distinct_per_question(question, [grade.answer for grade in grades]))
            log_metric("distinct_texts", distinct_per_question(question, texts))
        return [float(grade.medium) for grade in grades]


class ExecutesReward:
    """TRL reward column "executes": 1.0 where the query gives a result on the first database, whatever it is."""

    __name__ = "executes"
    full = 1.0

    def __call__(self, prompts, completions, gold, databases, tie_groups, **columns) -> list[float]:
        texts = map(completion_text, completions)
        return [
            float(grade.verdict in RAN)
            for grade in grade_batch(texts, gold, databases, tie_groups, columns.get(CONTINUES))
        ]


class SqlR1Reward:
    """TRL reward column "sql_r1": the reward of SQL-R1 (arXiv 2504.08600) in steps, for comparison.

    The asked shape pays 1, else -1 and nothing more; a query that runs 2, else -2 and nothing more; the gold's result
    3, else -3; and where it is right min(characters of thinking and answer / 2,048, 1) / 2 + characters of the query /
    characters of the answer block. As there, the first database alone decides. Queries are compared as this project
    does: its removal of DISTINCT and its joining of lines, in which a comment swallows what follows, are not copied.
    """

    __name__ = "sql_r1"
    full = 6.0  # without the part for length

    def __call__(self, prompts, completions, gold, databases, tie_groups, **columns) -> list[float]:
        texts = list(map(completion_text, completions))
        return list(map(self._paid, texts, grade_batch(texts, gold, databases, tie_groups, None)))

    def _paid(self, text: str, grade: SqlGrade) -> float:
        if not grade.well_formed:
            return -1.0
        if grade.verdict not in RAN:
            return 1.0 - 2.0
        if grade.verdict == SqlVerdict.WRONG:
            return 1.0 + 2.0 - 3.0
        block = last_answer(cut_thinking(text)).text
        return self.full + min(len(text) / R1_LENGTH, 1) / 2 + len(read_query(block)) / len(block)


def grade_batch(texts, gold, databases, tie_groups, continues: Sequence[bool] | None) -> list[SqlGrade]:
    """The grade of each completion; queries and results that the runner holds are not run again."""
    rows = zip(gold, databases, tie_groups, strict=True)
    at_start = continues or [False] * len(gold)
    return [
        grade_sql(text, dict(zip(JUDGED_BY, row, strict=True)) | {CONTINUES: start})
        for text, row, start in zip(texts, rows, at_start, strict=True)
    ]


def distinct_per_question(questions: Sequence[str], values: Sequence[str | None]) -> float:
    """Mean over questions of their different values; None is none."""
    found: dict[str, set] = {question: set() for question in questions}
    for question, value in zip(questions, values, strict=True):
        if value is not None:
            found[question].add(value)
    return sum(map(len, found.values())) / len(found)


def sql_rewards(continues: bool, sql_r1: bool = False) -> list:
    """The reward columns of SQL, correctness first; a query behind ``SQL:`` has no tags to pay for."""
    if sql_r1:
        return [SqlReward(), SqlR1Reward()]
    return [SqlReward(), ExecutesReward()] if continues else [SqlReward(), ExecutesReward(), FormatReward()]
