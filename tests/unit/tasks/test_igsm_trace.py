"""Worked iGSM solutions: plain ones step by step, injected behaviours as often and as true as they must be."""

import re
from dataclasses import replace
from random import Random
from statistics import mean, stdev

import pytest

from common.errors import UserError
from rewards.igsm import grade_igsm
from tasks.igsm.dataset import draw_items
from tasks.igsm.dependency import DependencyGraph, Quantity
from tasks.igsm.formula import Formula
from tasks.igsm.problem import Problem
from tasks.igsm.space import ProblemSpace
from tasks.igsm.structure import StructureGraph
from tasks.igsm.trace import ANALYSIS_LEVELS, KINDS, PLAIN, Behaviours, random_order, solve
from tasks.igsm.trace_table import MEASURED, MEASURED_ANALYSES, draw_traces, summary

MEASURED_COUNT = 500
ITEMS = list(draw_items(60, ProblemSpace(10, 20), "all", 11))


def lines(trace):
    return [line for line in trace.text.split("\n") if line.startswith("- ")]


def solved_letters(trace):
    """Letter -> value, of every line that computes one."""
    found = {}
    for line in lines(trace):
        match = re.search(r" So ([A-Za-z]) = (?:.* = )?(-?\d+)\.$", line)
        if match:
            assert match[1] not in found
            found[match[1]] = int(match[2])
    return found


def test_plain_trace_has_one_line_per_necessary_quantity():
    for item in ITEMS:
        trace = solve(item.problem, PLAIN, Random(1))
        assert len(lines(trace)) == trace.steps == len(item.problem.graph.order)
        assert trace.reflections == trace.analyses == 0 and trace.injected == []
        values = list(solved_letters(trace).values())
        assert values == [item.problem.values[quantity] for quantity in item.problem.graph.order]


@pytest.mark.parametrize("behaviours", [PLAIN, Behaviours(), Behaviours(1.0, 4)])
def test_trace_is_well_formed_and_right(behaviours):
    for item in ITEMS:
        grade = grade_igsm(solve(item.problem, behaviours, Random(2)).text, item.problem.answer)
        assert grade.strict


def test_every_attempt_ahead_ends_and_no_two_fail_in_a_row():
    for seed, item in enumerate(ITEMS):
        trace = solve(item.problem, Behaviours(1.0, 0), Random(seed))
        failed = [" So " not in line for line in lines(trace)]
        assert not any(first and second for first, second in zip(failed, failed[1:], strict=False))
        assert not failed[0] and not failed[-1] and sum(failed) == trace.reflections
        values = list(solved_letters(trace).values())
        for quantity in item.problem.graph.order:
            assert item.problem.values[quantity] in values
        assert len(values) >= len(item.problem.graph.order)
    assert trace.reflections > 0


def chain():
    """d = a + b + c + 1 with a, b, c constants, and the question e = d."""
    a, b, c, d, e = (Quantity(1, 0, 0, x) for x in range(5))
    structure = StructureGraph(
        "trade", 2, (("Fig", "Date", "Nut", "Leaf", "Seed"), ("Box",)), (((),) * 5, ((0, 1, 2, 3, 4),))
    )
    formulas = {
        a: Formula((), 2),
        b: Formula((), 3),
        c: Formula((), 4),
        d: Formula(((a,), (b,), (c,)), 1, "+"),
        e: Formula(((d,),)),
    }
    values = {a: 2, b: 3, c: 4, d: 10, e: 10}
    parents = {quantity: formula.quantities for quantity, formula in formulas.items()}
    graph = DependencyGraph((a, b, c, d, e), (), parents, frozenset((a, b, c, d)))
    return Problem(structure, graph, 4, formulas, values, 0, (a, b, c, d, e))


def test_a_locked_attempt_names_exactly_what_is_missing_and_is_taken_up_again():
    seen = set()
    for seed in range(200):
        trace = solve(chain(), Behaviours(0.5, 0), Random(seed))
        written = lines(trace)
        for place, line in enumerate(written):
            if "Box's Leaf" not in line or "Box's Seed" in line or " So " in line:
                continue
            before = " ".join(earlier for earlier in written[:place] if " So " in earlier)
            missing = [name for name in ("Fig", "Date", "Nut") if f"Box's {name}" not in before]
            assert [name for name in ("Fig", "Date", "Nut") if f"Box's {name}" in line] == missing
            seen.add(len(missing))
            letter = re.search(r"\b(?:Let|Write|With|letter is|Call it|I write|the letter) ([A-Za-z])\b", line)[1]
            again = [later for later in written[place + 1 :] if "Box's Leaf" in later and " So " in later]
            assert f"already has the letter {letter}." in again[0]
            assert f"So {letter} = " in again[0] and again[0].endswith("= 10.")
    assert seen == {1, 2}


def test_letters_are_different():
    for item in ITEMS:
        trace = solve(item.problem, Behaviours(1.0), Random(3))
        letters = [line.split(" So ")[1][0] for line in lines(trace) if " So " in line]
        assert len(letters) == len(set(letters))


def test_stepwise_writes_one_operation_at_a_time():
    changed = 0
    for item in ITEMS:
        plain = solve(item.problem, PLAIN, Random(1))
        stepwise = solve(item.problem, Behaviours(0.0, 0, True), Random(1))
        changed += lines(plain) != lines(stepwise)
        for short, long in zip(lines(plain), lines(stepwise), strict=True):
            assert (
                long.startswith(short.rpartition(" = ")[0]) and long.rpartition(" = ")[2] == short.rpartition(" = ")[2]
            )
        without = stepwise.text
        for span in reversed(stepwise.injected):
            assert span["kind"] == "computation"
            without = without[: span["start"]] + without[span["end"] :]
        assert without == plain.text
    assert changed > 50


def test_analysis_level_4_restates_every_condition_and_level_0_none():
    for item in ITEMS:
        problem = item.problem
        wanted = [
            quantity for quantity in problem.graph.order if not quantity.is_abstract and problem.graph.parents[quantity]
        ]
        trace = solve(problem, Behaviours(0.0, 4), Random(1))
        assert trace.analyses == len(wanted)
        for quantity in wanted:
            assert f"it equals {problem.definition(quantity)}." in trace.text
        assert solve(problem, Behaviours(0.0, 0), Random(1)).analyses == 0


def test_analysis_chances():
    tables = {
        0: [0, 0, 0, 0, 0, 0],
        1: [0, 0, 0.1, 0.4, 0.8, 1],
        2: [0, 0.1, 0.4, 0.8, 1, 1],
        3: [0, 0.4, 0.8, 1, 1, 1],
        4: [0, 1, 1, 1, 1, 1],
    }
    assert len(ANALYSIS_LEVELS) == len(tables)
    for level, chances in tables.items():
        assert [Behaviours(analysis_level=level).p_analysis(count) for count in range(6)] == chances


def test_injected_spans_cover_what_a_plain_trace_would_not_hold():
    kinds = set()
    for seed, item in enumerate(ITEMS):
        trace = solve(item.problem, Behaviours(0.3, 2), Random(seed))
        end = 0
        for span in trace.injected:
            assert end <= span["start"] < span["end"] <= len(trace.text)
            end = span["end"]
            text = trace.text[span["start"] : end]
            kinds.add(span["kind"])
            if span["kind"] == "exploration":
                assert text.startswith("- ") and text.endswith("\n") and text.count("\n") == 1
            elif span["kind"] == "analysis":
                assert text.startswith(" By its condition") and text.endswith(".")
            else:
                assert text.startswith(" = ")
        explored = [span for span in trace.injected if span["kind"] == "exploration"]
        assert trace.steps - len(explored) == len(item.problem.graph.order)
    assert kinds == set(KINDS)


def test_content_spans_are_names_equations_and_values():
    problem = ITEMS[0].problem
    trace = solve(problem, Behaviours(0.5, 4), Random(0))
    texts = {kind: [] for kind in ("name", "equation", "value")}
    for span in trace.content:
        texts[span["kind"]].append(trace.text[span["start"] : span["end"]])
    names = {problem.name(quantity) for quantity in problem.formulas}
    assert len(texts["name"]) == trace.steps and set(texts["name"]) <= names
    assert len(texts["equation"]) == len(texts["value"]) == trace.steps - trace.reflections
    assert all(text.endswith(" = ") for text in texts["equation"])
    assert {int(text) for text in texts["value"]} <= set(problem.values.values())


def test_random_orders_vary_and_keep_parents_first():
    orders = set()
    for seed in range(20):
        order = random_order(ITEMS[0].problem, Random(seed))
        known = set()
        for quantity in order:
            assert known.issuperset(ITEMS[0].problem.graph.parents[quantity])
            known.add(quantity)
        assert order[-1] == ITEMS[0].problem.asked and len(known) == len(order)
        orders.add(order)
    assert len(orders) > 5


def test_trace_modulo_23_stays_in_range():
    for item in draw_items(20, ProblemSpace(10, 15, modulus=23), "all", 0):
        trace = solve(item.problem, Behaviours(), Random(0))
        assert all(0 <= value < 23 for value in solved_letters(trace).values())
        assert grade_igsm(trace.text, item.problem.answer).strict


@pytest.mark.parametrize("rate", list(MEASURED))
def test_counts_match_those_of_the_published_program(rate):
    """Within four standard errors of the difference between their sample of 500 and ours."""
    count = 400
    traces = draw_traces(count, ProblemSpace(15, 20, "light"), 100, replace(Behaviours(), p_reflect=rate))
    steps, reflections, share, analyses = summary(traces)
    root = (1 / count + 1 / MEASURED_COUNT) ** 0.5
    wanted = MEASURED[rate]
    assert abs(steps - wanted[0]) < 4 * root * stdev(trace.steps for trace in traces) + 0.05
    assert abs(reflections - wanted[1]) <= 4 * root * stdev(trace.reflections for trace in traces)
    assert abs(share - wanted[2]) <= 4 * root * stdev(float(trace.reflections > 0) for trace in traces)
    margin = 4 * root * stdev(trace.analyses for trace in traces)
    assert MEASURED_ANALYSES[0] - margin < analyses < MEASURED_ANALYSES[1] + margin
    assert mean(len(lines(trace)) for trace in traces) == steps


@pytest.mark.parametrize("settings", [{"p_reflect": 1.1}, {"p_reflect": -0.1}, {"analysis_level": 5}])
def test_impossible_behaviours_are_refused(settings):
    with pytest.raises(UserError, match="--"):
        Behaviours(**settings)
