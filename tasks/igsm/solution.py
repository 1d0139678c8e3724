"""The normal form of an iGSM solution: which quantities it computes rightly, and from which others, in any order.

Solutions are read in the notation of `tasks.igsm.trace`: one line per step that names a quantity ("each Y's X") and
ends with an equation, a letter for the quantity, its formula in the letters of other quantities, and its value. Other
notations are not read. Texts are of any origin: every pattern is bounded, and nothing raises.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from rewards.grade import Grade
from rewards.graders import GRADERS
from rewards.igsm import read_integer
from tasks.igsm.dataset import question_of
from tasks.igsm.reader import CATEGORIES, Key, Reading, UnreadableProblemError, read_problem

_OWNER = re.compile(r"each ([^'\n]{1,60})'s ")
_EQUATION = re.compile(r"(?<![A-Za-z])([A-Za-z]) = ([^.\n]{1,400})\.")
_LETTER = re.compile(r"[A-Za-z]+")

Step = tuple[Key, frozenset[Key]]


def approach(prompt: str | list[dict], completion: str) -> str | None:
    """`approach_to` the problem in ``prompt``."""
    return approach_to(question_of(prompt), completion)


def approach_to(question: str, completion: str) -> str | None:
    """The steps of ``completion`` that `accepted_steps` takes, one spelling for each set of them; None without any."""
    try:
        steps = accepted_steps(_problem(question), completion)
    except UnreadableProblemError:
        return None
    return "; ".join(sorted(_spelt_step(*step) for step in steps)) or None


def grade_solution(completion: str, row: dict) -> Grade:
    """The grade of `rewards.graders`, with the `approach` that ``completion`` takes to the problem of ``row``.

    ``row`` holds gold, and the problem as question or in its prompt; the text of a prompt's last user turn will do.
    """
    asked = row.get("question") or row["prompt"]
    asked = asked if isinstance(asked, str) and not question_of(asked) else question_of(asked)
    return replace(GRADERS["igsm"](completion, row), approach=approach_to(asked, completion))


@lru_cache(maxsize=256)
def _problem(question: str) -> Reading:
    return read_problem(question)


def _spelt_step(key: Key, parents: frozenset[Key]) -> str:
    names = ", ".join(sorted(map(_spelt, parents)))
    return f"{_spelt(key)} <- {names}" if names else _spelt(key)


def _spelt(key: Key) -> str:
    return f"{key[0]}'s {key[1]}"


def accepted_steps(problem: Reading, completion: str) -> frozenset[Step]:
    """(quantity, parents) of each step whose formula has exactly the parents that the problem's conditions give the
    quantity, and whose value is the quantity's."""
    return frozenset(
        (key, parents)
        for key, parents, value in _written_steps(problem, completion)
        if _is_known(problem, key) and problem.parents(key) == parents and problem.value(key) == value
    )


def _is_known(problem: Reading, key: Key) -> bool:
    try:
        problem.value(key)
    except UnreadableProblemError:
        return False
    return True


def _written_steps(problem: Reading, completion: str) -> Iterator[tuple[Key, frozenset[Key], int]]:
    """Quantity, parents and value of each line that states them, whether right or wrong."""
    letters: dict[str, Key] = {}
    held = {name for _, name in problem.conditions} | CATEGORIES.keys()
    for line in completion.split("\n"):
        key, equations = _first_quantity(line, held), _EQUATION.findall(line)
        if key is None or not equations:
            continue
        letter, sides = equations[-1]
        formula, *_, result = [*sides.split(" = "), sides.rsplit(" = ", 1)[-1]]
        names, value = _LETTER.findall(formula), read_integer(result)
        if value is not None and letters.keys() >= set(names):
            yield key, frozenset(letters[name] for name in names), value
        letters[letter] = key


def _first_quantity(line: str, held: set[str]) -> Key | None:
    """The quantity that a line names first, of things and categories ``held``."""
    owner = _OWNER.search(line)
    if owner is None:
        return None
    rest = line[owner.end() : owner.end() + 61]
    found = [name for name in held if re.match(rf"{re.escape(name)}(?![A-Za-z-])", rest)]
    return (owner[1], max(found, key=len)) if found else None
