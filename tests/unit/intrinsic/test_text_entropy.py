"""Text entropy: the quantity, its change by a response, the past it is measured against, and its state."""

import math
import string
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.state import load_state, save_state
from intrinsic.rollout import Rollout
from intrinsic.shuffle import Shuffle
from intrinsic.text_entropy import TextEntropy, character_entropy


def entropy_of(text):
    """Bits per character by the textbook formula."""
    shares = [text.count(character) / len(text) for character in set(text)]
    return -sum(share * math.log2(share) for share in shares)


def rollout_of(texts):
    verdicts = torch.zeros(len(texts))
    return Rollout(["q"] * len(texts), texts, verdicts, verdicts, num_generations=len(texts))


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.fixture
def batch(rollout_factory):
    return lambda texts, correct=None: rollout_factory(texts, correct or [0.0] * len(texts))


@pytest.fixture
def bonus_of(batch):
    """A bonus with the given past responses."""

    def build(past, **settings):
        bonus = TextEntropy(**settings)
        bonus.update(batch(past))
        return bonus

    return build


# ---- the quantity


def test_entropy_of_character_counts_in_bits():
    counts = torch.tensor([[2, 2, 0, 0], [1, 1, 1, 1], [7, 0, 0, 0], [0, 0, 0, 0], [3, 1, 0, 0]])
    close(character_entropy(counts).float(), [1.0, 2.0, 0.0, 0.0, 0.811278])


def test_raw_is_the_bits_that_a_response_adds_to_the_past(bonus_of, batch):
    bonus = bonus_of(["aa", "b"])
    close(bonus.raw(batch(["b", "a", "c", "cc"])), [0.326817, -0.428071, 2.326817, 5 * (1.521928 - 0.918296)])


def test_total_is_the_entropy_of_past_and_response(bonus_of, batch):
    close(bonus_of(["aa", "b"], mode="total").raw(batch(["b", "a", "c"])), [1.0, 0.811278, 1.5])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(alphabet="abcé🙂 ", min_size=1), min_size=1, max_size=6), st.text(alphabet="abz", min_size=1))
def test_equals_the_textbook_formula(past, text):
    past = [response.strip() or "a" for response in past]
    bonus = TextEntropy(mode="total")
    bonus.update(rollout_of(past))
    found = bonus.raw(rollout_of([text])).item()
    assert found == pytest.approx(entropy_of("".join(past) + text), abs=1e-5)


def test_only_the_reasoning_counts(bonus_of, batch):
    bonus = bonus_of(["aa", "b"])
    assert torch.equal(bonus.raw(batch(["<think>\nc\n</think>zzz"])), bonus.raw(batch(["c"])))


# ---- the bonus


def test_normalised_over_history_and_batch(bonus_of, batch):
    bonus = bonus_of(["aa", "b"])
    close(bonus.score(batch(["b", "a", "c"])), [0.274020, 0.0, 1.0])
    bonus.window.append(torch.tensor([-0.428071 - 2.754888, 0.0]))
    close(bonus.score(batch(["b", "a", "c"])), [0.637010, 0.5, 1.0])


def test_batch_is_judged_by_one_past_and_stored_afterwards(bonus_of, batch):
    bonus = bonus_of(["aa", "b"])
    together, reverse = bonus.score(batch(["c", "a", "d"])), bonus.score(batch(["d", "a", "c"]))
    assert together.tolist() == [1.0, 0.0, 1.0] == reverse.tolist()
    bonus.update(batch(["c", "a", "d"]))
    assert bonus.totals == {"a": 3, "b": 1, "c": 1, "d": 1}
    close(bonus.window.history, [2.326817, -0.428071, 2.326817])


def test_drift_of_the_past_does_not_hide_what_a_response_adds(batch):
    """As the policy uses more characters the level rises by far more than any one response adds."""
    spread = {}
    for mode in ("gain", "total"):
        bonus = TextEntropy(mode=mode)
        for characters in range(2, 20):
            common, rare = "a" * 10, string.ascii_lowercase[characters] * 10
            present = batch([common] * 10 + [rare] * 10)
            spread[mode] = bonus.score(present).std().item()
            bonus.update(present)
    assert spread["gain"] > 0.25 and spread["total"] < 0.05


def test_first_batch_is_paid_nothing_and_sets_no_range(batch):
    bonus = TextEntropy()
    assert bonus.score(batch(["abc", "aaa"])).tolist() == [0.0, 0.0]
    bonus.update(batch(["abc", "aaa"]))
    assert not len(bonus.window.history)


def test_oldest_responses_leave_the_past(bonus_of, batch):
    bonus = bonus_of(["aaaa", "bb"], texts=2)
    bonus.update(batch(["cd"]))
    assert bonus.totals == {"b": 2, "c": 1, "d": 1} and len(bonus.past) == 2


def test_empty_response_is_paid_nothing_and_moves_nothing(bonus_of, batch):
    bonus = bonus_of(["aa", "b"])
    close(bonus.score(batch(["b", "", "a", "<think> </think>zz", "c"])), [0.274020, 0.0, 0.0, 0.0, 1.0])
    bonus.update(batch(["", " "]))
    assert len(bonus.past) == 2 and not len(bonus.window.history)


@pytest.mark.parametrize("texts", [["xyz"], [""], ["", ""], ["hello"] * 3])
@pytest.mark.parametrize("verdict", [0.0, 1.0])
@pytest.mark.parametrize("mode", ["gain", "total"])
def test_no_comparison_no_bonus(bonus_of, batch, texts, verdict, mode):
    """B = 1, no text at all, identical responses; right or wrong."""
    bonus = bonus_of(["aa", "b"], mode=mode)
    assert bonus.score(batch(texts, [verdict] * len(texts))).tolist() == [0.0] * len(texts)
    bonus.update(batch(texts))


@pytest.mark.parametrize("verdict", [0.0, 1.0])
def test_all_right_and_all_wrong_groups_still_get_a_direction(bonus_of, batch, verdict):
    scores = bonus_of(["aa", "b"]).score(batch(["a", "c"], [verdict] * 2))
    assert scores.tolist() == [0.0, 1.0] and scores.dtype == torch.float32


def test_score_is_pure(bonus_of, batch):
    bonus = bonus_of(["aa", "b"])
    first = bonus.score(batch(["c", "a"]))
    assert torch.equal(first, bonus.score(batch(["c", "a"])))
    assert bonus.totals == {"a": 2, "b": 1} and not len(bonus.window.history)


def test_shuffled_control_leaves_empty_responses_alone(bonus_of, batch):
    assert Shuffle(bonus_of(["aa", "b"])).score(batch(["", "a", "b", "c"]))[0] == 0.0


def test_logs_level_and_mean_before_normalisation(batch):
    bonus = TextEntropy()
    assert bonus.update(batch(["aa", "b"])) == {"text_entropy": pytest.approx(0.918296, abs=1e-6), "texts": 2.0}
    logged = bonus.update(batch(["b", "a", ""]))
    assert logged["unnormalized"] == pytest.approx((0.326817 - 0.428071) / 2, abs=1e-5) and logged["texts"] == 4.0


def test_logs_of_a_past_without_text(batch):
    assert TextEntropy().update(batch([""])) == {"text_entropy": 0.0, "texts": 0.0}


# ---- state and flags


def test_saved_state_scores_the_same_in_a_fresh_bonus(bonus_of, batch, tmp_path):
    bonus = bonus_of(["größe 🙂", "x\ny", "odd \ud800 half"], texts=3)
    bonus.update(batch(["more", "text"]))
    save_state(bonus.state_dict(), tmp_path)
    fresh = TextEntropy(texts=3)
    fresh.load_state_dict(load_state(tmp_path))
    present = batch(["new 🙂", "text", "größe"])
    assert torch.equal(fresh.score(present), bonus.score(present)) and bonus.score(present).any()
    assert torch.equal(fresh.window.history, bonus.window.history) and len(bonus.window.history)
    assert fresh.totals == bonus.totals and list(fresh.past) == list(bonus.past)


def test_state_before_the_first_rollout_loads(bonus_of, batch, tmp_path):
    save_state(TextEntropy().state_dict(), tmp_path)
    bonus = bonus_of(["abc"])
    bonus.load_state_dict(load_state(tmp_path))
    assert bonus.score(batch(["a", "b"])).tolist() == [0.0, 0.0] and not bonus.totals


def test_built_from_options_and_told_apart_on_resume():
    values = {"entropy_mode": "total", "entropy_texts": 5, "entropy_window": 6}
    assert TextEntropy.from_options(SimpleNamespace(**values)).identity() == {"name": "entropy", **values}


@pytest.mark.parametrize(
    "arguments, flag",
    [
        ({"mode": "level"}, "--entropy_mode='level'"),
        ({"texts": 0}, "--entropy_texts=0"),
        ({"window": 0}, "--entropy_window=0"),
    ],
)
def test_bad_settings_are_refused_with_the_flag(arguments, flag):
    with pytest.raises(UserError, match=flag):
        TextEntropy(**arguments)
