"""Do the rewards of Memory-R rank right answers above wrong ones, by what an answer is compared with?

    python -m benchmarks.memory_read --data model_solutions.jsonl [--bonuses knn+,knn-sent] [--ks 1,20]

Replays answers of several models to the same questions, judged right or wrong, as if they were the completions of one
epoch of training: one group per question, `--questions` groups per batch, each batch scored and then stored. Exploit
and explore are read from the past, or from past and batch with the answer itself left out, on the same batches. The
figure is the share of the (right, wrong) pairs of a group in which the right answer is paid more, ties one half: 0.5
says that the reward does not tell them apart. It is the mean over the questions with right and wrong answers, those of
the first batch left out, as no past is there.

Rows of the file: {"question": ..., MODEL: {"solution": ..., "is_correct": ...}, ...}, the form of OpenAI's model
solutions to GSM8K. The last line of a solution, "A: NUMBER", is not part of what a memory stores.
"""

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import torch
from torch import Tensor

from analysis.results_tables import interval_cell
from benchmarks.cached_encoder import CachedEncoder
from benchmarks.child import exit_on_sigterm
from benchmarks.machine import publish
from common.errors import UserError, run_cli
from common.flags import OutputStem, check_least, flag, parse_one
from common.markdown import markdown_table
from evaluation.metrics import mean_interval
from intrinsic import build_bonus
from intrinsic.knn_memory import READS, MemoryRPlus
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.groups import right_above_wrong
from intrinsic.rollout import Rollout

BONUSES = ("knn+", "knn-sent")  # those with both rewards


@dataclass
class Options:
    """What is replayed."""

    data: str = flag(MISSING, "JSON lines of questions with judged answers.")
    bonuses: str = flag("knn+", f"{' or '.join(BONUSES)}, or both, separated by commas.")
    ks: str = flag("1,20", "Nearest questions read, separated by commas.")
    questions: int = flag(16, "Questions per batch, 1 or more.")
    orders: int = flag(5, "Random orders of the questions, 1 or more.")
    encoder: str = flag("sentence-transformers/all-MiniLM-L6-v2", "Text encoder.")
    output: OutputStem = flag("outputs/memory_read", "Path of the results, without extension.")

    def __post_init__(self):
        check_least(self, questions=1, orders=1)
        if not set(self.bonuses.split(",")) <= set(BONUSES):
            raise UserError(f"--bonuses={self.bonuses!r} must be of {', '.join(BONUSES)}, separated by commas.")
        if not all(k.strip().isdigit() and int(k) > 0 for k in self.ks.split(",")):
            raise UserError(f"--ks={self.ks!r} must be whole numbers above 0, separated by commas.")


class Group(NamedTuple):
    """A question, and answers to it that are right (1.0) or wrong (0.0)."""

    question: str
    answers: list[str]
    correct: list[float]


def read_groups(path: str) -> list[Group]:
    """The groups of a file; raises `UserError` where it is none of the form above."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
        groups = []
        for row in rows:
            judged = [value for value in row.values() if isinstance(value, dict)]
            answers = ["\n".join(item["solution"].strip().splitlines()[:-1]) for item in judged]
            groups.append(Group(row["question"], answers, [float(item["is_correct"]) for item in judged]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"--data={path!r} holds no judged answers ({error!r}); --help shows the form.") from error
    if len({len(group.answers) for group in groups}) != 1 or not groups[0].answers:
        raise UserError(f"--data={path!r} must hold as many answers to each question, and at least one.")
    return groups


def replay(bonus: MemoryRPlus, groups: list[Group], size: int, encode: Callable) -> tuple[dict, float]:
    """part -> {question: share of its pairs in which the right answer is paid more}, and milliseconds of one score."""
    shares, times = {part: {} for part in bonus.part_names}, []
    for start in range(0, len(groups), size):
        batch = groups[start : start + size]
        generations = len(batch[0].answers)
        correct = torch.tensor([value for group in batch for value in group.correct])
        questions = [group.question for group in batch for _ in group.answers]
        answers = [answer for group in batch for answer in group.answers]
        rollout = Rollout(questions, answers, correct, correct, generations, encode=encode)
        bonus.embed(rollout)
        begin = time.perf_counter()
        parts = bonus.score_parts(rollout)
        times.append(1000.0 * (time.perf_counter() - begin))
        bonus.update(rollout)
        if start == 0:
            continue
        for part, values in parts.items():
            for group, paid in zip(batch, values.view(-1, generations), strict=True):
                right = torch.tensor(group.correct)
                if 0 < sum(group.correct) < generations:
                    everywhere = torch.ones(generations, dtype=torch.bool)
                    shares[part][group.question] = right_above_wrong(paid, right, everywhere, generations)
    return shares, median(times)


def measure(options: Options, encode: Callable[[list[str]], Tensor], result: dict) -> None:
    """Add to ``result``, as plain JSON types, "rows": one per bonus, K, reward and number of right answers in the
    group, and "times": one per bonus, K, way of reading and order. Each way of reading is added once it is measured.

    Raises `UserError`, before it encodes anything, for a file of another form, and where no group would count.
    """
    groups = read_groups(options.data)
    mixed = sum(0 < sum(group.correct) < len(group.correct) for group in groups)
    if len(groups) <= options.questions or not mixed:
        raise UserError(
            f"--questions={options.questions} must be below the number of questions in --data, {len(groups)}, and some "
            f"must have right and wrong answers, which {mixed} have."
        )
    right_of = {group.question: int(sum(group.correct)) for group in groups}
    for name in options.bonuses.split(","):
        for k in map(int, options.ks.split(",")):
            found, before = {}, len(result["rows"])
            for read in READS:
                times, shares_of = [], defaultdict(list)
                flags = {"use_ir": name, "k": k, "memory_read": read, "explore_warmup": 0.0}
                for order in range(options.orders):
                    shuffled = random.Random(order).sample(groups, len(groups))
                    bonus = build_bonus(name, IntrinsicOptions(**flags))
                    shares, milliseconds = replay(bonus, shuffled, options.questions, encode)
                    times.append({"bonus": name, "k": k, "read": read, "ms": milliseconds})
                    for part, by_question in shares.items():
                        for question, share in by_question.items():
                            shares_of[part, question].append(share)
                found[read] = shares_of
                result["times"] += times
                result["rows"][before:] = table_rows(name, k, found, right_of)


def table_rows(name: str, k: int, found: dict, right_of: dict[str, int]) -> list[dict]:
    """Rows of one bonus and K: all groups, then those with as many right answers, by reward.

    ``found``: way of reading -> (part, question) -> share in each order; `READS` as far as they were measured.
    """
    rows = []
    for part in ("exploit", "explore"):
        numbers = sorted({right_of[question] for _, question in found["past"]})
        for right in ("any", *numbers):
            row = {"bonus": name, "k": k, "reward": part, "right": right}
            for read, shares in found.items():
                values = [
                    mean(orders)
                    for (kind, question), orders in shares.items()
                    if kind == part and right in ("any", right_of[question])
                ]
                row[read] = mean_interval([[value] for value in values])
            rows.append(row)
    return rows


def table(result: dict) -> str:
    """Markdown: shares with their 95 % intervals, and what reading costs; empty for what was not measured."""
    about = (
        "Share of (right, wrong) pairs of a group in which the right answer is paid more; 95 % interval over "
        f"questions, mean of {result['options']['orders']} order(s)."
    )
    rows = []
    for row in result["rows"]:
        shares = [interval_cell(row[read], 1.0, 3) if read in row else "" for read in READS]
        rows.append([f"`{row['bonus']}`", row["k"], row["reward"], row["right"], row["past"]["n"], *shares])
    by_read = defaultdict(list)
    for row in result["times"]:
        by_read[row["bonus"], row["k"], row["read"]].append(row["ms"])
    times = [
        [f"`{name}`", k, *(_median(by_read[name, k, read]) for read in READS)]
        for name, k in dict.fromkeys((row["bonus"], row["k"]) for row in result["times"])
    ]
    parts = [
        about,
        markdown_table(["bonus", "K", "reward", "right in the group", "questions", *READS], rows),
        "Milliseconds to score one batch, vectors at hand; median over batches, then over orders.",
        markdown_table(["bonus", "K", *READS], times),
    ]
    return "\n\n".join(parts)


def _median(milliseconds: list[float]) -> str:
    return f"{median(milliseconds):.1f}" if milliseconds else ""


def main() -> None:
    exit_on_sigterm()
    options = parse_one(Options)
    result = {"options": asdict(options), "rows": [], "times": []}
    try:
        measure(options, CachedEncoder(options.encoder), result)
    finally:  # what was measured before an interruption is kept
        if result["rows"]:
            publish(options.output, table(result), result)


if __name__ == "__main__":
    run_cli(main)
