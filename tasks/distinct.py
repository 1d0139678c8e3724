"""Distinct problems out of random draws."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from common.errors import UserError

Drawn = TypeVar("Drawn")


def distinct(
    draws: Iterable[Drawn], key: Callable[[Drawn], Hashable], most_fruitless: int, refusal: Callable[[int], str]
) -> Iterator[Drawn]:
    """The first of ``draws`` for each ``key``, in their order; none is drawn before it is asked for.

    Raises `UserError` after more than ``most_fruitless`` draws in a row whose keys have all been seen; ``refusal`` is
    what it says, given how many keys were.
    """
    seen, fruitless = set(), 0
    for drawn in draws:
        found = key(drawn)
        if found not in seen:
            seen.add(found)
            fruitless = 0
            yield drawn
            continue
        fruitless += 1
        if fruitless > most_fruitless:
            raise UserError(refusal(len(seen)))
