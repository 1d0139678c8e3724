"""Countdown: combine the given numbers, each exactly once, with + - * / to reach the target.

Problems are built from a random expression, so each is solvable. Two problems are the same when their sorted
numbers and target agree, and a hash of that key decides the split: train, validation and test never overlap,
whatever the seeds and settings.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from random import Random

from datasets import Dataset

from common.errors import UserError, check_choice, check_number
from tasks.countdown.approaches import MOST_NUMBERS, has_approaches
from tasks.distinct import distinct
from tasks.load import SEPARATORS, load_rows, require_columns, row_place, whole_number

SPLITS = {"train": range(0, 80), "validation": range(80, 90), "test": range(90, 100)}
PROMPT_STYLES = ("chat", "base")
SYSTEM_PROMPT = (
    "You are given some numbers and a target. Write one arithmetic expression that uses every number exactly once, "
    "with + - * / and brackets, and equals the target. Reason inside <think></think>, then put only the expression "
    "inside <answer></answer>."
)
_WRITTEN_LIST = re.compile(r"\[?\s*([0-9]+(?:(?:\s*,\s*|\s+)[0-9]+)*)\s*\]?")
_MAX_FRUITLESS_DRAWS = 50_000
_MAX_REJECTED_DRAWS = 500_000
_MOST_DIGITS = 15  # of a number in a file, which a float holds exactly


@dataclass(frozen=True)
class Node:
    """An arithmetic expression: a number (``op`` empty) or ``left op right``; ``order`` is when it is computed."""

    value: int
    op: str = ""
    left: "Node | None" = None
    right: "Node | None" = None
    order: int = 0

    def render(self, computed: int = 0, outermost: bool = True) -> str:
        """Text of the expression in which the first ``computed`` operations are already replaced by their values."""
        if not self.op or self.order <= computed:
            return str(self.value)
        text = f"{self.left.render(computed, False)}{self.op}{self.right.render(computed, False)}"
        return text if outermost else f"({text})"


@dataclass(frozen=True)
class ProblemSpace:
    """Which problems are drawn: how many numbers, their range, the range of target and intermediate values.

    And the least number of different right `approaches`, 1 for all that are drawn, which are solvable.
    """

    min_numbers: int = 3
    max_numbers: int = 4
    max_number: int = 99
    min_target: int = 10
    max_target: int = 99
    max_value: int = 9999
    min_approaches: int = 1

    def __post_init__(self):
        if not 2 <= self.min_numbers <= self.max_numbers <= 6:
            raise UserError(
                f"--min_numbers={self.min_numbers} --max_numbers={self.max_numbers}: need 2 <= min <= max <= 6."
            )
        if not 1 <= self.max_number <= self.max_value:
            raise UserError(f"--max_number={self.max_number} must lie in 1..{self.max_value}.")
        if not 1 <= self.min_target <= self.max_target <= self.max_value:
            raise UserError(
                f"--min_target={self.min_target} --max_target={self.max_target}: "
                f"need 1 <= min <= max <= {self.max_value}."
            )
        check_number("min_approaches", self.min_approaches, least=1)
        if self.min_approaches > 1 and self.max_numbers > MOST_NUMBERS:
            raise UserError(
                f"--min_approaches={self.min_approaches} --max_numbers={self.max_numbers}: approaches are counted for "
                f"at most {MOST_NUMBERS} numbers; lower --max_numbers, or leave --min_approaches at 1."
            )

    def __str__(self) -> str:
        """As flags."""
        return " ".join(f"--{item.name}={getattr(self, item.name)}" for item in fields(self))

    def holds(self, numbers: list[int], target: int) -> bool:
        """Whether a solvable problem lies in the range of targets and has enough approaches."""
        if not self.min_target <= target <= self.max_target:
            return False
        return self.min_approaches == 1 or has_approaches(tuple(sorted(numbers)), target, self.min_approaches)

    @property
    def draw_cost(self) -> int:
        """By how many times fewer draws a search is given up; counting approaches takes far longer than a draw."""
        return 1 if self.min_approaches == 1 else 10

    def draw_numbers(self, rng: Random) -> list[int]:
        """A random multiset of numbers in random order."""
        count = rng.randint(self.min_numbers, self.max_numbers)
        return [rng.randint(1, self.max_number) for _ in range(count)]


def apply(op: str, a: int, b: int) -> int | None:
    """``a op b`` if the result is a non-negative integer, else None."""
    if op == "+":
        return a + b
    if op == "*":
        return a * b
    if op == "-":
        return a - b if a >= b else None
    return a // b if b and a % b == 0 else None


def draw_expression(numbers: list[int], rng: Random, max_value: int) -> Node | None:
    """A random expression over all ``numbers`` whose every intermediate value lies in 0..``max_value``.

    Two random entries are joined by a random operation that is legal for them until one is left; None when a
    pair has no legal operation.
    """
    nodes = [Node(number) for number in numbers]
    for order in range(1, len(numbers)):
        left = nodes.pop(rng.randrange(len(nodes)))
        right = nodes.pop(rng.randrange(len(nodes)))
        values = {op: apply(op, left.value, right.value) for op in "+-*/"}
        legal = [op for op, value in values.items() if value is not None and value <= max_value]
        if not legal:
            return None
        op = rng.choice(legal)
        nodes.append(Node(values[op], op, left, right, order))
    return nodes[0]


def problem_key(numbers: list[int], target: int) -> str:
    """Identity of a problem: sorted numbers and target."""
    return f"{','.join(map(str, sorted(numbers)))}={target}"


def split_of(numbers: list[int], target: int) -> str:
    """The split a problem belongs to, by the hash of its key."""
    digest = hashlib.blake2b(problem_key(numbers, target).encode(), digest_size=8).digest()
    bucket = int.from_bytes(digest, "big") % 100
    return next(name for name, buckets in SPLITS.items() if bucket in buckets)


def of_split(problems: Dataset, split: str) -> Dataset:
    """The rows of ``problems`` (columns numbers, target) that belong to ``split``, in their order."""
    rows = enumerate(zip(problems["numbers"], problems["target"], strict=True))
    return problems.select([index for index, (numbers, target) in rows if split_of(numbers, target) == split])


def draw_problems(space: ProblemSpace, split: str, rng: Random) -> Iterator[tuple[list[int], Node]]:
    """Endless (numbers, witness expression) of one split, repetitions possible.

    Raises `UserError` when the space seems to hold none.
    """
    rejected, most = 0, _MAX_REJECTED_DRAWS // space.draw_cost
    while rejected < most:
        rejected += 1
        numbers = space.draw_numbers(rng)
        witness = draw_expression(numbers, rng, space.max_value)
        if witness is None or split_of(numbers, witness.value) != split:
            continue
        if space.holds(numbers, witness.value):
            rejected = 0
            yield numbers, witness
    raise UserError(
        f"{space}: no problem of the split {split!r} in {rejected} draws; raise --max_numbers or --max_number, or "
        "lower --min_target or --min_approaches."
    )


def draw_distinct(
    space: ProblemSpace, split: str, rng: Random, refusal: Callable[[int], str]
) -> Iterator[tuple[list[int], Node]]:
    """`draw_problems` without repetitions.

    Raises `UserError` when the space seems to hold no more; ``refusal``, given how many it holds, is what it says.
    """
    draws = draw_problems(space, split, rng)
    most = _MAX_FRUITLESS_DRAWS // space.draw_cost
    return distinct(draws, lambda drawn: problem_key(drawn[0], drawn[1].value), most, refusal)


def generate(count: int, split: str, seed: int, space: ProblemSpace = ProblemSpace()) -> Dataset:
    """``count`` distinct problems of ``split`` with columns numbers, target, solution.

    Raises `UserError` when the space does not hold that many distinct problems.
    """
    if count < 1:
        raise UserError(f"asked for {count} Countdown problems of split {split!r}; ask for at least 1.")

    def refusal(found: int) -> str:
        return (
            f"asked for {count} Countdown problems of split {split!r}, but only {found} distinct ones exist with "
            f"{space}; ask for fewer (--train_problems, --eval_problems), or raise --max_number or --max_numbers, or "
            "lower --min_approaches."
        )

    drawn = islice(draw_distinct(space, split, Random(f"{seed}-{split}"), refusal), count)
    return Dataset.from_list(
        [{"numbers": numbers, "target": witness.value, "solution": witness.render()} for numbers, witness in drawn]
    )


def question(numbers: list[int], target: int) -> str:
    """The problem as one line of text."""
    return f"Numbers: {' '.join(map(str, numbers))}. Target: {target}."


def prompt(numbers: list[int], target: int, style: str = "chat") -> list[dict[str, str]] | str:
    """The prompt of a problem: "chat" is a conversation for an instruct model, "base" a transcript to continue."""
    check_choice("prompt_style", style, PROMPT_STYLES)
    if style == "chat":
        return [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": question(numbers, target)},
        ]
    return f"{SYSTEM_PROMPT}\n\nUser: {question(numbers, target)}\nAssistant: <think>"


def worked_example(style: str) -> tuple[dict, str]:
    """(a problem with its prompt, its right answer in the shape asked for), which the check at the start has graded."""
    numbers, target = [2, 3, 4], 24
    row = {"prompt": prompt(numbers, target, style), "numbers": numbers, "target": target}
    return row, "<think>2*3=6 6*4=24</think>\n<answer>2*3*4</answer>"


def with_parts(problems: Dataset) -> Dataset:
    """``problems`` with a column part, "3_numbers", by which evaluations report; as they are where all have as many."""
    counts = [len(numbers) for numbers in problems["numbers"]]
    if len(set(counts)) < 2:
        return problems
    return problems.add_column("part", [f"{count}_numbers" for count in counts])


def add_prompts(problems: Dataset, style: str) -> Dataset:
    """Rows with the columns that training and evaluation read: prompt, numbers, target, and part where it is there."""
    return problems.map(
        lambda row: {"prompt": prompt(row["numbers"], row["target"], style)},
        remove_columns=[name for name in problems.column_names if name not in ("numbers", "target", "part")],
    )


def load_countdown(source: str | Path, split: str | None = None) -> Dataset:
    """Distinct Countdown problems of ``source``: columns numbers (list of int) and target (int), in file order.

    The numbers may also be in a column "nums", as in TinyZero's hub datasets, and written out, as "3 5 8" or
    "[3, 5, 8]", in a csv file. Problems with equal sorted numbers and
    target are the same; later ones are dropped and their count printed. Raises `UserError` with the row index when
    numbers are not integers of 0 or more (the scorer reads no signed numbers), or the target is not an integer.
    """
    rows = load_rows(source, split)
    column, _ = require_columns(rows, [("numbers", "nums"), "target"])
    is_text = Path(source).suffix.lower() in SEPARATORS
    problems: dict[str, dict] = {}
    for index, (raw_numbers, raw_target) in enumerate(zip(rows[column], rows["target"], strict=True)):
        if is_text:
            numbers, targets = _written_integers(raw_numbers), _written_integers(raw_target) or []
            target = targets[0] if len(targets) == 1 else None
        else:
            numbers, target = _integers(raw_numbers), whole_number(raw_target)
        if not numbers or min(numbers) < 0:
            raise UserError(
                f"{row_place(source, split, index)} has {column}={raw_numbers!r}; they must be a list of integers >= 0."
            )
        if target is None:
            shown = repr(raw_target)[:80]
            raise UserError(f"{row_place(source, split, index)} has target={shown}; it must be an integer.")
        problems.setdefault(problem_key(numbers, target), {"numbers": numbers, "target": target})
    if len(problems) < len(rows):
        print(f"dropped {len(rows) - len(problems)} of {len(rows)} Countdown problems that repeat an earlier one")
    return Dataset.from_list(list(problems.values()))


def _integers(values) -> list[int] | None:
    """``values`` as a list of ints, or None if it is not a list of whole numbers."""
    if not isinstance(values, list):
        return None
    integers = [whole_number(value) for value in values]
    return None if None in integers else integers


def _written_integers(text: str) -> list[int] | None:
    """The integers of a cell such as "3 5 8" or "[3, 5, 8]", or None."""
    written = _WRITTEN_LIST.fullmatch(text.strip())
    found = re.findall("[0-9]+", written[1]) if written else None
    return None if found is None or any(len(digits) > _MOST_DIGITS for digits in found) else list(map(int, found))
