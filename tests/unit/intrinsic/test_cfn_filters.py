"""MERCI's three filters: percentile and coherence by vector M5, and each rule of noise suppression."""

import pytest
import torch

from intrinsic.parts.token_filters import contiguous_runs, repeated_ngrams, text_noise, top_share

UP_DOWN = [0.1, 0.9, 0.8, 0.7, 0.2, 0.95, 0.1, 0.3]
ALTERNATING = [0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4]


def positions(mask):
    return mask[0].nonzero().flatten().tolist()


def top(values, percent=50.0):
    values = torch.tensor([values])
    return top_share(values, torch.ones_like(values, dtype=torch.bool), percent)


def decoder(pieces):
    """A tokenizer whose token i is the bytes ``pieces[i]``."""
    return lambda sequences: [b"".join(pieces[i] for i in ids).decode("utf-8", "replace") for ids in sequences]


def response(rollout_factory, pieces):
    """A rollout of one response of the tokens 0, 1, 2, ... with the bytes ``pieces``."""
    rollout = rollout_factory([b"".join(pieces).decode("utf-8", "replace")], [0.0])
    rollout.completion_ids = torch.arange(len(pieces))[None]
    rollout.completion_mask = torch.ones(1, len(pieces), dtype=torch.bool)
    rollout.decode = decoder(pieces)
    return rollout


@pytest.mark.parametrize(("values", "kept"), [(UP_DOWN, [1, 2, 3, 5]), (ALTERNATING, [0, 2, 4, 6])])
def test_m5_percentile_keeps_the_upper_half(values, kept):
    assert positions(top(values)) == kept


def test_m5_coherence_drops_isolated_tokens():
    assert positions(contiguous_runs(top(UP_DOWN), 2)) == [1, 2, 3]
    assert positions(contiguous_runs(top(ALTERNATING), 2)) == []


def test_percentile_is_of_each_response_without_padding_and_keeps_ties():
    variance = torch.tensor([[0.2, 0.4, 0.0, 0.0], [0.9, 0.9, 0.9, 0.9], [0.0, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    expected = torch.tensor([[0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(top_share(variance, mask, 50.0), expected)


def test_runs_reach_both_ends_and_short_responses_keep_nothing():
    kept = torch.tensor([[1, 1, 1, 0, 1, 1, 0, 1, 1, 1]], dtype=torch.bool)
    assert positions(contiguous_runs(kept, 3)) == [0, 1, 2, 7, 8, 9]
    assert torch.equal(contiguous_runs(kept, 1), kept)
    assert positions(contiguous_runs(kept[:, :2], 3)) == []


def test_third_occurrence_of_an_ngram_is_noise():
    phrase = [1, 2, 3, 4, 5, 6, 7, 8]
    ids = torch.tensor([[*phrase, 9, *phrase, 10, *phrase, 11]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert positions(repeated_ngrams(ids, mask)) == list(range(18, 26))
    mask[:, 25:] = False
    assert positions(repeated_ngrams(ids, mask)) == []


def test_first_two_occurrences_stay_in_a_long_loop():
    ids = torch.arange(9).repeat(1, 300)
    assert positions(~repeated_ngrams(ids, torch.ones_like(ids, dtype=torch.bool))) == list(range(18))


def test_repetition_is_counted_within_one_response():
    ids = torch.arange(1, 9).repeat(3, 2)
    assert not repeated_ngrams(ids, torch.ones_like(ids, dtype=torch.bool)).any()


def test_code_fences_are_noise_even_when_split_or_left_open(rollout_factory):
    pieces = [b"so ", b"``", b"`py", b"print(1)", b"\n```", b" then", b"```", b" open"]
    rollout = response(rollout_factory, pieces)
    assert positions(text_noise(rollout, code=True, characters=False)) == [1, 2, 3, 4, 6, 7]
    assert not text_noise(rollout, code=False, characters=True).any()


def test_characters_outside_mathematics_are_noise_whole_or_in_bytes(rollout_factory):
    heart, le = "♥".encode(), "≤".encode()
    pieces = [b"x ", le[:1], le[1:], " α√".encode(), "答".encode(), b" y", heart[:2], heart[2:], b"\x00", b"\xff"]
    rollout = response(rollout_factory, pieces)
    assert positions(text_noise(rollout, code=False, characters=True)) == [4, 6, 7, 8, 9]
    assert not text_noise(rollout, code=True, characters=False).any()


def test_rows_are_flagged_apart_and_a_rollout_without_decoder_has_no_text_noise(rollout_factory):
    rollout = rollout_factory(["abc", "a♥c"], [0.0, 0.0])
    rollout.completion_ids = torch.tensor([[0, 1, 2, 0, 0, 0], [0, 3, 2, 0, 0, 0]])
    rollout.decode = decoder([b"a", b"b", b"c", "♥".encode()])
    noise = text_noise(rollout, code=True, characters=True)
    assert noise.nonzero().tolist() == [[1, 1]]
    rollout.decode = None
    assert not text_noise(rollout, code=True, characters=True).any()
