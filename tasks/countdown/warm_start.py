"""Countdown traces for supervised warm starts: random attempts, worked out step by step, that hit or give up.

The traces teach skills (a legal attempt, correct arithmetic, noticing a hit, answering with it) and no habit of
search: attempts are drawn at random, may repeat, and half of the traces stop without an answer.
"""

from collections.abc import Iterator
from random import Random

from tasks.countdown.problems import Node, ProblemSpace, draw_expression, draw_problems, question

ATTEMPTS = (1, 2, 3, 4, 5, 6)
ATTEMPT_WEIGHTS = (30, 25, 18, 12, 9, 6)
HIT_RATE = 0.5


def comparison(value: int, target: int) -> str:
    """hit, low or high: what an attempt turned out to be.

    "low" or "high" instead of a bare miss, because order is learnt in hundreds of steps where equality alone took
    thousands and still failed.
    """
    return "hit" if value == target else "low" if value < target else "high"


def attempt(expression: Node, operations: int, target: int) -> str:
    """One worked attempt, ``(7*3)-2=21-2=19 low``: the expression, its value step by step, and the comparison."""
    steps = "=".join(expression.render(computed) for computed in range(operations + 1))
    return f"{steps} {comparison(expression.value, target)}"


def trace(numbers: list[int], witness: Node, rng: Random, max_value: int) -> str:
    """A completion for the problem ``numbers`` -> ``witness.value``: failed attempts, then a hit or nothing."""
    hits = rng.random() < HIT_RATE
    count = rng.choices(ATTEMPTS, ATTEMPT_WEIGHTS)[0]
    tried: list[Node] = []
    while len(tried) < count - hits:
        expression = draw_expression(numbers, rng, max_value)
        if expression is not None and expression.value != witness.value:
            tried.append(expression)
    if hits:
        tried.append(witness)
    lines = [attempt(expression, len(numbers) - 1, witness.value) for expression in tried]
    answer = f"<answer>{witness.render()}</answer>" if hits else ""
    return "<think>\n" + "\n".join(lines) + "\n</think>\n" + answer


def traces(space: ProblemSpace, seed: int) -> Iterator[tuple[str, str]]:
    """Endless (question, completion) pairs over problems of the train split."""
    rng = Random(f"{seed}-traces")
    for numbers, witness in draw_problems(space, "train", rng):
        yield question(numbers, witness.value), trace(numbers, witness, rng, space.max_value)
