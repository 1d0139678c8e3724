"""Arithmetic expressions of Countdown: a small parser over exact fractions, and the normal form that equal ones share.

Texts are never run as code. Texts, lengths, digits and brackets are capped, so time is linear in a text's length.
"""

import re
from fractions import Fraction

MAX_LENGTH = 256  # characters of an expression, runs of whitespace counted as one
MAX_DEPTH = 32  # nested brackets and signs
MAX_DIGITS = 18  # of one integer
WHITESPACE = " \t\r\n"

_ALLOWED = re.compile(r"[0-9+\-*/() ]+")
_TOKEN = re.compile(r"[0-9]+|[-+*/()]")

# An integer, or an operation with its two operands; a minus sign is a subtraction from nothing.
Tree = int | tuple[str, "Tree | None", "Tree"]


class ExpressionError(ValueError):
    """The text is not an expression of Countdown's grammar, or exceeds a cap."""


class ZeroDivisorError(ExpressionError):
    """The expression divides by zero."""


class _Parser:
    """Recursive descent over tokens."""

    def __init__(self, tokens: list[str]):
        self.tokens = [*tokens, ""]
        self.position = 0

    def take(self, *wanted: str) -> str:
        """The next token if it is one of ``wanted`` (and step over it), else ""."""
        token = self.tokens[self.position]
        if token not in wanted:
            return ""
        self.position += 1
        return token

    def sum(self, depth: int) -> Tree:
        tree = self.product(depth)
        while op := self.take("+", "-"):
            tree = (op, tree, self.product(depth))
        return tree

    def product(self, depth: int) -> Tree:
        tree = self.factor(depth)
        while op := self.take("*", "/"):
            tree = (op, tree, self.factor(depth))
        return tree

    def factor(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"brackets or signs nested deeper than {MAX_DEPTH}")
        if sign := self.take("-", "+"):
            tree = self.factor(depth + 1)
            return ("-", None, tree) if sign == "-" else tree
        if self.take("("):
            tree = self.sum(depth + 1)
            if not self.take(")"):
                raise ExpressionError("a bracket is not closed")
            return tree
        return self.integer()

    def integer(self) -> int:
        token = self.tokens[self.position]
        if not token.isdigit():
            raise ExpressionError(f"a number is missing before {token!r}")
        if len(token) > MAX_DIGITS or (token[0] == "0" and token != "0"):
            raise ExpressionError(f"integers have at most {MAX_DIGITS} digits and no leading zero")
        self.position += 1
        return int(token)


def squeeze(text: str) -> str:
    """``text`` stripped, each run of ASCII whitespace as one space; raises `ExpressionError` above `MAX_LENGTH`."""
    text = text.strip(WHITESPACE)
    for space in WHITESPACE:
        text = text.replace(space, " ")
    for run in (" " * 64, "  "):
        while run in text:
            text = text.replace(run, " ")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters")
    return text


def parse_expression(text: str) -> Tree:
    """The tree of an expression.

    Grammar: unsigned decimal integers, ``+ - * /``, round brackets, signs, ASCII whitespace. Raises `ExpressionError`
    on any other text (no ``**``, ``//``, decimals, leading zeros or implicit multiplication) and on one beyond
    `MAX_LENGTH`, `MAX_DEPTH` or `MAX_DIGITS`.
    """
    text = squeeze(text)
    if not _ALLOWED.fullmatch(text):
        raise ExpressionError("empty, or holds a character outside 0-9 + - * / ( )")
    parser = _Parser(_TOKEN.findall(text))
    tree = parser.sum(depth=0)
    if parser.tokens[parser.position]:
        raise ExpressionError(f"unexpected {parser.tokens[parser.position]!r}")
    return tree


def evaluate_expression(text: str) -> tuple[Fraction, list[int]]:
    """Exact value of an expression, and the integers written in it, from left to right.

    Raises `ExpressionError` as `parse_expression` does; `ZeroDivisorError`, a subclass, on division by zero.
    """
    used: list[int] = []
    return _value(parse_expression(text), used), used


def _value(tree: Tree | None, used: list[int]) -> Fraction:
    if tree is None:
        return Fraction(0)
    if isinstance(tree, int):
        used.append(tree)
        return Fraction(tree)
    op, left, right = tree
    a, b = _value(left, used), _value(right, used)
    if op == "/" and not b:
        raise ZeroDivisorError("division by zero")
    return a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a / b


# A term is a sign and its factors, a factor an exponent (1 or -1) and an integer or a sum in brackets.
_Factor = tuple[int, str]
_Term = tuple[int, list[_Factor]]


def normal_form(text: str) -> str:
    """The one spelling of all expressions that differ in order, grouping, needless brackets and spaces.

    Sums and products are flattened, whatever their nesting, and sorted: ``3+4*5``, ``5*4+3`` and ``(4*5)+3`` are
    "3+4*5"; ``8-(5-2)`` and ``2+8-5`` are "2+8-5"; ``6/(3/2)`` and ``6*2/3`` are "2*6/3". Nothing is computed and
    nothing distributed, so ``4*(3+5)`` and ``4*3+4*5`` stay two expressions, and so do ``6*1`` and ``6/1``. The normal
    form is an expression itself, with the same integers and value. Raises `ExpressionError` as `parse_expression` does.
    """
    return _sum_text(_terms(parse_expression(text)))


def _terms(tree: Tree | None) -> list[_Term]:
    """The flattened sum that ``tree`` is."""
    if tree is None:
        return []
    if isinstance(tree, int):
        return [(1, [(1, str(tree))])]
    op, left, right = tree
    if op in "+-":
        flip = 1 if op == "+" else -1
        return [*_terms(left), *((flip * sign, factors) for sign, factors in _terms(right))]
    (sign, factors), (other_sign, others) = _as_term(_terms(left)), _as_term(_terms(right))
    flip = 1 if op == "*" else -1
    return [(sign * other_sign, [*factors, *((flip * exponent, atom) for exponent, atom in others)])]


def _as_term(terms: list[_Term]) -> _Term:
    """A sum as one factor of a product; a sum of one term joins the product with its own factors."""
    return terms[0] if len(terms) == 1 else (1, [(1, f"({_sum_text(terms)})")])


def _sum_text(terms: list[_Term]) -> str:
    products = [(sign < 0, len(factors) > 1, _product_text(factors)) for sign, factors in terms]
    ordered = sorted(products, key=lambda product: (*product[:2], *_order(product[2])))
    return "".join(("-" if negative else "+") + text for negative, _, text in ordered).removeprefix("+")


def _product_text(factors: list[_Factor]) -> str:
    ordered = sorted(factors, key=lambda factor: (-factor[0], *_order(factor[1])))
    return "".join(("*" if exponent > 0 else "/") + atom for exponent, atom in ordered).removeprefix("*")


def _order(text: str) -> tuple[bool, int, str]:
    """Sort key: integers by value, before what is in brackets."""
    return text.startswith("("), len(text), text
