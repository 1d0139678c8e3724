"""The cache with room behind it: what `transformers` holds, written in place."""

import torch
from transformers.cache_utils import DynamicLayer

from policy.growing_cache import ROOM, GrowingLayer


def test_it_holds_what_the_usual_layer_holds_and_copies_only_when_the_room_is_used_up():
    torch.manual_seed(0)
    usual, own = DynamicLayer(), GrowingLayer(None)
    places = set()
    for tokens in (5, *[1] * (2 * ROOM)):
        keys, values = torch.randn(4, 2, tokens, 8), torch.randn(4, 2, tokens, 6)
        for found, expected in zip(own.update(keys, values), usual.update(keys, values), strict=True):
            assert torch.equal(found, expected)
        places.add(own.keys.data_ptr())
    assert len(places) == 2, "one buffer for the prompt and the first tokens, one when these are full"


def test_chosen_cut_and_reordered_rows_are_gone_on_from():
    torch.manual_seed(0)
    layers = DynamicLayer(), GrowingLayer(None)

    def both(act):
        for layer in layers:
            act(layer)
        keys, values = torch.randn(len(layers[0].keys), 2, 1, 8), torch.randn(len(layers[0].keys), 2, 1, 8)
        for layer in layers:
            layer.update(keys, values)
        assert torch.equal(layers[0].keys, layers[1].keys) and torch.equal(layers[0].values, layers[1].values)
        assert layers[0].get_seq_length() == layers[1].get_seq_length()

    prompt = torch.randn(3, 2, 5, 8)
    both(lambda layer: layer.update(prompt, prompt))
    both(lambda layer: layer.batch_select_indices(torch.tensor([2, 0, 0, 1])))
    both(lambda layer: layer.crop(-2))
    both(lambda layer: layer.reorder_cache(torch.tensor([3, 1, 0, 2])))
    both(lambda layer: layer.batch_repeat_interleave(2))
    for layer in layers:
        layer.reset()
    both(lambda layer: layer.update(prompt, prompt))


def test_the_type_asked_for_is_kept():
    layer = GrowingLayer(torch.bfloat16)
    states = torch.randn(2, 1, 3, 4)
    keys, values = layer.update(states, states)
    assert keys.dtype == values.dtype == torch.bfloat16 and torch.equal(keys, states.bfloat16())
