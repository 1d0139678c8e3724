"""Arithmetic of iGSM: values, written formulas, and the reductions one operation at a time."""

from random import Random

import pytest

from rewards.expression import evaluate_expression
from tasks.igsm.dependency import Quantity, abstract_parents, operations
from tasks.igsm.formula import Formula
from tasks.igsm.structure import StructureGraph

A, B, C, D = (Quantity(1, 0, 0, x) for x in range(4))
VALUES = {A: 9, B: 26, C: 4, D: 1}
LETTERS = {A: "p", B: "q", C: "r", D: "s"}


def sum_of(*quantities, **kwargs):
    return Formula(tuple((quantity,) for quantity in quantities), **kwargs)


@pytest.mark.parametrize(
    ("formula", "values", "value", "cost"),
    [
        (Formula((), 7), {}, 7, 1),
        (sum_of(A, constant=2, operator="*"), {A: 3}, 6, 1),
        (sum_of(A, B, is_difference=True), {A: 4, B: 9}, -5, 1),
        (sum_of(B, A, is_difference=True), {A: 4, B: 9}, 5, 1),
        (sum_of(A, B, constant=7, operator="*"), {A: 2, B: 3}, 35, 2),
        (sum_of(A, B, C), {A: 4, B: 1, C: 4}, 9, 2),
        (Formula(((A, B), (C, D))), {A: 2, B: 3, C: 1, D: 5}, 11, 3),
    ],
)
def test_value_and_operations(formula, values, value, cost):
    assert formula.value(values) == value
    assert operations(formula.parent_count) == cost
    assert formula.reductions(values)[-1] == str(value)


@pytest.mark.parametrize(
    ("formula", "values", "value"),
    [
        (sum_of(A, constant=20, operator="+"), {A: 9}, 6),
        (sum_of(A, constant=4, operator="*"), {A: 9}, 13),
        (sum_of(A, B, is_difference=True), {A: 3, B: 9}, 17),
    ],
)
def test_modulus_23(formula, values, value):
    assert formula.value(values, 23) == value
    assert formula.reductions(values, 23)[-1] == str(value)


def test_formula_is_written_in_letters():
    assert sum_of(A, B, constant=7, operator="*").write(LETTERS.get) == "7 * (p + q)"
    assert sum_of(A, constant=7, operator="+").write(LETTERS.get) == "7 + p"
    assert Formula(((A, B), (C, D))).write(LETTERS.get) == "p * q + r * s"


@pytest.mark.parametrize(
    ("formula", "steps"),
    [
        (sum_of(C, D, C), ["4 + 1 + 4", "5 + 4", "9"]),
        (sum_of(A, B, constant=7, operator="*", is_difference=True), ["7 * (9 - 26)", "7 * (-17)", "-119"]),
        (Formula(((C, D), (A, C))), ["4 * 1 + 9 * 4", "4 + 9 * 4", "4 + 36", "40"]),
        (sum_of(A), ["9"]),
    ],
)
def test_reductions_do_one_operation_each(formula, steps):
    assert formula.reductions(VALUES) == steps


def test_negative_number_inside_is_bracketed():
    assert sum_of(A, B, is_difference=True).reductions({A: -3, B: -4})[0] == "-3 - (-4)"
    assert sum_of(A, constant=2, operator="*").reductions({A: -3})[0] == "2 * (-3)"
    assert sum_of(A, B, constant=2, operator="*").reductions({A: -3, B: 1})[0] == "2 * (-3 + 1)"


@pytest.mark.parametrize("modulus", [0, 23])
def test_every_side_of_a_reduction_equals_the_value(modulus):
    rng = Random(0)
    for _ in range(200):
        quantities = rng.sample([A, B, C, D], rng.randint(1, 4))
        constant = rng.choice([None, rng.randint(0, 9)])
        operator = "" if constant is None else rng.choice("+*")
        formula = sum_of(
            *quantities, constant=constant, operator=operator, is_difference=len(quantities) == 2 and rng.random() < 0.5
        )
        values = {quantity: rng.randint(0, 22) if modulus else rng.randint(-99, 99) for quantity in quantities}
        for side in formula.reductions(values, modulus):
            assert (evaluate_expression(side)[0] - formula.value(values, modulus)) % (modulus or 10**12) == 0


def test_abstract_quantities_follow_from_the_structure():
    structure = StructureGraph("music", 1, (("a", "b"), ("c",), ("d",)), (((), ()), ((0, 1),), ((0,),)))
    parents = abstract_parents(structure)
    whole = Quantity(1, 0, 0, -1)
    assert parents[whole] == (Quantity(1, 0, 0, 0), Quantity(1, 0, 0, 1))
    assert parents[Quantity(2, 0, 0, -1)] == (Quantity(2, 0, 1, 0), whole)
