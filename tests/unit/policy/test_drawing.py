"""One random number per row draws from the same distribution as one per token."""

import pytest
import torch

from policy import decoding, drawing
from policy.decoding import cast_once, draws_by_one_number
from policy.drawing import draw
from policy.precision import Precision
from tests.unit.policy.test_decoding import BFLOAT16, NEW, build, sample


@pytest.mark.parametrize("vocabulary", [3, 256, 1000])
def test_numbers_spread_evenly_give_each_token_its_share(vocabulary, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    masses = torch.rand(vocabulary, generator=generator) ** 4
    masses[::3] = 0.0  # what top-k and top-p leave out
    count = 20_000
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5)[:, None] / count
    monkeypatch.setattr(torch, "rand", lambda *shape, **settings: numbers)
    found = torch.bincount(draw(masses.expand(count, -1)), minlength=vocabulary)
    expected = masses.double() / masses.double().sum() * count
    assert (found - expected).abs().max() <= 1.01 and not found[::3].any()


@pytest.mark.parametrize(("number", "token"), [(0.0, 2), (1 - 2**-53, 700)])
def test_the_ends_fall_on_tokens_that_have_a_probability(number, token, monkeypatch):
    masses = torch.zeros(2, 1000)
    masses[:, 2:701:2] = 1e-3
    monkeypatch.setattr(torch, "rand", lambda *shape, **settings: torch.full((2, 1), number, dtype=torch.float64))
    assert draw(masses).tolist() == [token, token]


def test_generation_draws_so_from_a_large_vocabulary_and_as_ever_from_a_small_one(monkeypatch):
    calls = []
    monkeypatch.setattr(drawing, "draw", lambda found: calls.append(found.clone()) or draw(found))
    small = build()
    usual = sample(build(), BFLOAT16())
    assert torch.equal(sample(small, cast_once(small, BFLOAT16))[0], usual[0]) and not calls
    monkeypatch.setattr(decoding, "LEAST_VOCABULARY", 97)
    model = build()
    tokens, logits, _ = sample(model, cast_once(model, BFLOAT16))
    assert len(calls) == NEW and torch.equal(tokens, sample(model, cast_once(model, BFLOAT16))[0])
    torch.testing.assert_close(calls[0], logits[0].index_fill(1, torch.tensor([1]), -torch.inf).softmax(dim=-1))
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": NEW, "min_new_tokens": NEW}
    calls.clear()
    with cast_once(model, Precision(torch.float32, "cpu").autocast), torch.no_grad():  # in bfloat16 logits are equal
        greedy = model.generate(ids, do_sample=False, **settings)
        assert not calls and torch.equal(model.generate(ids, do_sample=True, top_k=1, **settings), greedy)
    assert len(calls) == NEW
    for other in ({"num_beams": 2}, {"output_scores": True}, {"streamer": object()}):
        assert not draws_by_one_number(model, other)
