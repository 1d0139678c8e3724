"""Majority voting as a reward: its vectors, ties, what is logged, alone, and the group of two."""

import pytest
import torch

from common.errors import UserError
from intrinsic.majority import Majority, majority_votes
from intrinsic.options import IntrinsicOptions

ANSWERS = ["5", "5", "7", None, "5", "9", "7", None]


def test_vector():
    assert majority_votes(ANSWERS) == [1, 1, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("answers", "votes"),
    [
        (["1", "1", "2", "2", "3"], [1, 1, 1, 1, 0]),
        (["1", "2", None], [1, 1, 0]),
        ([None, None, None], [0, 0, 0]),
        (["1"], [1]),
        ([], []),
    ],
)
def test_ties_all_win_and_no_answer_never_does(answers, votes):
    assert majority_votes(answers) == votes


def test_votes_are_standardised_in_their_group_as_verdicts_are(rollout_factory):
    rollout = rollout_factory(
        [f"text {n}" for n in range(16)], [0] * 16, num_generations=8, answers=[*ANSWERS, *"ABCDEFGH"]
    )
    z = torch.tensor([1.207381, 1.207381, -0.724429, -0.724429, 1.207381, -0.724429, -0.724429, -0.724429])
    scores = Majority().score(rollout)
    torch.testing.assert_close(scores[:8], z, atol=2e-6, rtol=0)
    assert not scores[8:].any(), "all tied: no group of equals has a majority"
    torch.testing.assert_close(Majority().combine(torch.ones(16), scores, rollout), 1 + scores)


def test_figures_of_the_batch(rollout_factory):
    texts = [f"text {n}" for n in range(12)]
    answers = ["1", "1", "1", "2", "3", "3", "4", "5", None, None, None, None]
    rollout = rollout_factory(texts, [1, 1, 1] + [0] * 9, num_generations=4, answers=answers)
    assert Majority().update(rollout) == {"agreement": pytest.approx(5 / 12), "majority_right": 0.5}
    for answers, share in (("12345678", 1 / 8), ("11112222", 4 / 8), ("11111111", 1.0), ("1123456 ", 2 / 8)):
        parsed = [text.strip() or None for text in answers]
        spread = rollout_factory(texts[:8], [0] * 8, num_generations=8, answers=parsed)
        assert Majority().update(spread)["agreement"] == share, "one of several equally common answers"
    silent = rollout_factory(texts[:4], [0] * 4)
    assert Majority().update(silent) == {"agreement": 0.0}


def test_a_group_of_two_is_refused():
    with pytest.raises(UserError, match="--num_generations=2: in a group of two"):
        Majority().check(2, 64)
    Majority().check(3, 64)


@pytest.mark.parametrize("name", ["sc", "majority", "certain"])
def test_label_free_rewards_can_stand_alone_and_nothing_else_can(name):
    assert IntrinsicOptions(use_ir=name, sc_alone=True).bonus_names == [name]
    for names in (f"{name},knn", "knn", "no", f"shuffle:{name}"):
        with pytest.raises(UserError, match="--sc_alone goes with one of sc, majority, certain by itself"):
            IntrinsicOptions(use_ir=names, sc_alone=True)
