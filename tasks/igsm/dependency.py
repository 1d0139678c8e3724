"""Dependency graph of an iGSM problem: which quantity is computed from which, with an exact number of operations.

Follows the generator of iGSM (arXiv 2407.20311, appendix on the generator) in the form that BRIDGE uses. A quantity is
an instance, "each y's x" for an edge of the structure graph, which gets its parents here; or an abstract one, "each y's
CATEGORY", the number of things of a category in y, whose parents follow from the structure.
"""

import math
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import NamedTuple

from tasks.igsm.structure import StructureGraph

_MOST_INSTANCE_OP = 3
_MOST_REDUNDANT_PARENTS = 4


class Quantity(NamedTuple):
    """The number of things ``x`` of layer ``held`` in each thing ``y`` of layer ``layer``; x = -1: all of them."""

    layer: int
    y: int
    held: int
    x: int

    @property
    def is_abstract(self) -> bool:
        """Whether it counts a whole category."""
        return self.x < 0


@dataclass(frozen=True)
class DependencyGraph:
    """What the problem asks, and from what everything is computed.

    Attributes:
        order: the necessary quantities, parents first, the one that is asked last.
        redundant: further quantities, not needed for the answer, each after its parents.
        parents: quantity -> its parents; of a deep abstract one they come in pairs, instance and abstract.
        has_constant: the instances with a random constant beside their parents.
    """

    order: tuple[Quantity, ...]
    redundant: tuple[Quantity, ...]
    parents: dict[Quantity, tuple[Quantity, ...]]
    has_constant: frozenset[Quantity]


class Order(NamedTuple):
    """Necessary quantities, parents first; the parent that an instance must have for that; those of abstract ones."""

    order: list[Quantity]
    given: dict[Quantity, Quantity]
    implied: dict[Quantity, tuple[Quantity, ...]]


def instances(structure: StructureGraph) -> list[Quantity]:
    """Every instance quantity."""
    return [
        Quantity(layer, y, layer - 1, x)
        for layer, things in enumerate(structure.children)
        for y, children in enumerate(things)
        for x in children
    ]


def abstract_parents(structure: StructureGraph) -> dict[Quantity, tuple[Quantity, ...]]:
    """Every abstract quantity -> its parents: what it is the sum of, or the sum of products of pairs of."""
    parents = {}
    for layer, things in enumerate(structure.children):
        for held in range(layer):
            for y, children in enumerate(things):
                pairs = [(Quantity(layer, y, layer - 1, x), Quantity(layer - 1, x, held, -1)) for x in children]
                shallow = held == layer - 1
                parents[Quantity(layer, y, held, -1)] = tuple(
                    [pair[0] for pair in pairs] if shallow else chain.from_iterable(pairs)
                )
    return parents


def operations(parent_count: int) -> int:
    """Operations that a quantity with so many parents costs, a random constant counted as one of them."""
    return max(1, parent_count - 1)


def draw_limits(op: int, rng: Random) -> tuple[int, int]:
    """(most operations of the abstract quantities with all they need, operations from which no instance is added)."""
    abstract_limit = max(rng.randint(1, op), rng.randint(1, op))
    return abstract_limit, rng.randint(abstract_limit, op)


def draw_order(structure: StructureGraph, limits: tuple[int, int], rng: Random) -> Order | None:
    """Random necessary quantities in an order in which the last one needs all others; None if the draw fails."""
    implied = abstract_parents(structure)
    return _try_order(_choose_quantities(structure, implied, limits, rng), implied, rng)


def draw_dependencies(structure: StructureGraph, drawn: Order, op: int, rng: Random) -> DependencyGraph | None:
    """A random dependency graph whose necessary quantities cost ``op`` operations in all; None if they cannot."""
    order, _, implied = drawn
    costs = _draw_costs(order, implied, op, rng)
    if costs is None:
        return None
    parents, has_constant = _draw_parents(drawn, costs, rng)
    redundant = _draw_redundant(structure, order, implied, parents, has_constant, rng)
    return DependencyGraph(tuple(order), tuple(redundant), parents, frozenset(has_constant))


def _ancestry(quantity: Quantity, implied: dict[Quantity, tuple[Quantity, ...]], found: set[Quantity]) -> None:
    """Add ``quantity`` and all that it needs by the structure to ``found``."""
    if quantity not in found:
        found.add(quantity)
        for parent in implied.get(quantity, ()):
            _ancestry(parent, implied, found)


def _choose_quantities(structure, implied, limits: tuple[int, int], rng: Random) -> list[Quantity]:
    """The necessary quantities: some abstract ones with all they need, then single instances, one operation each."""
    abstract_limit, limit = limits
    chosen, total = _choose_abstract(implied, abstract_limit, rng)
    rest = [quantity for quantity in instances(structure) if quantity not in chosen]
    rng.shuffle(rest)
    return sorted(chosen) + rest[: limit - total]


def _choose_abstract(implied, limit: int, rng: Random) -> tuple[set[Quantity], int]:
    """(abstract quantities with all they need, what they cost), at most ``limit`` operations.

    Each round tries one of the deepest that are left, then one of the next depth, until one fits; a round in which none
    does is the last.
    """
    chosen: set[Quantity] = set()
    total, fits = 0, True
    while fits:
        fits = False
        by_depth: dict[int, list[Quantity]] = {}
        for quantity in implied:
            if quantity not in chosen:
                by_depth.setdefault(quantity.layer - quantity.held, []).append(quantity)
        for depth in sorted(by_depth, reverse=True):
            needed: set[Quantity] = set()
            _ancestry(rng.choice(by_depth[depth]), implied, needed)
            cost = sum(operations(len(implied.get(new, ()))) for new in needed - chosen)
            if total + cost <= limit:
                chosen |= needed
                total += cost
                fits = True
                break
    return chosen, total


def _try_order(chosen: list[Quantity], implied, rng: Random) -> Order | None:
    """An order drawn from the last quantity backwards, each needed by one drawn before.

    Where none that is left is needed, the quantity drawn last gets one of them for a parent; None if it is abstract,
    so that its parents are fixed.
    """
    remaining = dict.fromkeys(chosen)
    waiting = dict.fromkeys(chosen, 0)  # children that are not placed yet
    for quantity in chosen:
        for parent in implied.get(quantity, ()):
            waiting[parent] += 1
    wanted: set[Quantity] = set()  # parents of placed quantities
    given: dict[Quantity, Quantity] = {}
    backwards: list[Quantity] = []
    while remaining:
        free = [quantity for quantity in remaining if not waiting[quantity]]
        quantity = rng.choice([candidate for candidate in free if candidate in wanted] if backwards else free)
        backwards.append(quantity)
        del remaining[quantity]
        for parent in implied.get(quantity, ()):
            waiting[parent] -= 1
            wanted.add(parent)
        if not remaining:
            break
        free = [candidate for candidate in remaining if not waiting[candidate]]
        is_stuck = not any(candidate in wanted for candidate in free)
        if is_stuck and quantity.is_abstract:
            return None
        if is_stuck or (not quantity.is_abstract and rng.random() < 0.5):
            given[quantity] = _draw_parent(free if is_stuck else list(remaining), wanted, rng)
            wanted.add(given[quantity])
    return Order(backwards[::-1], given, implied)


def _draw_parent(candidates: list[Quantity], wanted: set[Quantity], rng: Random) -> Quantity:
    """A candidate; abstract ones and ones that are needed anyway are preferred by a random factor."""
    strength = abs(rng.gauss(0.0, 1.0))
    weights = [math.exp(strength * (candidate.is_abstract + (candidate in wanted))) for candidate in candidates]
    return rng.choices(candidates, weights)[0]


def _draw_costs(order: list[Quantity], implied, op: int, rng: Random) -> list[int] | None:
    """Operations of each quantity, ``op`` in all; None when the instances cannot take that many.

    An instance costs at most 3, and no more than its place in the order allows: it needs a parent more than that.
    """
    costs = [operations(len(implied.get(quantity, ()))) for quantity in order]
    missing = op - sum(costs)
    most = [
        0 if quantity.is_abstract else min(_MOST_INSTANCE_OP, max(1, place)) for place, quantity in enumerate(order)
    ]
    growing = [place for place in range(len(order)) if costs[place] < most[place]]
    while missing > 0:
        if not growing:
            return None
        place = rng.choice(growing)
        costs[place] += 1
        missing -= 1
        if costs[place] == most[place]:
            growing.remove(place)
    return costs if missing == 0 else None


def _draw_parents(
    drawn: Order, costs: list[int], rng: Random
) -> tuple[dict[Quantity, tuple[Quantity, ...]], set[Quantity]]:
    """(quantity -> parents, instances with a random constant) so that each costs what it must."""
    order, given, implied = drawn
    parents, has_constant = {}, set()
    for place, quantity in enumerate(order):
        if quantity.is_abstract:
            parents[quantity] = implied[quantity]
            continue
        first = [given[quantity]] if quantity in given else []
        count = rng.randint(1, 2) if costs[place] == 1 else costs[place] + 1
        count = min(count, place + 1) - len(first)
        pool = [earlier for earlier in order[:place] if earlier not in first]
        # A constant beside the single parent that is given costs nothing: it is still one operation.
        with_constant = count > len(pool) or rng.random() < 0.5
        picked = first + rng.sample(pool, max(0, count - with_constant))
        rng.shuffle(picked)
        parents[quantity] = tuple(picked)
        if with_constant:
            has_constant.add(quantity)
    return parents, has_constant


def _draw_redundant(structure, order, implied, parents, has_constant, rng: Random) -> list[Quantity]:
    """Give every instance that is not necessary parents too, so that the text states the whole structure.

    Half of them depend only on others of their kind, the rest on anything computable. Fills ``parents`` and
    ``has_constant``, and returns the quantities in the order they were defined, abstract ones where first used.
    """
    necessary = set(order)
    rest = [quantity for quantity in instances(structure) if quantity not in necessary]
    rng.shuffle(rest)
    redundant: list[Quantity] = []
    apart: list[Quantity] = []
    for quantity in rest:
        is_apart = rng.random() < 0.5
        pool = apart if is_apart else [*order, *_computable(implied, parents)]
        count = 1
        while count < min(_MOST_REDUNDANT_PARENTS, len(pool) + 1) and rng.random() < 0.5:
            count += 1
        with_constant = count > len(pool) or rng.random() < 0.5
        if with_constant:
            has_constant.add(quantity)
        parents[quantity] = tuple(rng.sample(pool, count - with_constant))
        for parent in parents[quantity]:
            _define(parent, implied, parents, redundant)
        redundant.append(quantity)
        if is_apart:
            apart.append(quantity)
    return redundant


def _computable(implied, parents) -> list[Quantity]:
    """Abstract quantities that are not used yet though all they need is defined."""
    ready: list[Quantity] = []
    known = set(parents)
    for quantity in implied:  # shallow ones come before the deep ones of the layers above
        if quantity not in known and all(parent in known for parent in implied[quantity]):
            known.add(quantity)
            ready.append(quantity)
    return ready


def _define(quantity: Quantity, implied, parents, redundant: list[Quantity]) -> None:
    """Take an abstract quantity, and the abstract ones it is made of, up among the redundant ones."""
    if quantity not in parents:
        for parent in implied[quantity]:
            _define(parent, implied, parents, redundant)
        parents[quantity] = implied[quantity]
        redundant.append(quantity)
