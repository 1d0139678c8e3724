"""The normal form of an iGSM solution: the steps that the problem's conditions bear out, whatever their order."""

from random import Random

import pytest

from intrinsic.flags.rarity import APPROACH_TASKS
from rewards.countdown import CountdownReward
from rewards.graders import GRADERS
from rewards.gsm8k import gsm8k_rewards, math_rewards
from rewards.igsm import igsm_rewards
from run_igsm import scoring
from tasks.igsm.dataset import draw_items, prompt, question_of
from tasks.igsm.options import IGSMOptions
from tasks.igsm.reader import read_problem
from tasks.igsm.solution import accepted_steps, approach
from tasks.igsm.space import ProblemSpace
from tasks.igsm.trace import PLAIN, Behaviours, random_order, solve
from tests.quick import assert_quick

ITEMS = [
    *draw_items(15, ProblemSpace(10, 20), "all", 11),
    *draw_items(5, ProblemSpace(10, 20, modulus=23), "all", 11),
]
QUESTION = (
    "The number of each Oak Crate's Apple equals 3.\n"
    "The number of each Oak Crate's Pear equals 2 more than each Oak Crate's Apple.\n"
    "How many Fruit does each Oak Crate have?"
)
APPLE = "- It is stated that the number of each Oak Crate's Apple equals 3. Its letter is a. So a = 3."
PEAR = "- Let b stand for the number of each Oak Crate's Pear. So b = 2 + a = 2 + 3 = 5."
FRUIT = "- Next comes the number of each Oak Crate's Fruit. I write c for it. So c = a + b = 3 + 5 = 8."
WHOLE = (
    "Oak Crate's Apple; Oak Crate's Fruit <- Oak Crate's Apple, Oak Crate's Pear; Oak Crate's Pear <- Oak Crate's Apple"
)


def read(*lines, style="chat"):
    return approach(prompt(QUESTION, style), "<think>\n" + "\n".join(lines) + "\n</think>\n<answer>8</answer>")


def steps_of(problem):
    """What the generator knows of its own problem, as the reader names it."""

    def key(quantity):
        return problem.structure.names[quantity.layer][quantity.y], problem.held_name(quantity)

    parents = problem.graph.parents
    return {(key(quantity), frozenset(map(key, parents[quantity]))) for quantity in problem.graph.order}


def test_worked_solutions_are_read_whole():
    """Plain ones hold the necessary steps and nothing else; injected ones may hold more."""
    for item in ITEMS:
        problem, reading = item.problem, read_problem(item.problem.text())
        assert accepted_steps(reading, solve(problem, PLAIN, Random(1)).text) == steps_of(problem)
        injected = solve(problem, Behaviours(0.3, 2, True), Random(2), random_order(problem, Random(2)))
        assert accepted_steps(reading, injected.text) >= steps_of(problem)


@pytest.mark.parametrize("style", ["chat", "base"])
def test_order_letters_and_wording_do_not_matter(style):
    for item in ITEMS[:5]:
        question = item.problem.text()
        orders = [random_order(item.problem, Random(seed)) for seed in range(3)]
        texts = {solve(item.problem, PLAIN, Random(seed), orders[seed]).text for seed in range(3)}
        assert len(texts) == 3 and len({approach(prompt(question, style), text) for text in texts}) == 1
        assert question_of(prompt(question, style)) == question


@pytest.mark.parametrize(
    ("lines", "form"),
    [
        ((APPLE, PEAR, FRUIT), WHOLE),
        ((APPLE, PEAR, FRUIT, FRUIT), WHOLE),
        ((APPLE, PEAR), "Oak Crate's Apple; Oak Crate's Pear <- Oak Crate's Apple"),
        ((APPLE, PEAR.replace("= 5.", "= 6.")), "Oak Crate's Apple"),  # wrong value
        ((APPLE, PEAR.replace("2 + a", "5 * 1")), "Oak Crate's Apple"),  # right value by no parent
        ((APPLE, FRUIT), "Oak Crate's Apple"),  # a letter nobody named
        ((APPLE, PEAR.replace("Pear", "Plum")), "Oak Crate's Apple"),  # nothing the problem knows
        ((APPLE.replace("= 3.", "= three."),), None),
        (("The answer is 8.",), None),
        ((), None),
    ],
)
def test_only_steps_that_the_conditions_bear_out_count(lines, form):
    assert read(*lines) == read(*lines, style="base") == form


@pytest.mark.parametrize("owner", ["Nowhere", "Oak Crate\ufffd", "Fruit", "Apple", "Mull", "Schooner", "x" * 60])
@pytest.mark.parametrize("held", ["Fruit", "Apple", "Tool", "Crate"])
def test_things_that_the_problem_does_not_have_are_no_step(owner, held):
    """A policy names what it likes; reading it must not end a run."""
    assert read(f"- Let q stand for the number of each {owner}'s {held}. So q = 3.") is None


def test_solutions_with_words_changed_are_read_without_an_error():
    rng = Random(0)
    solutions = [(item.problem.text(), solve(item.problem, Behaviours(0.3, 4, True), rng).text) for item in ITEMS]
    pool = [word for _, text in solutions for word in text.split(" ")] + ["\ufffd", "9" * 50, "'s", "=", "²"]
    for _ in range(600):
        question, text = rng.choice(solutions)
        words = text.split(" ")
        for place in rng.sample(range(len(words)), 12):
            words[place] = rng.choice(["", words[place] + rng.choice(pool), rng.choice(pool)])
        assert isinstance(approach(prompt(question, "chat"), " ".join(words)), str | None)


def test_no_problem_has_no_approach():
    assert approach(prompt("There are 3 pens in each box.", "chat"), APPLE) is None


@pytest.mark.parametrize(
    "line", ["each " * 4_000, "a = " * 2_000, ("- each Oak Crate's Apple a = " + "1 = " * 50 + ".") * 500]
)
def test_long_lines_take_linear_time(line):
    assert read(line) is None
    assert_quick(lambda: read(line))


def logged(column, prompts, completions, **fields):
    columns = {}
    column(prompts, completions, log_extra=columns.__setitem__, **fields)
    return columns


def logged_by_all(columns, prompts, completions, **fields):
    found = {}
    for column in columns:
        found |= logged(column, prompts, completions, **fields)
    return found


def test_the_tasks_that_tell_approaches_are_those_that_say_so():
    """`--rarity_partition exact` is refused by this list before anything is known of the rewards."""
    igsm = scoring(IGSMOptions()).columns[0]
    texts = ["\n".join([APPLE, PEAR]) + "\n<answer>\\boxed{8}</answer>", "nothing"]
    told = {
        "igsm": logged(igsm, [prompt(QUESTION, "chat")] * 2, texts, answer=[8, 8]),
        "countdown": logged(
            CountdownReward(), ["q"] * 2, ["<answer>5*4+3</answer>", "x"], numbers=[[3, 4, 5]] * 2, target=[23] * 2
        ),
        "gsm8k": logged_by_all(
            gsm8k_rewards(GRADERS["number"], False, False, 9), ["q"], ["<answer>8</answer>"], gold=["8"]
        ),
        "math": logged_by_all(math_rewards(GRADERS["latex"], False, 9), ["q"], ["<answer>8</answer>"], gold=["8"]),
    }
    assert {task for task, columns in told.items() if "approach" in columns} == set(APPROACH_TASKS)
    assert told["igsm"]["approach"] == ["Oak Crate's Apple; Oak Crate's Pear <- Oak Crate's Apple", ""]
    assert told["countdown"]["approach"] == ["3+4*5", ""]
    assert "approach" not in logged(igsm_rewards()[0], [""], texts[:1], answer=[8]), "only where a reader is given"
