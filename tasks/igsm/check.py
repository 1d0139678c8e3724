"""Check the generator: does a reader of the text alone find every answer, and how many problems come per second?

python -m tasks.igsm.check --n 1000 --min_op 4 --max_op 25
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from tqdm import tqdm

from common.errors import RunError, run_cli
from common.flags import flag, parse_one
from tasks.igsm.dataset import Item, draw_items
from tasks.igsm.reader import UnreadableProblemError, read_answer
from tasks.igsm.space import ProblemSpace
from tasks.igsm.splits import SPLITS


@dataclass
class CheckOptions:
    """Which problems are checked."""

    n: int = flag(1000, "Problems, 1 or more.")
    seed: int = flag(0, "Seed.")
    split: str = flag("all", f"Templates to take: {', '.join(SPLITS)}.")
    min_op: int = flag(4, "Fewest operations.")
    max_op: int = flag(25, "Most operations.")
    max_edges: int = flag(20, "Most edges of the structure graph, 2 to 28.")
    modulus: int = flag(0, "0 for exact integers, else the modulus.")


def faults(items: Iterable[Item]) -> list[str]:
    """One text for each problem that the reader answers differently, or not at all."""
    found = []
    for item in items:
        text, answer = item.problem.text(), item.problem.answer
        try:
            reading = read_answer(text)
        except UnreadableProblemError as error:
            found.append(f"problem {item.index}: {error}\n{text}")
        else:
            if reading != answer:
                found.append(f"problem {item.index}: answer {answer}, read {reading}\n{text}")
    return found


def main() -> None:
    options = parse_one(CheckOptions)
    space = ProblemSpace(options.min_op, options.max_op, max_edges=options.max_edges, modulus=options.modulus)
    start = time.perf_counter()
    drawn = draw_items(options.n, space, options.split, options.seed)
    items = list(tqdm(drawn, total=options.n, desc="problems", leave=False))
    seconds = time.perf_counter() - start
    found = faults(items)
    print(
        f"{options.n - len(found)} of {options.n} problems of {options.min_op} to {options.max_op} operations answered "
        f"rightly from their text; {options.n / seconds:.0f} drawn per second"
    )
    if found:
        raise RunError(f"{len(found)} problems cannot be read, the first is {found[0]}")


if __name__ == "__main__":
    run_cli(main)
