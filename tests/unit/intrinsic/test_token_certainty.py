"""Token certainty as a reward: its vector, and completions that have no part in it."""

import pytest
import torch

from common.errors import UserError
from intrinsic.options import IntrinsicOptions
from intrinsic.token_certainty import TokenCertainty


@pytest.fixture
def make(rollout_factory):
    def build(entropies, correct=None):
        size = len(entropies)
        rollout = rollout_factory([f"text {row}" for row in range(size)], correct or [0] * size)
        rollout.features["entropy"] = torch.tensor(entropies)[:, None] * rollout.completion_mask
        return rollout

    return build


def test_vector(make):
    rollout = make([0.2, 0.4, 0.6, 0.8])
    scores = TokenCertainty().score(rollout)
    expected = torch.tensor([1.161445, 0.387148, -0.387148, -1.161445])
    torch.testing.assert_close(scores, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(TokenCertainty().combine(torch.ones(4), scores, rollout), 1 + scores)


def test_what_has_no_tokens_does_not_enter_its_group_and_what_is_broken_goes_to_the_guard(make):
    rollout = make([0.2, 0.4, 0.6, 0.8, 9.0, 0.0])
    rollout.completion_mask[4] = False
    rollout.features["entropy"][5] = torch.nan
    scores = TokenCertainty().score(rollout)
    torch.testing.assert_close(scores[:4], TokenCertainty().score(make([0.2, 0.4, 0.6, 0.8])))
    assert scores[4] == 0 and scores[5].isnan()


def test_completions_cut_off_are_paid_as_others_or_skipped_and_their_certainty_is_logged(make):
    rollout = make([0.2, 0.4, 0.6, 0.8, 0.0])
    paying = TokenCertainty().score(rollout)
    rollout.truncated = torch.tensor([False] * 4 + [True])
    assert torch.equal(TokenCertainty().score(rollout), paying) and paying.argmax() == 4
    skipping = TokenCertainty.from_options(IntrinsicOptions(sc_truncated="skip"))
    expected = torch.cat([TokenCertainty().score(make([0.2, 0.4, 0.6, 0.8])), torch.zeros(1)])
    torch.testing.assert_close(skipping.score(rollout), expected)
    assert skipping.eligible(rollout).tolist() == [True] * 4 + [False]
    assert skipping.update(rollout) == pytest.approx(
        {"certainty": -0.5, "certainty_wrong": -0.5, "certainty_truncated": 0.0}
    )
    assert skipping.identity() != TokenCertainty().identity()
    with pytest.raises(UserError, match="--sc_truncated='drop'"):
        TokenCertainty("drop")


def test_equal_certainty_is_paid_nothing(make):
    assert not TokenCertainty().score(make([0.3, 0.3, 0.30001, 0.3])).any()


def test_means_by_verdict_are_logged(make):
    figures = TokenCertainty().update(make([0.2, 0.4, 0.6, 0.8], [1, 1, 0, 0]))
    assert figures == pytest.approx({"certainty": -0.5, "certainty_right": -0.3, "certainty_wrong": -0.7})
    assert set(TokenCertainty().update(make([0.2, 0.4]))) == {"certainty", "certainty_wrong"}
