"""A reader that answers an iGSM problem from its text alone, to check the generator.

It shares nothing with the generator but the vocabulary, which tells a thing from a category and which category is
finer. What holds what is read from the conditions, since every instance quantity has one.
"""

import re
from dataclasses import dataclass, field

from tasks.igsm.vocabulary import Place, category_places, name_places

_CONDITION = re.compile(r"The number of each ([^']+)'s ([^']+) equals (.+)\.")
_QUESTION = re.compile(r"How many ([^']+) does each ([^']+) have\?")
_MODULUS = re.compile(r"All numbers are counted modulo (\d+)\.")
_CONSTANT = re.compile(r"(\d+)(?: (more than|times) (.+))?")
_GROUP = re.compile(r"the (sum|difference) of (.+)")
_NAME = re.compile(r"each ([^']+)'s ([^']+)")

Key = tuple[str, str]
_NAMES: dict[str, Place] = name_places()
CATEGORIES: dict[str, Place] = category_places()


class UnreadableProblemError(ValueError):
    """The text is not a problem, or its conditions do not settle the answer."""


@dataclass
class Reading:
    """What is known of one problem: what is asked, the conditions as text, and the values found so far."""

    asked: Key | None = None
    modulus: int = 0
    conditions: dict[Key, str] = field(default_factory=dict)
    values: dict[Key, int] = field(default_factory=dict)
    pending: set[Key] = field(default_factory=set)

    def value(self, key: Key) -> int:
        """The number of ``key[1]`` in each ``key[0]``."""
        if key not in self.values:
            if key in self.pending:
                raise UnreadableProblemError(f"{key} depends on itself")
            self.pending.add(key)
            result = self._category_value(key) if key[1] in CATEGORIES else self._stated_value(key)
            self.values[key] = result % self.modulus if self.modulus else result
        return self.values[key]

    def _category_value(self, key: Key) -> int:
        """Things of a category: those held directly, or the sum over what is held of how many each of it holds."""
        owner, category = key
        place, wanted = _NAMES.get(owner), CATEGORIES[category]
        held = [name for other, name in self.conditions if other == owner]
        if place is None or wanted.world != place.world or wanted.depth <= place.depth or not held:
            raise UnreadableProblemError(f"nothing says how many {category} {owner} has")
        if wanted.depth == place.depth + 1:
            return sum(self.value((owner, name)) for name in held)
        return sum(self.value((owner, name)) * self.value((name, category)) for name in held)

    def parents(self, key: Key) -> frozenset[Key]:
        """What ``key`` is computed from, by its condition or, of a category, by what its owner holds."""
        owner, name = key
        if name in CATEGORIES:
            self.value(key)
            held = [other for place, other in self.conditions if place == owner]
            within = [] if CATEGORIES[name].depth == _NAMES[owner].depth + 1 else [(other, name) for other in held]
            return frozenset([*((owner, other) for other in held), *within])
        constant = _CONSTANT.fullmatch(self._condition(key))
        body = self._condition(key) if constant is None else constant[3]
        return frozenset(_names(body)[0]) if body else frozenset()

    def _condition(self, key: Key) -> str:
        if key not in self.conditions:
            raise UnreadableProblemError(f"no condition for {key}")
        return self.conditions[key]

    def _stated_value(self, key: Key) -> int:
        text = self._condition(key)
        constant = _CONSTANT.fullmatch(text)
        if constant is None:
            return self._body(text)
        number, operator, body = int(constant[1]), constant[2], constant[3]
        if operator is None:
            return number
        return number + self._body(body) if operator == "more than" else number * self._body(body)

    def _body(self, text: str) -> int:
        """The value of one name, or of a sum or difference of names."""
        names, is_difference = _names(text)
        values = [self.value(name) for name in names]
        if is_difference:
            first, second = values
            return first - second
        return sum(values)


def _names(text: str) -> tuple[list[Key], bool]:
    """The names in the body of a condition, and whether their difference is meant instead of their sum."""
    group = _GROUP.fullmatch(text)
    names = re.split(r", | and ", group[2]) if group else [text]
    matches = [_NAME.fullmatch(name) for name in names]
    if None in matches:
        raise UnreadableProblemError(f"cannot read {text!r}")
    return [(match[1], match[2]) for match in matches], bool(group) and group[1] == "difference"


def read_problem(text: str) -> Reading:
    """The conditions and the question of the problem ``text``; raises `UnreadableProblemError` where it is none."""
    *lines, last = text.split("\n")
    reading = Reading()
    for line in lines:
        if condition := _CONDITION.fullmatch(line):
            reading.conditions[condition[1], condition[2]] = condition[3]
        elif modulus := _MODULUS.fullmatch(line):
            reading.modulus = int(modulus[1])
        else:
            raise UnreadableProblemError(f"cannot read {line!r}")
    question = _QUESTION.fullmatch(last)
    if question is None:
        raise UnreadableProblemError(f"cannot read {last!r}")
    reading.asked = question[2], question[1]
    return reading


def read_answer(text: str) -> int:
    """The answer of the problem ``text``; raises `UnreadableProblemError` when it cannot be found."""
    reading = read_problem(text)
    return reading.value(reading.asked)
