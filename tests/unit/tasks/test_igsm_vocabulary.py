"""Names of iGSM's worlds cannot break the sentences they stand in, and tell their category."""

import re

from tasks.igsm.vocabulary import BRIEF, DRAWN, WORLDS, category_places, name_places

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
    assert len(DRAWN) >= 4
    for world, categories in WORLDS.items():
        assert len(categories) == 4
        for one in categories if world in DRAWN else ():
            assert sum(len(kind) for kind in one.kinds) >= 20
            assert 3 <= len(one.kinds) <= 5 and all(4 <= len(kind) <= 5 for kind in one.kinds)


def test_names_of_the_brief_world_are_one_word_and_it_is_drawn_only_where_asked_for():
    assert BRIEF not in DRAWN and {*DRAWN, BRIEF} == WORLDS.keys()
    assert all(len(kind) == 4 for one in WORLDS[BRIEF] for kind in one.kinds)
    assert not any(" " in name for one in WORLDS[BRIEF] for kind in one.kinds for name in (one.name, *kind))
