"""The benchmarks of decoding at toy size: bytes are those of the tensors, seconds those of the calls."""

import pytest
import torch

from benchmarks import decode_bytes, decode_speed
from benchmarks.decode_bytes import WAYS, BytesMoved, bytes_of_step, policy_without_data
from benchmarks.shapes import random_policy
from common.errors import UserError

ROWS, TOKENS = 3, 9


@pytest.fixture(scope="module")
def counted():
    found = {}
    for name, way in WAYS.items():
        with policy_without_data("toy", way.weights) as policy:
            found[name] = bytes_of_step(policy, ROWS, TOKENS, way)
    return found


def test_kernels_count_what_they_read_and_write_and_views_nothing():
    matrix, ids = torch.ones(4, 6), torch.tensor([1, 2])
    for call, moved in (
        (lambda: matrix @ matrix.T, 2 * 4 * 6 * 4 + 4 * 4 * 4),
        (lambda: matrix.bfloat16(), 4 * 6 * 4 + 4 * 6 * 2),
        (lambda: matrix.view(6, 4).T[1:], 0),
        (lambda: matrix[:1].expand(4, 6) + 1.0, 6 * 4 + 4 * 6 * 4),
        (lambda: torch.embedding(matrix, ids), 2 * 2 * 6 * 4 + 2 * 8),
        (lambda: torch.ones(6, 6)[2:].copy_(matrix.bfloat16()), 36 * 4 + 24 * (4 + 2) + 24 * (2 + 4)),
    ):
        with BytesMoved() as found:
            call()
        assert found.total == moved


def test_one_autocast_saves_the_cast_of_every_weight(counted, tokenizer):
    policy = random_policy("toy", tokenizer)
    matrices = sum(w.numel() for name, w in policy.named_parameters() if "norm" not in name)  # embedding is the head
    saved = counted["autocast around each pass"] - counted["one autocast"]
    assert saved == matrices * (4 + 2)
    both = counted["growing cache"] - counted["one autocast, growing cache"]
    assert both == saved


def test_the_growing_cache_saves_the_copy_and_the_cast_of_all_keys_and_values(counted):
    sizes = decode_bytes.architecture("toy")
    width = sizes.hidden_size // sizes.num_attention_heads * sizes.num_key_value_heads
    one = 2 * sizes.num_hidden_layers * ROWS * width  # entries of one token
    appended = (TOKENS - 1) * 4 + TOKENS * 4  # the old ones are read and all are written
    cast_later = TOKENS * (4 + 2)
    # New keys are read in float32 and written once in bfloat16; new values are no longer cast to float32 and read so.
    new_ones = one // 2 * (4 - (4 + 2)) + one // 2 * ((2 + 4 + 4) - (2 + 2))
    saved = counted["one autocast"] - counted["one autocast, growing cache"]
    assert saved == one * (appended + cast_later) + new_ones


def test_shapes_without_data_move_what_real_tensors_move(counted, tokenizer):
    way = WAYS["one autocast, growing cache"]
    policy = random_policy("toy", tokenizer).eval()
    assert bytes_of_step(policy, ROWS, TOKENS, way) == counted["one autocast, growing cache"]


def test_the_table_has_a_row_per_shape():
    text = decode_bytes.table({"toy": dict.fromkeys(WAYS, 12_340_000_000)}, 256, 350)
    assert "256 completions at 350 tokens" in text and text.splitlines()[-1] == "| toy |" + " 12.3 |" * len(WAYS)


def test_a_further_token_costs_what_a_longer_call_takes_above_one_for_a_token(monkeypatch):
    options = decode_speed.Options(policy="toy", rows=4, group=2, prompt=3, new=3, rounds=2)
    asked = []

    def seconds(policy, ids, tokens, context):
        asked.append((ids.shape, len(ids.unique(dim=0)), tokens))
        return 1.0 + 0.5 * tokens

    monkeypatch.setattr(decode_speed, "_seconds", seconds)
    found = decode_speed.measure(options)
    assert found == {way: {"first": [1.5] * 2, "further": [0.5] * 2} for way in (decode_speed.EACH, decode_speed.ONE)}
    assert asked == [((4, 3), 2, 1), ((4, 3), 2, 3)] * 2 * 3  # two ways, two rounds and one that is not counted


def test_both_ways_sample_all_tokens_and_ratios_are_of_medians():
    options = decode_speed.Options(policy="toy", rows=4, group=2, prompt=3, new=3, rounds=1)
    found = decode_speed.measure(options)
    assert all(len(seconds) == 1 for parts in found.values() for seconds in parts.values())
    found = {
        decode_speed.EACH: {"first": [4.0, 2.0, 3.0], "further": [0.4]},
        decode_speed.ONE: {"first": [1.0, 2.0, 1.5], "further": [0.1]},
    }
    first, second = decode_speed.table(found, options).splitlines()[-2:]
    assert "| 3.000 | 2.000 to 4.000 | 1.00 | 0.400 |" in first and first.endswith("| 1.00 |")
    assert "| 1.500 | 1.000 to 2.000 | 2.00 | 0.100 |" in second and second.endswith("| 4.00 |")


@pytest.mark.parametrize(
    ("options", "flags", "said"),
    [
        (decode_bytes.Options, {"shapes": "toy,gpt"}, "--shapes='gpt'"),
        (decode_bytes.Options, {"tokens": 1}, "--tokens=1"),
        (decode_speed.Options, {"policy": "gpt"}, "--policy='gpt'"),
        (decode_speed.Options, {"new": 1}, "--new=1"),
        (decode_speed.Options, {"group": 3}, "--group=3"),
    ],
)
def test_bad_flags_are_user_errors(options, flags, said):
    with pytest.raises(UserError, match=said):
        options(**flags)
