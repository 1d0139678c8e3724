"""Lexical novelty: both distances, the window of past responses, the choice of lines, state and flags."""

import random
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.state import load_state, save_state
from intrinsic.lexical_novelty import FORMS, LexicalNovelty, jaccard_distance, line_words, tree_distance, words
from intrinsic.shuffle import Shuffle


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-6, rtol=0)


def trees_apart(first, second, lines=8):
    return tree_distance(line_words(first, lines), line_words(second, lines))


@pytest.fixture
def batch(rollout_factory):
    return lambda texts, correct=None: rollout_factory(texts, correct or [0.0] * len(texts))


@pytest.fixture
def bonus_of(batch):
    """A bonus with the given past responses and weight 1."""

    def build(past, **settings):
        bonus = LexicalNovelty(**{"beta": 1.0, **settings})
        bonus.update(batch(past))
        return bonus

    return build


# ---- distances


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ("a b c", "a b d", 0.5),
        ("a b c", "C b A a", 0.0),
        ("a b", "c", 1.0),
        ("a", "a b c d", 0.75),
        ("", "", 0.0),
        ("2*3=6", "2*4=8", 1 - 3 / 7),
    ],
)
def test_jaccard_distance_of_words(first, second, expected):
    assert jaccard_distance(words(first, 8), words(second, 8)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ("a b\nc", "a b\n\n  c ", 0.0),
        ("a b\nc", "a b", 1 / 2),
        ("a b\nc", "a x\nc", (1 - 1 / 3) / 2),
        ("a b\nc", "c\na b", 1.0),
        ("a\nb\nc\nd", "a\nc\nd", 1 / 4),
        ("a\nb\nc", "x\ny\nz", 1.0),
        ("", "", 0.0),
        ("", "a\nb", 1.0),
    ],
)
def test_tree_distance_of_lines(first, second, expected):
    assert trees_apart(first, second) == pytest.approx(expected)


def alignment(first, second):
    """Cheapest alignment of two sequences of lines, by the classic recursion."""
    if not first or not second:
        return float(len(first) + len(second))
    return min(
        alignment(first[1:], second) + 1.0,
        alignment(first, second[1:]) + 1.0,
        alignment(first[1:], second[1:]) + jaccard_distance(first[0], second[0]),
    )


LINES = st.lists(st.text(alphabet="ab ", min_size=1, max_size=4).filter(str.strip), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(LINES, LINES)
def test_tree_distance_is_the_cheapest_alignment_of_the_lines(first, second):
    first, second = line_words("\n".join(first), 8), line_words("\n".join(second), 8)
    expected = alignment(first, second) / max(len(first), len(second))
    assert tree_distance(first, second) == pytest.approx(expected)
    assert tree_distance(second, first) == pytest.approx(expected)


def test_chosen_lines_keep_their_order_and_touch_no_random_state():
    text = "\n".join(f"line {number}" for number in range(30))
    before = random.getstate()
    chosen = line_words(text, 8)
    numbers = [int(next(word for word in line if word != "line")) for line in chosen]
    assert len(chosen) == 8 and numbers == sorted(numbers) and random.getstate() == before
    assert line_words(text, 8) == chosen and max(numbers) > 15


def test_shared_lines_are_chosen_in_both_texts():
    """One more line changes at most one of the chosen ones, wherever it stands."""
    lines = [f"line {number}" for number in range(30)]
    chosen = set(line_words("\n".join(lines), 8))
    for place in range(31):
        other = set(line_words("\n".join([*lines[:place], "another one", *lines[place:]]), 8))
        assert len(chosen - other) <= 1


# ---- the bonus


@pytest.mark.parametrize(
    "form, expected", [("jaccard", [1 / 3, 1 / 3, 2 / 3, 1.0]), ("tree", [1 / 3, 1.0, 2 / 3, 1.0])]
)
def test_raw_is_the_mean_distance_to_the_past(bonus_of, batch, form, expected):
    bonus = bonus_of(["a\nb", "a\nb", "c"], form=form)
    close(bonus.raw(batch(["a\nb", "b\na", "c", "x"])), expected)


def test_normalised_over_history_and_batch_and_weighted(bonus_of, batch):
    bonus = bonus_of(["a b c d"], beta=0.1)
    close(bonus.score(batch(["a b c d", "a b", "x"])), [0.0, 0.05, 0.1])
    bonus.window.append(torch.tensor([-1.0]))
    close(bonus.score(batch(["a b c d", "a b", "x"])), [0.05, 0.075, 0.1])


def test_batch_is_scored_before_it_is_stored(bonus_of, batch):
    bonus, present = bonus_of(["a b"]), batch(["x y", "x y", "a b"])
    assert bonus.score(present).tolist() == [1.0, 1.0, 0.0]
    bonus.update(present)
    close(bonus.window.history, [1.0, 1.0, 0.0])
    close(bonus.raw(batch(["x y"])), [0.5])


def test_only_the_last_responses_are_compared(bonus_of, batch):
    bonus = bonus_of(["a", "b", "c"], texts=2)
    close(bonus.raw(batch(["a", "b"])), [1.0, 0.5])


def test_only_the_reasoning_counts(bonus_of, batch):
    close(bonus_of(["a b"]).raw(batch(["<think>\na b\n</think>z z"])), [0.0])


def test_first_batch_is_paid_nothing_and_sets_no_range(batch):
    bonus = LexicalNovelty()
    assert bonus.score(batch(["a", "b"])).tolist() == [0.0, 0.0]
    bonus.update(batch(["a", "b"]))
    assert not len(bonus.window.history)


@pytest.mark.parametrize("form", ["jaccard", "tree"])
def test_empty_response_is_paid_nothing_and_moves_nothing(bonus_of, batch, form):
    bonus = bonus_of(["a b"], form=form)
    assert bonus.score(batch(["a b", "", "<think> </think>zz", "x"])).tolist() == [0.0, 0.0, 0.0, 1.0]
    bonus.update(batch(["", " "]))
    assert list(bonus.past) == ["a b"] and not len(bonus.window.history)


@pytest.mark.parametrize("texts", [["x y"], [""], ["", ""], ["x y"] * 3])
@pytest.mark.parametrize("verdict", [0.0, 1.0])
@pytest.mark.parametrize("form", ["jaccard", "tree"])
def test_no_comparison_no_bonus(bonus_of, batch, texts, verdict, form):
    """B = 1, no text at all, identical responses; right or wrong."""
    bonus = bonus_of(["a b", "c"], form=form)
    assert bonus.score(batch(texts, [verdict] * len(texts))).tolist() == [0.0] * len(texts)
    bonus.update(batch(texts))


@pytest.mark.parametrize("verdict", [0.0, 1.0])
def test_all_right_and_all_wrong_groups_still_get_a_direction(bonus_of, batch, verdict):
    scores = bonus_of(["a b"]).score(batch(["a b", "x"], [verdict] * 2))
    assert scores.tolist() == [0.0, 1.0] and scores.dtype == torch.float32


def test_score_is_pure(bonus_of, batch):
    bonus = bonus_of(["a b"])
    first = bonus.score(batch(["x", "a"]))
    assert torch.equal(first, bonus.score(batch(["x", "a"])))
    assert list(bonus.past) == ["a b"] and not len(bonus.window.history)


@pytest.mark.parametrize("form", ["jaccard", "tree"])
def test_update_and_a_control_compute_no_distance_again(bonus_of, batch, monkeypatch, form):
    bonus, present, pairs = bonus_of(["a\nb", "c"], form=form), batch(["x\ny", "a\nz", "x\ny"]), []
    plain = FORMS[form]
    monkeypatch.setitem(FORMS, form, plain._replace(distance=lambda *pair: pairs.append(pair) or plain.distance(*pair)))
    bonus.score(present), Shuffle(bonus).score(present)
    assert len(pairs) == 4
    bonus.update(present)
    assert len(pairs) == 4


def test_what_was_scored_is_judged_anew_beside_another_past(bonus_of, batch):
    bonus, present = bonus_of(["a b"]), batch(["a b", "x"])
    before, other = bonus.state_dict(), bonus_of(["x"]).state_dict()
    assert bonus.score(present).tolist() == [0.0, 1.0] and bonus.state_dict().keys() == {"past", "window"}
    bonus.load_state_dict(other)
    assert bonus.score(present).tolist() == [1.0, 0.0]
    bonus.load_state_dict(before)
    bonus.update(present)
    close(bonus.window.history, [0.0, 1.0])
    assert bonus.raw(present).tolist() == pytest.approx([1 / 3, 2 / 3])
    bonus.update(present)
    close(bonus.window.history, [0.0, 1.0, 1 / 3, 2 / 3])


def test_shuffled_control_leaves_empty_responses_alone(bonus_of, batch):
    assert Shuffle(bonus_of(["a b"])).score(batch(["", "a", "b", "x"]))[0] == 0.0


def test_logs_size_and_mean_before_normalisation(batch):
    bonus = LexicalNovelty(texts=3)
    assert bonus.update(batch(["a b", ""])) == {"texts": 1.0}
    logged = bonus.update(batch(["a b", "x", ""]))
    assert logged == {"texts": 3.0, "unnormalized": pytest.approx(0.5)}


# ---- state and flags


@pytest.mark.parametrize("form", ["jaccard", "tree"])
def test_saved_state_scores_the_same_in_a_fresh_bonus(bonus_of, batch, tmp_path, form):
    bonus = bonus_of(["größe 🙂\nzwei", "x y", "odd \ud800 half"], form=form, texts=4)
    bonus.update(batch(["more\nlines", "x z"]))
    save_state(bonus.state_dict(), tmp_path)
    fresh = LexicalNovelty(form=form, texts=4, beta=1.0)
    fresh.load_state_dict(load_state(tmp_path))
    present = batch(["zwei\n🙂", "x y", "new"])
    assert torch.equal(fresh.score(present), bonus.score(present)) and bonus.score(present).any()
    assert torch.equal(fresh.window.history, bonus.window.history) and len(bonus.window.history)
    bonus.update(present), fresh.update(present)
    assert fresh.past == bonus.past and len(fresh.past) == 4


def test_state_before_the_first_rollout_loads(bonus_of, batch, tmp_path):
    save_state(LexicalNovelty().state_dict(), tmp_path)
    bonus = bonus_of(["a"])
    bonus.load_state_dict(load_state(tmp_path))
    assert bonus.score(batch(["a", "b"])).tolist() == [0.0, 0.0] and not bonus.past


def test_built_from_options_and_told_apart_on_resume():
    values = {"ltree_form": "tree", "ltree_texts": 5, "ltree_lines": 3, "ltree_window": 6, "ltree_beta": 0.5}
    assert LexicalNovelty.from_options(SimpleNamespace(**values)).identity() == {"name": "ltree", **values}


@pytest.mark.parametrize(
    "arguments, flag",
    [
        ({"form": "set"}, "--ltree_form='set'"),
        ({"texts": 0}, "--ltree_texts=0"),
        ({"lines": 0}, "--ltree_lines=0"),
        ({"window": 0}, "--ltree_window=0"),
        ({"beta": float("nan")}, "--ltree_beta=nan"),
    ],
)
def test_bad_settings_are_refused_with_the_flag(arguments, flag):
    with pytest.raises(UserError, match=flag):
        LexicalNovelty(**arguments)
