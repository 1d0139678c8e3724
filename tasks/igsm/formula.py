"""How a quantity of an iGSM problem is computed: its formula, its value, and the arithmetic one operation at a time."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain

from tasks.igsm.dependency import Quantity


@dataclass(frozen=True)
class Formula:
    """``constant operator (term + term + ...)``, where a term is a quantity or the product of two.

    Attributes:
        terms: quantities of each product; none for a plain constant.
        constant: None for a formula without one.
        operator: "+" or "*" between constant and terms; "" where one of them is missing.
        is_difference: the two terms are subtracted, first minus second, instead of added.
    """

    terms: tuple[tuple[Quantity, ...], ...]
    constant: int | None = None
    operator: str = ""
    is_difference: bool = False

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The parents, from left to right."""
        return tuple(chain.from_iterable(self.terms))

    @property
    def parent_count(self) -> int:
        """Parents, a constant counted as one."""
        return len(self.quantities) + (self.constant is not None)

    def write(self, symbol: Callable[[Quantity], str]) -> str:
        """The formula with ``symbol`` of each quantity in its place."""
        return _write([[symbol(quantity) for quantity in term] for term in self.terms], self)

    def value(self, values: Mapping[Quantity, int], modulus: int = 0) -> int:
        """The result, exact or in 0..modulus-1; ``values`` holds those of the parents."""
        products = [math.prod([values[quantity] for quantity in term]) for term in self.terms]
        result = products[0] - products[1] if self.is_difference else sum(products)
        if self.constant is not None:
            result = self.constant * result if self.operator == "*" else self.constant + result
        return result % modulus if modulus else result

    def reductions(self, values: Mapping[Quantity, int], modulus: int = 0) -> list[str]:
        """The formula in numbers, then after each single operation; the last is the value.

        Products come first, then the sum from left to right, then the constant; each result is reduced by the modulus.
        """

        def reduced(number: int) -> int:
            return number % modulus if modulus else number

        if not self.terms:
            return [str(reduced(self.constant))]
        terms = [[values[quantity] for quantity in term] for term in self.terms]
        texts = [self._in_numbers(terms)]
        for place, term in enumerate(terms):
            if len(term) == 2:
                terms[place] = [reduced(term[0] * term[1])]
                texts.append(self._in_numbers(terms))
        while len(terms) > 1:
            (first,), (second,) = terms[:2]
            terms[:2] = [[reduced(first - second if self.is_difference else first + second)]]
            texts.append(self._in_numbers(terms))
        if self.constant is not None:
            value = terms[0][0]
            texts.append(str(reduced(self.constant + value if self.operator == "+" else self.constant * value)))
        return texts

    def _in_numbers(self, terms: list[list[int]]) -> str:
        return _write([[str(number) for number in term] for term in terms], self)


def _write(terms: list[list[str]], formula: Formula) -> str:
    """Text of the formula; a negative number that does not begin it, or its bracket, stands in a bracket of its own."""
    if not terms:
        return str(formula.constant)
    begins = formula.constant is None or len(terms) > 1
    products = []
    for place, term in enumerate(terms):
        factors = [
            symbol if begins and place == index == 0 or not symbol.startswith("-") else f"({symbol})"
            for index, symbol in enumerate(term)
        ]
        products.append(" * ".join(factors))
    body = (" - " if formula.is_difference else " + ").join(products)
    if formula.constant is None:
        return body
    return f"{formula.constant} {formula.operator} {f'({body})' if len(terms) > 1 else body}"
