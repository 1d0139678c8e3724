"""Whether a Countdown problem has several right approaches, by the normal form that tells right answers apart."""

from collections.abc import Iterator
from fractions import Fraction
from functools import cache, lru_cache
from itertools import combinations, islice

from rewards.expression import normal_form

MOST_NUMBERS = 4  # whose expressions are enumerated: a millisecond for 3, 15 for 4, half a second for 5


def approaches(numbers: tuple[int, ...], target: int) -> Iterator[str]:
    """The different normal forms (`rewards.expression.normal_form`) of the expressions that equal ``target``.

    As the grader judges them: each number exactly once, exact fractions, intermediate values of any sign and size. But
    for expressions with signs ("-3*(2-5)"), which it takes for approaches of their own: each sum would have several.
    """

    @cache
    def parts(places: tuple[int, ...]) -> dict[str, Fraction]:
        """Normal form -> value of every expression over the numbers at ``places``."""
        if len(places) == 1:
            return {str(numbers[places[0]]): Fraction(numbers[places[0]])}
        return {normal_form(text): value for text, value in joined(places)}

    def joined(places: tuple[int, ...]) -> Iterator[tuple[str, Fraction]]:
        """(text, value) of every expression over ``places`` whose last operation joins two of `parts`."""
        for count in range(1, len(places)):
            for left in combinations(places, count):
                right = tuple(place for place in places if place not in left)
                for a, x in parts(left).items():
                    for b, y in parts(right).items():
                        yield f"({a})+({b})", x + y
                        yield f"({a})-({b})", x - y
                        yield f"({a})*({b})", x * y
                        if y:
                            yield f"({a})/({b})", x / y

    found = set()
    for text, value in joined(tuple(range(len(numbers)))):
        if value == target and (form := normal_form(text)) not in found:
            found.add(form)
            yield form


@lru_cache(maxsize=100_000)  # a small space is drawn from many times over
def has_approaches(numbers: tuple[int, ...], target: int, least: int) -> bool:
    """Whether a problem has ``least`` or more `approaches`; no more than these are looked for."""
    return len(list(islice(approaches(numbers, target), least))) == least
