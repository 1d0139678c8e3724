"""The Countdown generator: solvable, distinct, deterministic problems in disjoint splits, and its prompts."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from common.errors import UserError
from rewards.countdown import Verdict, judge
from rewards.expression import evaluate_expression
from tasks.countdown.problems import (
    SPLITS,
    ProblemSpace,
    add_prompts,
    apply,
    draw_expression,
    generate,
    problem_key,
    prompt,
    split_of,
    with_parts,
)
from tasks.countdown.warm_start import traces
from training.tiny_policy import SPACE

ROOT = Path(__file__).parents[3]


def reachable(values: tuple[int, ...]) -> set[int]:
    """Every value of an expression over all ``values`` with non-negative integers on the way: exhaustive search."""
    if len(values) == 1:
        return {values[0]}
    found = set()
    for i in range(len(values)):
        for j in range(len(values)):
            if i == j:
                continue
            rest = tuple(value for index, value in enumerate(values) if index not in (i, j))
            for op in "+-*/":
                value = apply(op, values[i], values[j])
                if value is not None:
                    found |= reachable((*rest, value))
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_every_problem_is_solved_by_its_witness_and_by_exhaustive_search(split):
    for row in generate(60, split, seed=1):
        answer = f"<answer>{row['solution']}</answer>"
        assert judge(answer, row["numbers"], row["target"]) is Verdict.CORRECT
        assert row["target"] in reachable(tuple(row["numbers"]))


def test_unsolvable_problems_are_not_reachable():
    assert 24 not in reachable((1, 1, 1, 1)) and 9 not in reachable((1, 1))


def test_problems_keep_to_their_space():
    space = ProblemSpace(min_numbers=5, max_numbers=6, max_number=30, min_target=50, max_target=60)
    rows = generate(50, "train", 0, space)
    assert {len(row["numbers"]) for row in rows} == {5, 6}
    assert all(1 <= number <= 30 for row in rows for number in row["numbers"])
    assert all(50 <= row["target"] <= 60 for row in rows)


def test_splits_are_disjoint_as_problems_whatever_the_seeds():
    keys = {
        split: {
            problem_key(row["numbers"], row["target"]) for seed in (0, 1) for row in generate(300, split, seed, SPACE)
        }
        for split in SPLITS
    }
    assert not keys["train"] & keys["validation"] and not keys["train"] & keys["test"]
    assert not keys["validation"] & keys["test"]


def test_a_split_ignores_the_order_of_the_numbers():
    assert split_of([3, 1, 2], 6) == split_of([1, 2, 3], 6)


def test_problems_are_distinct():
    rows = generate(500, "train", 0, SPACE)
    assert len({problem_key(row["numbers"], row["target"]) for row in rows}) == 500


def test_same_seed_gives_the_same_problems_in_another_process():
    code = (
        "from tasks.countdown.problems import generate; import json; "
        "print(json.dumps(generate(20, 'train', 5).to_list()))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={"PYTHONHASHSEED": "77"}, check=True
    )
    assert json.loads(output.stdout) == generate(20, "train", 5).to_list()
    assert generate(20, "train", 6).to_list() != generate(20, "train", 5).to_list()


def test_asking_for_more_problems_than_exist_says_how_many_there_are(monkeypatch):
    monkeypatch.setattr("tasks.countdown.problems._MAX_FRUITLESS_DRAWS", 500)
    with pytest.raises(UserError, match="only [0-9]+ distinct ones exist"):
        generate(1000, "train", 0, ProblemSpace(min_numbers=3, max_numbers=3, max_number=4, max_value=99))


def test_a_space_without_problems_is_refused_and_not_searched_for_ever(monkeypatch):
    monkeypatch.setattr("tasks.countdown.problems._MAX_REJECTED_DRAWS", 1000)
    with pytest.raises(UserError, match="--max_number=1 --min_target=10 .* no problem of the split 'train' in 1000"):
        generate(5, "train", 0, ProblemSpace(3, 3, max_number=1, min_target=10))


@pytest.mark.parametrize("bad", [{"min_numbers": 1}, {"max_numbers": 7}, {"max_number": 0}, {"min_target": 200}])
def test_impossible_spaces_are_refused(bad):
    with pytest.raises(UserError):
        ProblemSpace(**bad)


def test_rendered_steps_all_have_the_value_of_the_expression():
    rng = Random(0)
    for _ in range(200):
        numbers = [rng.randint(1, 20) for _ in range(rng.randint(3, 6))]
        expression = draw_expression(numbers, rng, 9999)
        if expression is None:
            continue
        values = {evaluate_expression(expression.render(computed))[0] for computed in range(len(numbers))}
        assert values == {expression.value}
        assert sorted(evaluate_expression(expression.render())[1]) == sorted(numbers)


def test_traces_answer_only_with_a_hit_and_about_half_of_them_do():
    answered = 0
    for question, completion in islice(traces(SPACE, 0), 400):
        numbers, target = question.removeprefix("Numbers: ").rstrip(".").split(". Target: ")
        numbers, target = list(map(int, numbers.split())), int(target)
        assert split_of(numbers, target) == "train"
        verdict = judge(completion, numbers, target)
        assert verdict in (Verdict.CORRECT, Verdict.NO_ANSWER)
        answered += verdict is Verdict.CORRECT
        for line in completion.split("</think>")[0].splitlines()[1:]:
            steps, mark = line.rsplit(" ", 1)
            values = {evaluate_expression(step)[0] for step in steps.split("=")}
            (value,) = values
            assert mark == ("hit" if value == target else "low" if value < target else "high")
    assert 150 < answered < 250


def test_chat_and_base_prompts_hold_the_problem_and_unknown_styles_are_refused():
    chat = prompt([3, 5, 7], 22, "chat")
    assert [message["role"] for message in chat] == ["system", "user"] and "3 5 7" in chat[1]["content"]
    base = prompt([3, 5, 7], 22, "base")
    assert "3 5 7" in base and "22" in base and base.endswith("<think>")
    with pytest.raises(UserError, match="haiku"):
        prompt([1, 2, 3], 6, "haiku")


def test_rows_for_training_hold_no_solution_and_say_their_part_where_there_are_several():
    alike = with_parts(generate(3, "train", 0, ProblemSpace(3, 3)))
    assert set(add_prompts(alike, "chat").column_names) == {"prompt", "numbers", "target"}
    mixed = add_prompts(with_parts(generate(20, "train", 0, ProblemSpace(2, 3))), "chat")
    assert mixed["part"] == [f"{len(numbers)}_numbers" for numbers in mixed["numbers"]] and len(set(mixed["part"])) == 2


def test_the_order_of_the_numbers_makes_no_other_problem():
    assert problem_key([7, 3, 5], 12) == problem_key([5, 7, 3], 12) != problem_key([5, 7, 3], 13)
    assert split_of([7, 3, 5], 12) == split_of([3, 5, 7], 12)


def test_operations_stay_among_the_whole_numbers_from_zero_on():
    assert [apply(op, 6, 3) for op in "+-*/"] == [9, 3, 18, 2]
    assert apply("-", 3, 6) is None and apply("/", 7, 3) is None and apply("/", 7, 0) is None


def test_no_step_of_a_solution_exceeds_the_largest_value():
    def values(node):
        return [node.value] + (values(node.left) + values(node.right) if node.op else [])

    rng = Random(0)
    drawn = [draw_expression([12, 9, 14, 13], rng, max_value=200) for _ in range(500)]
    solutions = [node for node in drawn if node is not None]
    assert len(solutions) > 100 and max(max(values(node)) for node in solutions) <= 200
