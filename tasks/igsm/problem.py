"""One iGSM problem: its graphs, formulas and values, its text, and the template that decides its split."""

import hashlib
from dataclasses import dataclass
from random import Random

from tasks.igsm.dependency import DependencyGraph, Quantity, draw_dependencies, draw_limits, draw_order
from tasks.igsm.formula import Formula
from tasks.igsm.space import ProblemSpace
from tasks.igsm.structure import StructureGraph, draw_shape, draw_structure

_TEMPLATE_DIGITS = 16
_ORDER_TRIES = 50


@dataclass(frozen=True)
class Problem:
    """A problem and its solution.

    Attributes:
        op: operations of the solution.
        formulas, values: of every necessary or redundant quantity.
        modulus: 0 for exact integers.
        conditions: the instances in the order in which the text states them.
    """

    structure: StructureGraph
    graph: DependencyGraph
    op: int
    formulas: dict[Quantity, Formula]
    values: dict[Quantity, int]
    modulus: int
    conditions: tuple[Quantity, ...]

    @property
    def asked(self) -> Quantity:
        """The quantity of the question."""
        return self.graph.order[-1]

    @property
    def answer(self) -> int:
        """Its value."""
        return self.values[self.asked]

    def held_name(self, quantity: Quantity) -> str:
        """What is counted: a thing, or a category."""
        names = self.structure.names[quantity.held]
        return self.structure.category(quantity.held) if quantity.is_abstract else names[quantity.x]

    def name(self, quantity: Quantity) -> str:
        """ "each Y's X", to be read after "the number of"."""
        return f"each {self.structure.names[quantity.layer][quantity.y]}'s {self.held_name(quantity)}"

    def definition(self, quantity: Quantity) -> str:
        """What an instance equals, in words, for example "7 times the sum of each ... and each ..."."""
        formula = self.formulas[quantity]
        names = [self.name(parent) for parent in formula.quantities]
        if not names:
            return str(formula.constant)
        body = names[0]
        if len(names) > 1:
            kind = "difference" if formula.is_difference else "sum"
            body = f"the {kind} of {listed(names)}"
        if formula.constant is None:
            return body
        return f"{formula.constant} {'more than' if formula.operator == '+' else 'times'} {body}"

    def text(self, conditions: tuple[Quantity, ...] | None = None) -> str:
        """The problem: one condition per line, in the order of ``conditions`` or the problem's own, and the question.

        Arithmetic modulo a number is announced on a first line.
        """
        lines = [f"All numbers are counted modulo {self.modulus}."] if self.modulus else []
        for quantity in conditions or self.conditions:
            lines.append(f"The number of {self.name(quantity)} equals {self.definition(quantity)}.")
        owner = self.structure.names[self.asked.layer][self.asked.y]
        lines.append(f"How many {self.held_name(self.asked)} does each {owner} have?")
        return "\n".join(lines)


def listed(names: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def draw_problem(op: int, space: ProblemSpace, rng: Random) -> Problem | None:
    """One problem of ``op`` operations, its answer as it comes; None if the draw fails."""
    graphs = _draw_graphs(op, space, rng)
    if graphs is None:
        return None
    structure, graph = graphs
    formulas: dict[Quantity, Formula] = {}
    values: dict[Quantity, int] = {}
    for quantity in (*graph.order, *graph.redundant):
        formulas[quantity] = _draw_formula(quantity, graph, space.largest_constant, rng)
        values[quantity] = formulas[quantity].value(values, space.modulus)
    conditions = [quantity for quantity in formulas if not quantity.is_abstract]
    rng.shuffle(conditions)
    return Problem(structure, graph, op, formulas, values, space.modulus, tuple(conditions))


def _draw_graphs(op: int, space: ProblemSpace, rng: Random) -> tuple[StructureGraph, DependencyGraph] | None:
    """Structure and dependencies; a structure in which no order is found is drawn again, of the same size."""
    shape, limits = draw_shape(op, space.max_edges, rng), draw_limits(op, rng)
    for _ in range(_ORDER_TRIES):
        structure = draw_structure(shape, rng, space.world)
        order = draw_order(structure, limits, rng)
        if order is not None:
            graph = draw_dependencies(structure, order, op, rng)
            return None if graph is None else (structure, graph)
    return None


def _draw_formula(quantity: Quantity, graph: DependencyGraph, largest: int, rng: Random) -> Formula:
    """The formula of a quantity: a sum for an abstract one, random operators and constant for an instance."""
    parents = graph.parents[quantity]
    if quantity.is_abstract:
        deep = quantity.layer - quantity.held > 1
        pairs = zip(parents[::2], parents[1::2], strict=True)
        return Formula(tuple(pairs) if deep else tuple((parent,) for parent in parents))
    has_constant = quantity in graph.has_constant
    return Formula(
        tuple((parent,) for parent in parents),
        rng.randint(0, largest) if has_constant else None,
        rng.choice("+*") if has_constant and parents else "",
        len(parents) == 2 and rng.random() < 0.5,
    )


def template(problem: Problem) -> str:
    """Hash of the solution without names, constants and order, 16 hexadecimal digits.

    It is a hash of the asked quantity's formula over the hashes of its parents: kind, operators, presence of a
    constant, parents in any order except in a difference. So it survives renaming, other constants, another order of
    steps or conditions, and other redundant conditions; solutions that differ only in which equal parts they share
    agree too.
    """
    hashes: dict[Quantity, str] = {}
    for quantity in problem.graph.order:
        formula = problem.formulas[quantity]
        terms = [sorted(hashes[parent] for parent in term) for term in formula.terms]
        if not formula.is_difference:
            terms.sort()
        shape = (quantity.is_abstract, formula.constant is not None, formula.operator, formula.is_difference, terms)
        hashes[quantity] = hashlib.sha256(repr(shape).encode()).hexdigest()[:_TEMPLATE_DIGITS]
    return hashes[problem.asked]
