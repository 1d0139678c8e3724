"""Behaviour injection on Countdown (BRIDGE, arXiv 2505.18917, section on injection; here with our own traces).

Supervised traces for the same problems and answers in two styles, to be trained on before reinforcement learning:
"plain" goes straight to the answer; "injected" adds the behaviours that make rollouts teach. All arithmetic is true,
and every trace ends with the right answer.

- exploration: attempts that miss, each noticed as low or high, before the one that hits;
- exploitation: every attempt worked out one operation at a time, and now and then the problem restated before it.

python -m tasks.countdown.bridge --style injected --n 2000 --seed 100 --output data/injected.jsonl
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from tqdm import tqdm

from common.errors import run_cli
from common.files import write_jsonl
from common.flags import OutputLines, check_choices, check_least, check_shares, flag, parse_one
from tasks.countdown.problems import Node, ProblemSpace, draw_distinct, draw_expression, problem_key, prompt, question
from tasks.countdown.warm_start import comparison
from tasks.load import refuse_test_sets

STYLES = ("plain", "injected")
SPLITS = ("train", "validation")  # of which traces may teach
KINDS = ("exploration", "computation", "analysis")


@dataclass
class BridgeOptions:
    """Which traces are written, and where."""

    style: str = flag("injected", "plain (straight to the answer) or injected.")
    n: int = flag(2000, "Traces, each for another problem, 1 or more.")
    seed: int = flag(100, "Seed; both styles get the same problems from the same seed.")
    output: OutputLines = flag("", "File to write, .jsonl. Needed.")
    split: str = flag("train", "Split of the problems: train or validation.")
    p_explore: float = flag(0.6, "injected: chance of one more missed attempt, in [0, 1]; 0 for none.")
    max_attempts: int = flag(6, "injected: most attempts, the hit included, 1 or more.")
    stepwise: bool = flag(True, "injected: work attempts out one operation at a time.")
    p_analysis: float = flag(0.1, "injected: chance that an attempt begins by restating the problem, in [0, 1].")
    max_number: int = flag(15, "Largest given number; 15 and three numbers suit tiny.")
    min_numbers: int = flag(3, "Fewest given numbers, 2 to 6.")
    max_numbers: int = flag(3, "Most given numbers, 2 to 6.")
    max_value: int = flag(99, "Largest intermediate value.")

    def __post_init__(self):
        refuse_test_sets(self)
        check_choices(self, style=STYLES, split=SPLITS)
        check_shares(self, "p_explore", "p_analysis")
        check_least(self, n=1, max_attempts=1)

    @property
    def space(self) -> ProblemSpace:
        """The problems that are drawn."""
        return ProblemSpace(self.min_numbers, self.max_numbers, self.max_number, max_value=self.max_value)


class Trace:
    """A completion in the making: its text, and which spans of it are injected."""

    def __init__(self):
        self.text = ""
        self.spans: list[tuple[int, int, str]] = []

    def add(self, text: str, kind: str | None = None) -> None:
        """Append ``text``; ``kind`` is one of `KINDS` for what a plain trace would not have."""
        if kind is not None and text:
            self.spans.append((len(self.text), len(self.text) + len(text), kind))
        self.text += text


def add_attempt(trace: Trace, expression: Node, target: int, operations: int, stepwise: bool, missed: bool) -> None:
    """One line: the expression, its value (one operation at a time if ``stepwise``), and the comparison."""
    kind = "exploration" if missed else None
    trace.add(expression.render(), kind)
    if stepwise:
        for computed in range(1, operations):
            trace.add(f"={expression.render(computed)}", kind or "computation")
    trace.add(f"={expression.value} {comparison(expression.value, target)}\n", kind)


def misses(numbers: list[int], target: int, count: int, rng: Random, max_value: int) -> list[Node]:
    """At most ``count`` different expressions over all ``numbers`` that do not give ``target``."""
    found: dict[str, Node] = {}
    for _ in range(20 * count):
        if len(found) == count:
            break
        expression = draw_expression(numbers, rng, max_value)
        if expression is not None and expression.value != target:
            found.setdefault(expression.render(), expression)
    return list(found.values())


def build_trace(numbers: list[int], witness: Node, options: BridgeOptions, rng: Random) -> Trace:
    """The trace of one problem in the style of ``options``; the plain one draws nothing from ``rng``."""
    trace, operations, injected = Trace(), len(numbers) - 1, options.style == "injected"
    failed = []
    if injected:
        count = 0
        while count < options.max_attempts - 1 and rng.random() < options.p_explore:
            count += 1
        failed = misses(numbers, witness.value, count, rng, options.max_value)
    trace.add("<think>\n")
    for expression in [*failed, witness]:
        if injected and rng.random() < options.p_analysis:
            trace.add(f"{question(numbers, witness.value)}\n", "analysis")
        add_attempt(
            trace, expression, witness.value, operations, injected and options.stepwise, expression is not witness
        )
    trace.add(f"</think>\n<answer>{witness.render()}</answer>")
    return trace


def rows(options: BridgeOptions) -> Iterator[dict]:
    """``n`` rows: prompt and completion as conversations, numbers, target, answer, and injected character spans.

    Raises `UserError` when there are not that many different problems.
    """

    def refusal(found: int) -> str:
        return (
            f"--n={options.n}: only {found} different problems of this kind exist; lower it, or raise --max_number or "
            "--max_numbers."
        )

    drawn = draw_distinct(options.space, options.split, Random(f"{options.seed}-bridge"), refusal)
    for numbers, witness in islice(drawn, options.n):
        # A generator of its own for each trace, so that both styles go on to the same next problem.
        rng = Random(f"{options.seed}-{problem_key(numbers, witness.value)}")
        trace = build_trace(numbers, witness, options, rng)
        yield {
            "prompt": prompt(numbers, witness.value),
            "completion": [{"role": "assistant", "content": trace.text}],
            "numbers": numbers,
            "target": witness.value,
            "answer": witness.render(),
            "spans": trace.spans,
        }


def summary(traces: list[dict]) -> str:
    """Attempts and injected characters of a trace, on average."""
    counts = Counter()
    for trace in traces:
        text = trace["completion"][0]["content"]
        counts["attempts"] += sum(text.count(f" {word}\n") for word in ("hit", "low", "high"))
        for start, end, kind in trace["spans"]:
            counts[kind] += end - start
    share = ", ".join(f"{kind} {counts[kind] / len(traces):.1f}" for kind in KINDS)
    return f"{counts['attempts'] / len(traces):.2f} attempts each; injected characters each: {share}"


def main() -> None:
    options = parse_one(BridgeOptions)
    traces = list(tqdm(rows(options), total=options.n, desc="traces", leave=False))
    write_jsonl(Path(options.output), traces)
    print(f"{options.n} traces in {options.output}: {summary(traces)}")


if __name__ == "__main__":
    run_cli(main)
