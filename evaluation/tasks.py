"""The tasks that run_eval.py knows: where each one's rows come from, how it asks, and how it is judged."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

from datasets import Dataset

from common.errors import UserError, check_choice
from evaluation.options import OF_GRADER, EvalOptions
from rewards.grade import Grade
from rewards.graders import GRADERS
from tasks.choice import problems as choice
from tasks.choice import prompts as choice_prompts
from tasks.code import problems as code
from tasks.code import prompts as code_prompts
from tasks.countdown import problems as countdown
from tasks.countdown.problems import load_countdown
from tasks.igsm import dataset as igsm
from tasks.igsm.solution import grade_solution
from tasks.igsm.space import TINY, ProblemSpace
from tasks.load import local_path
from tasks.math import problems as math
from tasks.math.prompts import add_prompts, check_prompt
from tasks.sql import problems as sql
from tasks.sql import prompts as sql_prompts
from tasks.sql.tiny import problems as sql_tiny

CODE_TOKENS = 1024
CHOICE_TOKENS = 512  # reasoning and a letter
SQL_TOKENS = 1024
SQL_TINY_TOKENS = 96  # the longest gold of the small world has 60 in a tokenizer of its words
GENERATED_PROMPTS = {"reasoning": "chat", "plain": "base"}


@dataclass(frozen=True)
class EvalTask:
    """One task.

    Attributes:
        source, split: the default data; a hub name, or "generate" (the split of igsm is then a range of operations).
        load: (source, split) -> rows with columns question and gold, or numbers and target; of multiple choice choices
            too, of code question, test and entry_point or io, of SQL databases too.
        check_prompts: (prompt type, shots) -> None, or `UserError` where the task has no such prompts.
        add_prompts: (rows, prompt type, shots, seed) -> rows with a column prompt; of SQL (..., schema_values=) too.
        grader: name in `rewards.graders.GRADERS`.
        max_new_tokens: default limit of a completion.
        shots_split: split of the same data with the solved questions of ``--num_shots``; None where the worked examples
            are our own or there are none.
    """

    source: str
    split: str | None
    load: Callable[[str, str | None], Dataset]
    check_prompts: Callable[[str, int], None]
    add_prompts: Callable[..., Dataset]
    grader: str
    max_new_tokens: int
    shots_split: str | None = None

    @property
    def grade(self) -> Callable[[str, dict], Grade]:
        """(completion, row) -> `Grade`, with the approach where the task has a normal form of it."""
        return grade_solution if self.grader == "igsm" else GRADERS[self.grader]


# As in configs/countdown_tiny.yaml and configs/countdown.yaml.
COUNTDOWN_SPACES = {
    "tiny": countdown.ProblemSpace(min_numbers=3, max_numbers=3, max_number=15, max_value=99),
    "full": countdown.ProblemSpace(),
}


def _load_countdown(source: str, split: str | None) -> Dataset:
    """Test problems, on which run_countdown.py neither trains a policy nor chooses the best one.

    Of generated problems ``split`` is "tiny" (default), those of the embedded policy, "full", those of any other, or
    how many numbers are given, such as "2" or "3-4", with numbers and values as of "full".
    Rows of a file or hub data set are those of its test part, by the hash that run_countdown.py splits it by, or all
    rows of ``split`` where it is given. Raises `UserError` when the test part is empty.
    """
    if source != "generate":
        rows = load_countdown(source, split)
        return rows if split else _test_part(rows, source)
    return countdown.generate(512, "test", 0, _countdown_space(split or "tiny"))


def _countdown_space(split: str) -> countdown.ProblemSpace:
    if split in COUNTDOWN_SPACES:
        return COUNTDOWN_SPACES[split]
    fewest, dash, most = split.partition("-")
    try:
        return countdown.ProblemSpace(int(fewest), int(most if dash else fewest))
    except (ValueError, UserError):
        raise UserError(
            f"--split={split!r}: of generated Countdown use {' or '.join(COUNTDOWN_SPACES)}, or 2 to 6 numbers, such "
            "as 2 or 3-4."
        ) from None


def _test_part(problems: Dataset, source: str) -> Dataset:
    rows = countdown.of_split(problems, "test")
    hint = "--split=train takes all of a file or of a hub data set's training split"
    if not len(rows):
        raise UserError(f"none of the {len(problems)} problems of {source!r} is in its test part (10 of 100); {hint}.")
    print(
        f"{len(rows)} of {len(problems)} problems of {source}: the part kept from run_countdown.py; {hint}", flush=True
    )
    return rows


def _check_generated_prompts(task: str, prompt_type: str, num_shots: int) -> None:
    if num_shots:
        raise UserError(f"--num_shots={num_shots}: {task} has no worked examples; use 0.")
    if prompt_type not in GENERATED_PROMPTS:
        raise UserError(f"--prompt_type={prompt_type!r} does not go with {task}; use {', '.join(GENERATED_PROMPTS)}.")


_check_countdown_prompts = partial(_check_generated_prompts, "Countdown")
_check_igsm_prompts = partial(_check_generated_prompts, "iGSM")


def _add_countdown_prompts(rows: Dataset, prompt_type: str, num_shots: int, seed: int) -> Dataset:
    _check_countdown_prompts(prompt_type, num_shots)
    return countdown.add_prompts(countdown.with_parts(rows), GENERATED_PROMPTS[prompt_type])


def _load_igsm(source: str, split: str | None) -> Dataset:
    """Rows of a file (question and answer), or generated test problems of the ``split`` that `_igsm_space` reads."""
    if source != "generate":
        rows = igsm.load_igsm(source)
        return rows.map(lambda row: {"gold": str(row["answer"])}, remove_columns=["answer"])
    problems = igsm.generate(500, "test", 0, _igsm_space(split))
    return problems.map(lambda row: {"gold": str(row["answer"])}, remove_columns=["answer"])


def _igsm_space(split: str) -> ProblemSpace:
    """Of "21-25": so many operations; "tiny": what the embedded policy trains on; "tiny:5-6": such, but longer."""
    kind, colon, operations = split.rpartition(":")
    if split == "tiny":
        return TINY
    low, dash, high = operations.partition("-")
    if not (dash and low.isdecimal() and high.isdecimal()) or (colon and kind != "tiny"):
        raise UserError(
            f"--split={split!r} of igsm must be a range of operations, such as 15-20, or tiny, or tiny:5-6."
        )
    return replace(TINY if colon else ProblemSpace(), min_op=int(low), max_op=int(high))


def _add_igsm_prompts(rows: Dataset, prompt_type: str, num_shots: int, seed: int) -> Dataset:
    _check_igsm_prompts(prompt_type, num_shots)
    style = GENERATED_PROMPTS[prompt_type]
    return rows.map(lambda row: {"prompt": igsm.prompt(row["question"], style)})


def _choice(source: str, part: str, shots_split: str) -> EvalTask:
    load = partial(choice.load_choice, part=part)
    check, add = choice_prompts.check_prompt, choice_prompts.add_prompts
    return EvalTask(source, "test", load, check, add, "choice", CHOICE_TOKENS, shots_split)


def _code(source: str) -> EvalTask:
    return EvalTask(
        source, "test", code.load_code, code_prompts.check_prompt, code_prompts.add_prompts, "code", CODE_TOKENS
    )


def _sql(source: str) -> EvalTask:
    return EvalTask(source, "test", sql.load_sql, sql_prompts.check_prompt, sql_prompts.add_prompts, "sql", SQL_TOKENS)


TASKS = {
    "gsm8k": EvalTask(math.GSM8K, "test", math.load_gsm8k, check_prompt, add_prompts, "number", 512),
    "math500": EvalTask(math.MATH_500, "test", math.load_math, check_prompt, add_prompts, "latex", 2048),
    "svamp": EvalTask(math.SVAMP, "test", math.load_svamp, check_prompt, add_prompts, "number", 512),
    "countdown": EvalTask(
        "generate", None, _load_countdown, _check_countdown_prompts, _add_countdown_prompts, "countdown", 128
    ),
    "igsm": EvalTask("generate", "15-20", _load_igsm, _check_igsm_prompts, _add_igsm_prompts, "igsm", 2048),
    "arc_challenge": _choice(choice.ARC, choice.CHALLENGE, "validation"),
    "arc_easy": _choice(choice.ARC, choice.EASY, "validation"),
    "mmlu": _choice(choice.MMLU, choice.ALL, "dev"),
    "humaneval": _code(code.HUMANEVAL),
    "mbpp": _code(code.MBPP),
    "spider": _sql(sql.SPIDER),
    "bird": _sql(sql.BIRD),
    "sql_tiny": EvalTask(
        sql_tiny.NAME,
        "test",
        sql_tiny.load_test,
        sql_prompts.check_prompt,
        sql_tiny.add_prompts,
        "sql",
        SQL_TINY_TOKENS,
    ),
    "math": EvalTask(math.NUMINA, "test", math.load_math, check_prompt, add_prompts, "latex", 2048),
}


def eval_task(name: str) -> EvalTask:
    """The task of that name; raises `UserError` with the known ones."""
    check_choice("task", name, TASKS)
    return TASKS[name]


def checked_task(options: EvalOptions) -> EvalTask:
    """The task of ``options``. Raises `UserError` where it has no such prompts, or other flags are another kind's."""
    task = eval_task(options.task)
    task.check_prompts("plain" if options.rank else options.prompt_type, options.num_shots)
    for name in ("circular", "rank"):
        if getattr(options, name) and (task.grader != "choice" or options.backend != "native"):
            known = ", ".join(task for task, kind in TASKS.items() if kind.grader == "choice")
            raise UserError(f"--{name} is for multiple choice alone, with --backend=native; use a --task of {known}.")
    for grader, names in OF_GRADER.items():
        for item in fields(EvalOptions):
            if item.name in names and task.grader != grader and getattr(options, item.name) != item.default:
                known = ", ".join(name for name, kind in TASKS.items() if kind.grader == grader)
                raise UserError(
                    f"--{item.name}={getattr(options, item.name)} is for {known}, and not for --task={options.task}; "
                    "leave it out."
                )
    return task


def _sql_rows(source: str, split: str, options: EvalOptions) -> Dataset:
    """Rows judged on the published databases of other rows where there are any, else on made ones."""
    if options.task == sql_tiny.NAME:
        if options.databases:
            raise UserError(f"--databases={options.databases!r}: {sql_tiny.NAME} makes its own; leave it out.")
        return sql_tiny.load_test(source, split, options.hidden_databases)
    return sql.load_sql(
        source, split, options.databases, options.hidden_databases, options.skip_bad_golds, use_suite=True
    )


def with_prompts(task: EvalTask, rows: Dataset, options: EvalOptions) -> Dataset:
    """``rows`` with a column prompt."""
    shown = {"schema_values": options.schema_values} if task.grader == "sql" else {}
    return task.add_prompts(rows, options.prompt_type, options.num_shots, options.seed, **shown)


def load_rows(task: EvalTask, options: EvalOptions) -> Dataset:
    """The first ``--limit`` rows, each in all rotations of its options with ``--circular``.

    With ``--num_shots`` those of multiple choice have a column shots, see `tasks.choice.problems.with_shots`.
    """
    source, split = options.data or task.source, options.split or task.split
    if task.grader == "sql":
        rows = _sql_rows(source, split, options)
    elif task.grader == "code":
        rows = code.load_code(source, split, options.show_tests)
    else:
        rows = task.load(source, split)
    rows = rows.select(range(min(options.limit or len(rows), len(rows))))
    if options.num_shots and task.shots_split:
        if local_path(source).is_file():
            raise UserError(
                f"--num_shots={options.num_shots}: the examples are of the split {task.shots_split!r} and the file "
                f"{source!r} has none; give a folder with that split too, or --num_shots=0."
            )
        solved = task.load(source, task.shots_split)
        rows = choice.with_shots(rows, solved, options.num_shots, options.seed)
    return choice.all_rotations(rows) if options.circular else rows
