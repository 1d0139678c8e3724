"""Structure graph of an iGSM problem: which things hold which (arXiv 2407.20311, appendix on the generator).

Things stand in layers, layer 0 the finest. An edge (y, x) says that each y holds some x of the next finer layer.
"""

import math
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from tasks.igsm.vocabulary import ANY, DRAWN, WORLDS

# How near a share of the op range is to these makes 2, 3 or 4 layers, or things per layer, likely.
_SIZES = (2, 3, 4)
_CENTRES = (0.2, 0.5, 0.8)


@dataclass(frozen=True)
class StructureGraph:
    """Layers of things.

    Attributes:
        world: key of `WORLDS`.
        first_category: position of the coarsest category that is used in its world.
        names: layer -> names of its things.
        children: layer -> thing -> positions of the things it holds, in the layer below; empty for layer 0.
    """

    world: str
    first_category: int
    names: tuple[tuple[str, ...], ...]
    children: tuple[tuple[tuple[int, ...], ...], ...]

    def category(self, layer: int) -> str:
        """Name of a layer's category."""
        return WORLDS[self.world][self.first_category + len(self.names) - 1 - layer].name


class Shape(NamedTuple):
    """Size of a structure graph: layers, fewest and most things per layer, edges."""

    depth: int
    fewest: int
    most: int
    edges: int


def draw_shape(op: int, max_edges: int, rng: Random) -> Shape:
    """A random shape of at most ``max_edges`` edges, the larger the more operations ``op`` are wanted."""
    position = (op - 1) / (max_edges - 1)
    weights = [math.exp(-((position - centre) ** 2)) for centre in _CENTRES]
    at_least = max_edges + 1
    while at_least > max_edges:  # with 12 edges or more the first draw always fits: three times four
        depth, one, other = rng.choices(_SIZES, weights, k=3)
        fewest, most = min(one, other), max(one, other)
        at_least = (depth - 1) * fewest
    edges = min(rng.randint(at_least, max_edges), rng.randint(at_least, max_edges), (depth - 1) * most**2)
    return Shape(depth, fewest, most, edges)


def draw_structure(shape: Shape, rng: Random, world: str = ANY) -> StructureGraph:
    """A random structure graph of that shape, in ``world`` or, for "any", in a random one of `DRAWN`."""
    widths = _draw_widths(*shape, rng)
    children = _draw_edges(widths, shape.edges, rng)
    world = rng.choice(DRAWN) if world == ANY else world
    categories = WORLDS[world]
    first = rng.randrange(len(categories) - shape.depth + 1)
    names = []
    for layer, width in enumerate(widths):
        kind = rng.choice(categories[first + shape.depth - 1 - layer].kinds)
        names.append(tuple(rng.sample(kind, width)))
    return StructureGraph(world, first, tuple(names), children)


def _draw_widths(depth: int, fewest: int, most: int, edges: int, rng: Random) -> list[int]:
    """Things per layer, grown one by one while the edges want it."""
    widths, chance = [fewest] * depth, rng.random()
    while True:
        needed = sum(widths[1:])
        possible = sum(low * high for low, high in zip(widths, widths[1:], strict=False))
        growing = [layer for layer in range(depth) if widths[layer] < most]
        if not growing or needed >= edges:
            return widths
        if possible >= edges and rng.random() >= chance:
            return widths
        widths[rng.choice(growing)] += 1


def _draw_edges(widths: list[int], edges: int, rng: Random) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """One edge for each thing above layer 0, then random ones of random layers, up to ``edges`` or all there are."""
    chosen = {
        (layer, y, rng.randrange(widths[layer - 1])) for layer in range(1, len(widths)) for y in range(widths[layer])
    }
    possible = sum(low * high for low, high in zip(widths, widths[1:], strict=False))
    while len(chosen) < min(edges, possible):
        layer = rng.randrange(1, len(widths))
        chosen.add((layer, rng.randrange(widths[layer]), rng.randrange(widths[layer - 1])))
    return tuple(
        tuple(
            tuple(x for x in range(widths[layer - 1]) if (layer, y, x) in chosen) if layer else () for y in range(width)
        )
        for layer, width in enumerate(widths)
    )
