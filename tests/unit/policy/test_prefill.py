"""What rows begin with is read once: the same tokens and logits from fewer tokens of prompts."""

from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, set_seed

from policy.decoding import cast_once
from policy.growing_cache import GrowingCache
from policy.padding import pad_tokens
from policy.precision import Precision
from policy.prefill import shared_columns
from tests.unit.policy.test_decoding import BFLOAT16, NEW, SIZES, build

FLOAT32 = Precision(torch.float32, "cpu").autocast
LONG, SHORT = list(range(5, 17)), list(range(40, 47))
GROUPS = [LONG] * 4 + [SHORT] * 4
STAGED = [row + [20 + place, 21, 22 + place] for place, row in enumerate(GROUPS)]  # some tokens into the completions


def watched(model):
    """(rows, tokens) of every forward pass over the layers, filled as the model runs."""
    shapes = []
    embed = model.get_input_embeddings()
    embed.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    return shapes


def sample(model, prompts, around, **settings):
    ids, mask = pad_tokens(prompts, "left", 0, "cpu")
    set_seed(1)
    with around, torch.no_grad():
        found = model.generate(
            input_ids=ids,
            attention_mask=mask.long(),
            max_new_tokens=NEW,
            output_logits=True,
            return_dict_in_generate=True,
            **settings,
        )
    return found.sequences, torch.stack(found.logits)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]], 2),  # the last column is every row's own
        ([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 6], [1, 2, 3, 7]], 3),
        ([[9, 1, 1, 1], [8, 1, 1, 1], [7, 1, 1, 1]], 0),  # the same end is no common beginning
        ([[1, 2, 3, 4, 5, 6]], 0),
        ([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 9, 9, 9], [1, 2, 9, 9, 9]], 4),
        ([[1, 5, 6, 7, 8], [1, 6, 7, 8, 9]], 0),  # one token of ten saved is worth no pass
    ],
)
def test_the_columns_to_read_once_are_those_that_save_most(rows, columns):
    assert shared_columns(torch.tensor(rows)) == columns


@pytest.mark.parametrize("prompts", [GROUPS, STAGED], ids=["prompts", "a later stage"])
@pytest.mark.parametrize(("name", "attention"), [("llama", "sdpa"), ("qwen2", "eager"), ("phi", "sdpa")])
def test_greedy_tokens_and_logits_are_those_of_rows_read_whole(name, attention, prompts):
    usual = sample(build(name, attention), prompts, nullcontext(), do_sample=False)
    model = build(name, attention)
    shapes = watched(model)
    found = sample(model, prompts, cast_once(model, FLOAT32), do_sample=False)
    assert torch.equal(found[0], usual[0])
    torch.testing.assert_close(found[1], usual[1], atol=1e-5, rtol=1e-4)
    own = 1 if prompts is GROUPS else 3
    assert shapes[:2] == [(2, len(prompts[0]) - own), (8, own)] and set(shapes[2:]) == {(8, 1)}


@pytest.mark.parametrize("adapter", [False, True])
def test_in_bfloat16_the_shared_cache_keeps_the_compute_type(adapter):
    model = build("llama")
    if adapter:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    shapes = watched(model.get_base_model() if adapter else model)
    kept = []
    base = (model.get_base_model() if adapter else model).base_model
    base.register_forward_hook(lambda module, args, output: kept.append(output.past_key_values))
    found = sample(model, GROUPS, cast_once(model, BFLOAT16), do_sample=True, top_k=0)
    assert shapes[0] == (2, 11) and all(type(cache) is GrowingCache for cache in kept)
    assert kept[0].layers[0].keys.dtype == torch.bfloat16 and len(kept[0].layers[0].keys) == 8
    shapes.clear()
    different = [[50 + place, *row] for place, row in enumerate(GROUPS)]
    sample(model, different, cast_once(model, BFLOAT16), do_sample=True, top_k=0)
    assert shapes[0][0] == 8, "rows that share nothing are read as before"
    assert len(found[0]) == 8


@pytest.mark.parametrize("kind", ["sliding window", "absolute positions"])
def test_other_policies_sample_the_same_tokens(kind):
    set_seed(0)
    if kind == "sliding window":
        model = Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, sliding_window=4)).eval()
    else:
        sizes = GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=1)
        model = GPT2LMHeadModel(sizes).eval()
    usual = sample(model, GROUPS, nullcontext(), do_sample=False)
    shapes = watched(model)
    found = sample(model, GROUPS, cast_once(model, FLOAT32), do_sample=False)
    assert torch.equal(found[0], usual[0])
    torch.testing.assert_close(found[1], usual[1], atol=1e-5, rtol=1e-4)
    assert shapes[0] == ((8, 12) if kind == "sliding window" else (2, 11))
