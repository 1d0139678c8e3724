"""Names of iGSM's worlds cannot break the sentences they stand in, and tell their category."""

import re

from tasks.igsm.vocabulary import WORLDS, category_places, name_places

GRAMMAR = {
    "each",
    "the",
    "and",
    "of",
    "sum",
    "difference",
    "equals",
    "equal",
    "more",
    "than",
    "times",
    "number",
    "does",
}
ALL_NAMES = [name for categories in WORLDS.values() for one in categories for kind in one.kinds for name in kind]


def test_names_are_words_of_letters_outside_the_grammar():
    for name in ALL_NAMES + list(category_places()):
        assert re.fullmatch(r"[A-Z][a-z]+([ -][A-Za-z][a-z]+)*", name), name
        assert not GRAMMAR & set(name.lower().split()), name


def test_every_name_has_one_place():
    assert len(name_places()) == len(ALL_NAMES) == len(set(ALL_NAMES))
    assert len(category_places()) == sum(len(categories) for categories in WORLDS.values())
    assert not set(name_places()) & set(category_places())


def test_worlds_are_large_enough():
    assert len(WORLDS) >= 4
    for categories in WORLDS.values():
        assert len(categories) == 4
        for one in categories:
            assert sum(len(kind) for kind in one.kinds) >= 20
            assert 3 <= len(one.kinds) <= 5 and all(4 <= len(kind) <= 5 for kind in one.kinds)
