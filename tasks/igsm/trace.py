"""Worked solutions of iGSM problems, plain or with the behaviours that BRIDGE (arXiv 2505.18917) injects.

A trace computes the necessary quantities one after the other, each under a letter of its own, and ends with the boxed
answer. Injected behaviours, all of them true statements:

- exploration: a quantity is attempted ahead of its turn. If something it needs is missing, the trace names what, and
  goes back; if nothing is, it is computed early, or in vain where the answer does not need it.
- exploitation, computation: the arithmetic is written out one operation at a time.
- exploitation, analysis: the condition of a quantity is restated before it is computed.
"""

import string
from dataclasses import dataclass
from random import Random

from common.errors import check_number
from tasks.igsm.dependency import Quantity
from tasks.igsm.problem import Problem, listed

KINDS = ("exploration", "computation", "analysis")
ANALYSIS_LEVELS = (
    (0.0,),
    (0.0, 0.0, 0.1, 0.4, 0.8, 1.0),
    (0.0, 0.1, 0.4, 0.8, 1.0),
    (0.0, 0.4, 0.8, 1.0),
    (0.0, 1.0),
)
"""Level -> chance of an analysis by the number of parents, the constant counted; the last stands for all above it."""
_REDUNDANT_SHARE = 0.3  # of the attempts ahead of their turn
_ANNOUNCE_SHARE = 0.5  # of the steps that announce a quantity and name it in a second sentence

_OPENING = "I work out one quantity after the other."
_GIVEN = ("One condition gives the number of ", "It is stated that the number of ")
_GIVEN_END = (" directly: it is {value}.", " equals {value}.")
_LETTER = ("I write {letter} for it.", "Its letter is {letter}.", "Call it {letter}.")
_ANNOUNCE = ("Next comes the number of ", "I turn to the number of ")
_NAMED_BEFORE = ("It already has the letter {letter}.",)
_COMBINED = (
    ("Let {letter} stand for the number of ", "."),
    ("Write {letter} for the number of ", "."),
    ("With {letter} I denote the number of ", "."),
)
_ANALYSIS = " By its condition it equals {definition}."
_MISSING = (
    " This needs the number of {names}, not known so far, so it has to wait.",
    " But the number of {names} is still open, and I return to this later.",
    " I cannot finish it yet: the number of {names} is missing.",
)


@dataclass(frozen=True)
class Behaviours:
    """What is injected into a trace.

    Attributes:
        p_reflect: chance, before each step but the first and the last, of an attempt ahead of its turn.
        analysis_level: row of `ANALYSIS_LEVELS`, 0 for none, 2 in BRIDGE.
        stepwise: write the arithmetic out one operation at a time.
    """

    p_reflect: float = 0.1
    analysis_level: int = 2
    stepwise: bool = True

    def __post_init__(self):
        check_number("p_reflect", self.p_reflect, least=0, most=1)
        check_number("analysis_level", self.analysis_level, least=0, most=len(ANALYSIS_LEVELS) - 1)

    def p_analysis(self, parent_count: int) -> float:
        """Chance that the condition of an instance with so many parents is restated."""
        chances = ANALYSIS_LEVELS[self.analysis_level]
        return chances[min(parent_count, len(chances) - 1)]


PLAIN = Behaviours(0.0, 0, False)


class Span(dict):
    """``{"start", "end", "kind"}``: characters of a trace, end excluded."""

    def __init__(self, start: int, end: int, kind: str):
        super().__init__(start=start, end=end, kind=kind)


class Trace:
    """A completion in the making.

    Attributes:
        text: thinking and answer, each in its tags.
        injected: spans of what a plain trace would not hold, by `KINDS`; they do not overlap.
        content: spans called name, equation and value, the places where a wrong token changes the meaning.
        steps, reflections, analyses: lines of work, those that ended for want of something, restated conditions.
    """

    def __init__(self):
        self.text = ""
        self.injected: list[Span] = []
        self.content: list[Span] = []
        self.steps = self.reflections = self.analyses = 0

    def add(self, text: str, kind: str = "") -> None:
        """Append ``text``; ``kind`` is one of `KINDS`, name, equation or value, or "" for neither."""
        if kind:
            spans = self.injected if kind in KINDS else self.content
            spans.append(Span(len(self.text), len(self.text) + len(text), kind))
        self.text += text


class _Solver:
    """Writes the trace of one problem; ``letters`` of all quantities, and which of them are named and solved."""

    def __init__(self, problem: Problem, behaviours: Behaviours, rng: Random):
        self.problem, self.behaviours, self.rng = problem, behaviours, rng
        quantities = (*problem.graph.order, *problem.graph.redundant)
        self.letters = dict(zip(quantities, rng.sample(string.ascii_letters, len(quantities)), strict=True))
        self.named: set[Quantity] = set()
        self.solved: set[Quantity] = set()
        self.trace = Trace()

    def run(self, order: tuple[Quantity, ...]) -> Trace:
        """The whole trace, through the necessary quantities in the order given."""
        self.trace.add(f"<think>\n{_OPENING}\n")
        place, may_explore = 0, False
        while order[-1] not in self.solved:
            is_inside = 0 < place < len(order) - 1
            if is_inside and may_explore and self.rng.random() < self.behaviours.p_reflect:
                ahead = self._draw_ahead(order[place + 1 :])
                if ahead not in self.solved:
                    # After an attempt that failed comes the step that is due, so no two fail in a row.
                    may_explore = self._step(ahead, is_needed=ahead in order)
                continue
            due = order[place]
            place += 1
            if due not in self.solved:
                may_explore = self._step(due, is_needed=True)
        answer = self.problem.answer
        self.trace.add(f"So the answer is {answer}.\n</think>\n<answer>\nThe answer is \\boxed{{{answer}}}.\n</answer>")
        return self.trace

    def _draw_ahead(self, later: tuple[Quantity, ...]) -> Quantity:
        """A quantity that is not due: sometimes a redundant one."""
        redundant = self.problem.graph.redundant
        if redundant and self.rng.random() < _REDUNDANT_SHARE:
            return self.rng.choice(redundant)
        return self.rng.choice(later)

    def _step(self, quantity: Quantity, is_needed: bool) -> bool:
        """One line on ``quantity``; whether it was solved."""
        trace, start = self.trace, len(self.trace.text)
        missing = [
            parent for parent in dict.fromkeys(self.problem.graph.parents[quantity]) if parent not in self.solved
        ]
        spans_before = len(trace.injected)
        trace.steps += 1
        trace.add("- ")
        if self.problem.graph.parents[quantity]:
            self._introduce(quantity)
            self._analyse(quantity)
            if missing:
                self._reflect(missing)
            else:
                self._compute(quantity)
        else:
            self._read_off(quantity)
        trace.add("\n")
        if missing or not is_needed:
            # The whole line is exploration, whatever else it holds.
            del trace.injected[spans_before:]
            trace.injected.append(Span(start, len(trace.text), "exploration"))
        if not missing:
            self.solved.add(quantity)
        return not missing

    def _add_name(self, quantity: Quantity) -> None:
        self.trace.add(self.problem.name(quantity), "name")

    def _read_off(self, quantity: Quantity) -> None:
        """A constant, found in the conditions."""
        letter, value = self.letters[quantity], self.problem.values[quantity]
        style = self.rng.randrange(len(_GIVEN))
        self.trace.add(_GIVEN[style])
        self._add_name(quantity)
        self.trace.add(f"{_GIVEN_END[style].format(value=value)} {self.rng.choice(_LETTER).format(letter=letter)} So ")
        self._add_equation(letter, [str(value)])
        self.named.add(quantity)

    def _introduce(self, quantity: Quantity) -> None:
        """Say which quantity is next and what its letter is, or was."""
        letter, known = self.letters[quantity], quantity in self.named
        if known or self.rng.random() < _ANNOUNCE_SHARE:
            self.trace.add(self.rng.choice(_ANNOUNCE))
            self._add_name(quantity)
            self.trace.add(f". {self.rng.choice(_NAMED_BEFORE if known else _LETTER).format(letter=letter)}")
        else:
            before, after = self.rng.choice(_COMBINED)
            self.trace.add(before.format(letter=letter))
            self._add_name(quantity)
            self.trace.add(after)
        self.named.add(quantity)

    def _analyse(self, quantity: Quantity) -> None:
        """Perhaps restate the condition; a category has none."""
        if quantity.is_abstract:
            return
        if self.rng.random() < self.behaviours.p_analysis(self.problem.formulas[quantity].parent_count):
            self.trace.add(_ANALYSIS.format(definition=self.problem.definition(quantity)), "analysis")
            self.trace.analyses += 1

    def _reflect(self, missing: list[Quantity]) -> None:
        """Name exactly what is missing, and leave it at that."""
        names = listed([self.problem.name(parent) for parent in missing])
        self.trace.add(self.rng.choice(_MISSING).format(names=names))
        self.trace.reflections += 1

    def _compute(self, quantity: Quantity) -> None:
        """The formula in letters, in numbers, and its value."""
        formula = self.problem.formulas[quantity]
        reductions = formula.reductions(self.problem.values, self.problem.modulus)
        self.trace.add(" So ")
        self._add_equation(self.letters[quantity], [formula.write(self.letters.__getitem__), *reductions])

    def _add_equation(self, letter: str, sides: list[str]) -> None:
        """``letter = side = ... = value.``; all but the first two sides and the value are stepwise computation."""
        trace, start = self.trace, len(self.trace.text)
        *first, value = sides
        trace.add(" = ".join([letter, *first[:2]]))
        if self.behaviours.stepwise and first[2:]:
            trace.add("".join(f" = {side}" for side in first[2:]), "computation")
        trace.add(" = ")
        trace.content.append(Span(start, len(trace.text), "equation"))
        trace.add(value, "value")
        trace.add(".")


def solve(problem: Problem, behaviours: Behaviours, rng: Random, order: tuple[Quantity, ...] | None = None) -> Trace:
    """A worked solution of ``problem``, its wording, letters and injected behaviours drawn from ``rng``.

    ``order``: another topological order of the necessary quantities than the problem's own, see `random_order`.
    """
    return _Solver(problem, behaviours, rng).run(order or problem.graph.order)


def random_order(problem: Problem, rng: Random) -> tuple[Quantity, ...]:
    """A random topological order of the necessary quantities; the one that is asked stays last, as all lead to it."""
    remaining, order = list(problem.graph.order), []
    while remaining:
        placed = set(order)
        ready = [quantity for quantity in remaining if placed.issuperset(problem.graph.parents[quantity])]
        order.append(rng.choice(ready))
        remaining.remove(order[-1])
    return tuple(order)
