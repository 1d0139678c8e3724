"""Problems with several right approaches: counted by the normal form that the grader logs."""

from itertools import permutations, product

import pytest

from common.errors import UserError
from rewards.expression import ZeroDivisorError, evaluate_expression, normal_form
from tasks.countdown.approaches import approaches, has_approaches
from tasks.countdown.options import CountdownOptions, load_problems
from tasks.countdown.problems import ProblemSpace, generate

SPACE = ProblemSpace(3, 3, 15, max_value=99, min_approaches=2)
SHAPES = ("(({}{}{}){}{}){}{}", "({}{}({}{}{})){}{}", "({}{}{}){}({}{}{})", "{}{}(({}{}{}){}{})", "{}{}({}{}({}{}{}))")


def written_out(numbers, target):
    """Normal forms of every text over four numbers, each evaluated as the grader does."""
    found = set()
    for a, b, c, d in set(permutations(numbers)):
        for (x, y, z), shape in product(product("+-*/", repeat=3), SHAPES):
            text = shape.format(a, x, b, y, c, z, d)
            try:
                if evaluate_expression(text)[0] == target:
                    found.add(normal_form(text))
            except ZeroDivisorError:
                continue
    return found


@pytest.mark.parametrize(("numbers", "target"), [((2, 4, 6, 8), 24), ((1, 1, 5, 5), 20), ((3, 3, 8, 8), 24)])
def test_all_normal_forms_are_found_once(numbers, target):
    found = list(approaches(numbers, target))
    assert len(found) == len(set(found)) and set(found) == written_out(numbers, target)


def test_values_between_may_be_fractions():
    assert list(approaches((1, 5, 5, 5), 24)) == ["5*(5-1/5)"]


def test_generated_problems_have_as_many_approaches_as_asked_for():
    rows = generate(30, "train", 0, SPACE)
    assert all(len(set(approaches(tuple(row["numbers"]), row["target"]))) > 1 for row in rows)
    plain = generate(200, "train", 0, ProblemSpace(3, 3, 15, max_value=99))
    assert sum(has_approaches(tuple(row["numbers"]), row["target"], 2) for row in plain) < 50


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"min_approaches": 0}, "--min_approaches=0 must be at least 1"),
        ({"min_approaches": 2, "max_numbers": 5}, "--min_approaches=2 --max_numbers=5: .* at most 4 numbers"),
        ({"min_approaches": 2, "data": "some.jsonl"}, "leave it out beside --data='some.jsonl'"),
        ({"min_approaches": 500, "max_numbers": 3, "max_number": 3}, "--min_approaches=500: no problem of the split"),
    ],
)
def test_what_cannot_be_counted_or_found_is_refused(flags, said, monkeypatch):
    monkeypatch.setattr("tasks.countdown.problems._MAX_REJECTED_DRAWS", 1000)
    with pytest.raises(UserError, match=said):
        load_problems(CountdownOptions(**flags), 4, 0)
