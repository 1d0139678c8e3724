"""iGSM problems: exact operation counts, sound graphs, text that a reader can answer, templates and splits."""

import os
import re
import string
import subprocess
import sys
from dataclasses import replace
from random import Random

import pytest

import tasks.igsm.dataset
from common.errors import UserError
from tasks.igsm.check import faults
from tasks.igsm.dataset import add_prompts, draw_item, draw_items, generate, load_igsm, problem_key
from tasks.igsm.dependency import abstract_parents, instances, operations
from tasks.igsm.problem import draw_problem, template
from tasks.igsm.reader import UnreadableProblemError, read_answer
from tasks.igsm.space import MOST_EDGES, ProblemSpace
from tasks.igsm.splits import SPLITS, check_leak, template_bin
from tasks.igsm.structure import Shape, draw_structure
from tasks.igsm.vocabulary import DRAWN, WORLDS


def drawn(op, count, seed=0, space=ProblemSpace(1, 40)):
    rng, problems = Random(seed), []
    while len(problems) < count:
        problem = draw_problem(op, space, rng)
        if problem is not None:
            problems.append(problem)
    return problems


@pytest.mark.parametrize("op", range(1, 31))
def test_operations_of_the_solution_are_exact(op):
    for problem in drawn(op, 34):
        costs = [operations(problem.formulas[quantity].parent_count) for quantity in problem.graph.order]
        assert sum(costs) == op
        assert all(
            cost <= 3 for quantity, cost in zip(problem.graph.order, costs, strict=True) if not quantity.is_abstract
        )


def test_every_necessary_quantity_leads_to_the_question_and_parents_come_first():
    for problem in drawn(17, 100):
        graph, needed, known = problem.graph, {problem.asked}, set()
        for quantity in reversed(graph.order):
            if quantity in needed:
                needed.update(graph.parents[quantity])
        assert needed == set(graph.order)
        for quantity in (*graph.order, *graph.redundant):
            assert known.issuperset(graph.parents[quantity])
            known.add(quantity)


def test_letters_suffice_for_the_largest_structure():
    largest = draw_structure(Shape(4, 4, 4, MOST_EDGES), Random(0))
    assert len(instances(largest)) + len(abstract_parents(largest)) == len(string.ascii_letters)


def test_every_edge_of_the_structure_has_one_condition():
    for problem in drawn(12, 50):
        edges = sum(len(children) for layer in problem.structure.children for children in layer)
        assert len(problem.conditions) == len(set(problem.conditions)) == edges <= 20
        assert problem.text().count("\n") == edges


def test_conditions_do_not_come_in_the_order_of_the_solution():
    for problem in drawn(15, 10):
        stated = [quantity for quantity in problem.conditions if quantity in problem.graph.order]
        assert stated != [quantity for quantity in problem.graph.order if not quantity.is_abstract]


def test_constants_stay_in_their_range():
    for modulus, largest in ((0, 9), (23, 22)):
        space = ProblemSpace(10, 15, modulus=modulus)
        constants = {
            formula.constant
            for problem in drawn(12, 60, space=space)
            for formula in problem.formulas.values()
            if formula.constant is not None
        }
        assert constants == set(range(largest + 1))


@pytest.mark.parametrize("modulus", [0, 23])
def test_a_reader_of_the_text_alone_finds_every_answer(modulus):
    space = ProblemSpace(4, 25, modulus=modulus)
    assert faults(draw_items(200, space, "all", seed=1)) == []


def test_reader_answers_a_hand_written_problem():
    text = (
        "The number of each Oak Crate's Apple equals 2.\n"
        "The number of each Pine Crate's Apple equals 3 times the sum of each Oak Crate's Apple"
        " and each Raft's Crate.\n"
        "The number of each Raft's Oak Crate equals 1 more than each Oak Crate's Apple.\n"
        "The number of each Raft's Pine Crate equals the difference of each Oak Crate's Apple"
        " and each Raft's Oak Crate.\n"
        "How many Fruit does each Raft have?"
    )
    assert read_answer(text) == 3 * 2 + -1 * (3 * (2 + 2))
    assert read_answer(f"All numbers are counted modulo 23.\n{text}") == (3 * 2 - 12) % 23


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The number of each Oak Crate's Apple equals 2.",
        "The number of each Raft's Apple equals each Raft's Apple.\nHow many Apple does each Raft have?",
        "The number of each Oak Crate's Apple equals 2.\nHow many Pear does each Oak Crate have?",
        "The number of each Oak Crate's Apple equals 2.\nHow many Ship does each Oak Crate have?",
        "Oak Crate: 2 apples.\nHow many Apple does each Oak Crate have?",
    ],
)
def test_reader_refuses_what_has_no_answer(text):
    with pytest.raises(UnreadableProblemError):
        read_answer(text)


def renamed(problem, rng):
    """The same problem in another world, with other names and constants."""
    structure = problem.structure
    world = rng.choice([world for world in WORLDS if world != structure.world])
    names = tuple(
        tuple(WORLDS[world][structure.first_category + len(structure.names) - 1 - layer].kinds[0][: len(things)])
        for layer, things in enumerate(structure.names)
    )
    formulas = {
        quantity: formula if formula.constant is None else replace(formula, constant=rng.randint(0, 9))
        for quantity, formula in problem.formulas.items()
    }
    values = {}
    for quantity in (*problem.graph.order, *problem.graph.redundant):
        values[quantity] = formulas[quantity].value(values)
    return replace(problem, structure=replace(structure, world=world, names=names), formulas=formulas, values=values)


def test_template_ignores_names_constants_and_order():
    rng = Random(3)
    for problem in drawn(12, 30):
        other = renamed(problem, rng)
        assert other.text() != problem.text()
        assert template(other) == template(problem)
        shuffled = rng.sample(problem.conditions, len(problem.conditions))
        assert template(replace(problem, conditions=tuple(shuffled))) == template(problem)


def template_with(problem, quantity, **changes):
    """Template of the problem in which one formula is changed."""
    changed = replace(problem.formulas[quantity], **changes)
    return template(replace(problem, formulas={**problem.formulas, quantity: changed}))


def test_template_tells_operators_apart_and_the_sides_of_a_difference():
    operators = sides = 0
    for problem in drawn(12, 60):
        for quantity in problem.graph.order:
            formula = problem.formulas[quantity]
            if formula.operator:
                other = "*" if formula.operator == "+" else "+"
                assert template_with(problem, quantity, operator=other) != template(problem)
                operators += 1
            turned = template_with(problem, quantity, terms=formula.terms[::-1])
            if formula.is_difference:
                assert template_with(problem, quantity, is_difference=False) != template(problem)
                sides += turned != template(problem)
            else:
                assert turned == template(problem)
    assert operators > 30 and sides > 30


def test_splits_share_no_template_at_few_operations_where_templates_repeat():
    space = ProblemSpace(4, 6)
    rows = {split: generate(150, split, 7, space) for split in ("train", "validation", "test")}
    assert len(set(rows["train"]["template"])) < 150
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not set(rows[first]["template"]) & set(rows[second]["template"])
    assert set(rows["train"]["template"]) & set(generate(150, "all", 7, space)["template"])
    check_leak("test", "train file", rows["train"]["template"])
    with pytest.raises(UserError, match="--split=all could repeat"):
        check_leak("all", "train file", rows["train"]["template"])


def test_split_bins_are_a_partition():
    bins = [one for split in ("train", "validation", "test") for one in SPLITS[split]]
    assert sorted(bins) == list(SPLITS["all"]) == list(range(23))
    assert {template_bin(f"{number:016x}") for number in range(100)} == set(range(23))


def test_items_depend_on_seed_split_and_index_alone():
    space = ProblemSpace(5, 9)
    alone = draw_item(3, space, "train", 5, set())
    first_five = list(draw_items(5, space, "train", 5))
    assert first_five[3].problem == alone.problem
    assert list(draw_items(5, space, "train", 5, start=3, seen={item.key for item in first_five[:3]})) == first_five[3:]
    assert draw_item(3, space, "train", 6, set()).problem.text() != alone.problem.text()


def test_problems_do_not_repeat_and_too_many_are_refused(monkeypatch):
    items = list(draw_items(400, ProblemSpace(2, 2), "all", 0))
    assert len({item.key for item in items}) == 400
    assert draw_item(0, ProblemSpace(2, 2), "all", 0, {items[0].key}).key != items[0].key
    shuffled = replace(items[0].problem, conditions=items[0].problem.conditions[::-1])
    assert problem_key(shuffled) == items[0].key
    monkeypatch.setattr(tasks.igsm.dataset, "_MOST_DRAWS", 500)
    with pytest.raises(UserError, match="no further iGSM problem of 1 operations and split 'train'"):
        draw_item(0, ProblemSpace(1, 1), "train", 0, set())


def test_exact_answers_are_bounded_and_zeros_can_go():
    answers = [item.problem.answer for item in draw_items(150, ProblemSpace(15, 20), "all", 2)]
    assert all(abs(answer) < 1000 for answer in answers)
    assert 0 in answers
    without = [item.problem.answer for item in draw_items(150, ProblemSpace(15, 20, zero_drop=1.0), "all", 2)]
    assert 0 not in without


def test_op_distributions():
    light = generate(300, "all", 1, ProblemSpace(5, 8, "light"))["op"]
    assert light.count(5) > 100 > 40 > light.count(8)
    # Problems of many operations are rejected more often, which must not make them rarer.
    uniform = generate(300, "all", 1, ProblemSpace(5, 24))["op"]
    assert all(45 <= sum(low <= op < low + 5 for op in uniform) <= 105 for low in (5, 10, 15, 20))


@pytest.mark.parametrize(
    "settings",
    [
        {"min_op": 0},
        {"min_op": 21, "max_op": 20},
        {"min_op": 15, "max_op": 41},
        {"max_op": 25, "max_edges": 12},
        {"max_edges": 1},
        {"max_edges": 29},
        {"modulus": 1},
        {"zero_drop": 1.5},
        {"op_distribution": "heavy"},
        {"world": "moon"},
    ],
)
def test_impossible_spaces_are_refused(settings):
    with pytest.raises(UserError, match="--"):
        ProblemSpace(**settings)


def test_a_world_that_is_asked_for_gives_all_problems_their_names():
    for item in draw_items(20, ProblemSpace(2, 4, modulus=7, world="brief"), "all", 0):
        assert item.problem.structure.world == "brief" and read_answer(item.problem.text()) == item.problem.answer
    worlds = {item.problem.structure.world for item in draw_items(60, ProblemSpace(2, 4), "all", 0)}
    assert worlds == set(DRAWN)


def test_largest_allowed_range_can_be_drawn():
    assert next(draw_items(1, ProblemSpace(24, 24, max_edges=12), "all", 0)).problem.op == 24
    assert next(draw_items(1, ProblemSpace(40, 40), "all", 0)).problem.op == 40


@pytest.mark.parametrize("edges", range(2, 12))
def test_a_small_graph_has_one_condition_per_edge_and_no_more_and_can_be_read(edges):
    for item in draw_items(20, ProblemSpace(1, 2 * edges, max_edges=edges), "all", 0):
        conditions = item.problem.text().count(" equals ")
        assert 2 <= conditions == len(instances(item.problem.structure)) <= edges
        assert read_answer(item.problem.text()) == item.problem.answer


def test_same_problem_and_trace_in_every_process():
    program = (
        "from random import Random; from tasks.igsm.problem import *; from tasks.igsm.trace import *;"
        "from tasks.igsm.space import ProblemSpace; rng = Random('1-train-0');"
        "p = next(filter(None, (draw_problem(17, ProblemSpace(15, 20), rng) for _ in range(99))));"
        "print(p.text(), solve(p, Behaviours(0.3), rng).text, template(p))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] and b"boxed" in outputs[0]


def test_global_random_generator_is_neither_used_nor_changed():
    import random

    random.seed(4)
    state = random.getstate()
    texts = [item.problem.text() for item in draw_items(3, ProblemSpace(5, 9), "all", 0)]
    assert random.getstate() == state
    random.seed(5)
    assert [item.problem.text() for item in draw_items(3, ProblemSpace(5, 9), "all", 0)] == texts


def test_prompts_and_loading(tmp_path):
    rows = generate(5, "train", 0, ProblemSpace(3, 5))
    rows.to_json(tmp_path / "rows.jsonl")
    loaded = load_igsm(tmp_path / "rows.jsonl")
    assert loaded["answer"] == rows["answer"]
    chat = add_prompts(loaded, "chat")
    assert set(chat.column_names) == {"prompt", "answer", "op", "template"}
    assert [message["role"] for message in chat[0]["prompt"]] == ["system", "user"]
    assert chat[0]["prompt"][1]["content"] == rows[0]["question"]
    assert add_prompts(loaded, "base")[0]["prompt"].endswith("Assistant: <think>\n")
    with pytest.raises(UserError, match="--prompt_style='poem'"):
        add_prompts(loaded, "poem")
    (tmp_path / "bad.jsonl").write_text('{"question": "q", "answer": "four", "op": 1, "template": "a"}\n')
    with pytest.raises(UserError, match="row 0 .* answer='four'"):
        load_igsm(tmp_path / "bad.jsonl")


def test_names_in_the_text_come_from_the_vocabulary():
    words = {name for categories in WORLDS.values() for one in categories for kind in one.kinds for name in kind}
    words |= {one.name for categories in WORLDS.values() for one in categories}
    for problem in drawn(15, 20):
        for owner, held in re.findall(r"each ([^']+)'s ([^',.]+?)(?=,|\.|\n| and | equals)", problem.text()):
            assert {owner, held} <= words
        assert set(problem.text()) <= set(string.ascii_letters + string.digits + " .,'?-\n")
