"""iGSM problems and rows by seed: each item has a random generator of its own, so that any part can be drawn again."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from datasets import Dataset

from common.errors import UserError, check_choice
from rewards.igsm import MAX_DIGITS, read_integer
from tasks.igsm.problem import Problem, draw_problem, template
from tasks.igsm.space import LARGEST_ANSWER, ProblemSpace
from tasks.igsm.splits import SPLITS, check_split, template_bin
from tasks.load import load_rows, require_columns, row_place, whole_number

PROMPT_STYLES = ("chat", "base")
SYSTEM_PROMPT = (
    "Work out how many things there are. Reason step by step inside <think></think>. Then finish inside "
    "<answer></answer> with one sentence that gives the number as \\boxed{number}."
)
THINKING_OPENED = "<think>\n"
_USER, _ASSISTANT = "\n\nUser: ", "\nAssistant: "
_MOST_DRAWS = 20_000


@dataclass(frozen=True)
class Item:
    """A problem of a data set, with its place there."""

    index: int
    problem: Problem
    template: str
    key: str


def problem_key(problem: Problem) -> str:
    """Identity of a problem: a hash of its text whatever the order of its conditions."""
    *conditions, question = problem.text().split("\n")
    return hashlib.blake2b("\n".join([*sorted(conditions), question]).encode(), digest_size=8).hexdigest()


def draw_item(index: int, space: ProblemSpace, split: str, seed: int, seen: set[str]) -> Item:
    """The problem at ``index``, different from those whose keys are in ``seen``.

    It has a template of ``split`` and, in exact arithmetic, an answer of at most 999 either way. Raises `UserError`
    when `_MOST_DRAWS` draws give none.
    """
    rng = Random(f"{seed}-{split}-{index}")
    op = space.draw_op(rng)
    for _ in range(_MOST_DRAWS):
        problem = draw_problem(op, space, rng)
        if space.op_distribution == "light":
            op = space.draw_op(rng)
        if problem is None or (not space.modulus and abs(problem.answer) > LARGEST_ANSWER):
            continue
        shape = template(problem)
        if template_bin(shape) not in SPLITS[split] or (problem.answer == 0 and rng.random() < space.zero_drop):
            continue
        key = problem_key(problem)
        if key not in seen:
            return Item(index, problem, shape, key)
    raise UserError(
        f"no further iGSM problem of {op} operations and split {split!r} in {_MOST_DRAWS} draws, after {index}; raise "
        "--min_op if that is few operations (they have few templates), lower --max_op or raise --max_edges if many."
    )


def draw_items(
    count: int, space: ProblemSpace, split: str, seed: int, start: int = 0, seen: set[str] | None = None
) -> Iterator[Item]:
    """The items ``start`` to ``count`` - 1, all different; ``seen`` holds the keys of those before ``start``."""
    check_split(split)
    if count < 1:
        raise UserError(f"asked for {count} iGSM problems of split {split!r}; ask for at least 1.")
    seen = set() if seen is None else set(seen)
    for index in range(start, count):
        item = draw_item(index, space, split, seed, seen)
        seen.add(item.key)
        yield item


def describe(item: Item) -> dict:
    """The columns of a problem without prompt and trace."""
    return {
        "question": item.problem.text(),
        "answer": item.problem.answer,
        "op": item.problem.op,
        "modulus": item.problem.modulus,
        "template": item.template,
        "key": item.key,
        "index": item.index,
    }


def generate(count: int, split: str, seed: int, space: ProblemSpace = ProblemSpace()) -> Dataset:
    """``count`` different problems of ``split``; columns question, answer (int), op, modulus, template, key, index."""
    return Dataset.from_list([describe(item) for item in draw_items(count, space, split, seed)])


def load_igsm(source: str | Path) -> Dataset:
    """Rows of a file, folder or hub data set as `tasks.igsm.generate` writes it, or with question and answer alone.

    An answer may be written as a number or a text; the column is int afterwards. Raises `UserError` with the row where
    a question is missing, or an answer is no integer that the grader reads.
    """
    rows = load_rows(source)
    require_columns(rows, ["question", "answer"])
    answers = []
    for index, (question, raw_answer) in enumerate(zip(rows["question"], rows["answer"], strict=True)):
        if not isinstance(question, str) or not question.strip():
            raise UserError(f"{row_place(source, None, index)} has question={question!r}; it must be a text.")
        answer = read_integer(raw_answer if isinstance(raw_answer, str) else str(whole_number(raw_answer)))
        if answer is None:
            raise UserError(
                f"{row_place(source, None, index)} has answer={raw_answer!r}; it must be an integer of at most "
                f"{MAX_DIGITS} digits."
            )
        answers.append(answer)
    return rows.remove_columns("answer").add_column("answer", answers)


def prompt(question: str, style: str = "chat") -> list[dict[str, str]] | str:
    """The prompt of a problem: "chat" is a conversation for an instruct model, "base" a transcript to continue.

    The transcript opens the thinking, so a completion of it begins after ``<think>``.
    """
    check_choice("prompt_style", style, PROMPT_STYLES)
    if style == "chat":
        return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}]
    return f"{SYSTEM_PROMPT}{_USER}{question}{_ASSISTANT}{THINKING_OPENED}"


def question_of(prompt: str | list[dict[str, str]]) -> str:
    """The problem in what `prompt` made of it, in either style."""
    if isinstance(prompt, str):
        return prompt.partition(_USER)[2].rpartition(_ASSISTANT)[0]
    return prompt[-1]["content"]


def worked_example(style: str) -> tuple[dict, str]:
    """(a problem with its prompt, its right answer in the shape asked for), which the check at the start has graded."""
    question = "There are 3 pens in each box. How many pens are in 2 boxes?"
    row = {"prompt": prompt(question, style), "answer": 6}
    return row, "<think>\n2 * 3 = 6\n</think>\n<answer>\nThe final answer is \\boxed{6}.\n</answer>"


def add_prompts(problems: Dataset, style: str) -> Dataset:
    """Rows with the columns that training and evaluation read: prompt, answer, op, template."""
    kept = ("answer", "op", "template")
    return problems.map(
        lambda row: {"prompt": prompt(row["question"], style)},
        remove_columns=[name for name in problems.column_names if name not in kept],
    )
