"""One row of prompts and their completions: the numbers and gradients of a row for each completion."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    set_seed,
)
from trl.trainer.utils import add_fused_lm_head

from policy import buckets, shared_prompts
from policy.padding import pad_tokens
from policy.precision import Precision, compute_dtype
from policy.shared_prompts import (
    reason_for_rows,
    score_in_passes,
    share_prompts,
    shared_passes,
    shared_row,
)

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 8}),
    "gemma": (GemmaForCausalLM, GemmaConfig, {"head_dim": 8}),
}
OTHERS = {
    "architecture phi": (PhiForCausalLM, PhiConfig, {}),
    "architecture gemma2": (Gemma2ForCausalLM, Gemma2Config, {"head_dim": 8, "attn_implementation": "eager"}),
    "sliding windows": (Qwen2ForCausalLM, Qwen2Config, {"use_sliding_window": True, "max_window_layers": 1}),
    "rotary positions dynamic": (
        LlamaForCausalLM,
        LlamaConfig,
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "attention flex_attention": (LlamaForCausalLM, LlamaConfig, {"attn_implementation": "flex_attention"}),
    "dropout": (LlamaForCausalLM, LlamaConfig, {"attention_dropout": 0.1}),
}
FLOAT32, BFLOAT16 = (Precision(dtype, "cpu").autocast for dtype in (torch.float32, torch.bfloat16))
ORDER = [0, 1, 0, 2, 1, 0, 0, 1]  # whose prompt each completion has: shuffled, as TRL leaves them


def build(model_class, config, settings, attention="sdpa"):
    set_seed(0)
    model = model_class(config(**SIZES | {"attn_implementation": attention} | settings))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0)  # so that attention looks at some tokens more than at others
    for module in model.modules():
        if hasattr(module, "scaling"):
            module.scaling *= 0.7  # not what torch would take by itself, as in some families
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    return model.train()


def batch():
    """Ids and masks of prompts (left padded) and completions (right padded), one of which is masked altogether."""
    generator = torch.Generator().manual_seed(1)

    def tokens(length):
        return torch.randint(2, 97, (length,), generator=generator).tolist()

    prompts = [tokens(9), tokens(4), tokens(6)]
    prompt_ids, prompt_mask = pad_tokens([prompts[owner] for owner in ORDER], "left", 0, "cpu")
    completion_ids, completion_mask = pad_tokens([tokens(n) for n in (7, 1, 3, 5, 12, 2, 6, 4)], "right", 0, "cpu")
    completion_mask[6] = False
    return prompt_ids, prompt_mask, completion_ids, completion_mask


def score_rows(model, prompt_ids, prompt_mask, completion_ids, completion_mask, autocast):
    """Log-probabilities and entropies from a row for each completion, as TRL asks for them."""
    ids = torch.cat([prompt_ids, completion_ids], dim=1)
    mask = torch.cat([prompt_mask, completion_mask], dim=1)
    labels = ids.masked_fill(~mask, -100)
    width = completion_ids.size(1)
    labels[:, :-width] = -100
    with autocast():
        output = model(input_ids=ids, attention_mask=mask.long(), labels=labels, fused_lm_head=True)
    return output.log_probs[:, -width:], output.entropy[:, -width:]


def score_shared(model, *tokens_and_autocast, **wanted):
    *tokens, autocast = tokens_and_autocast
    with autocast():
        return shared_prompts.score_shared(model, *tokens, **wanted)


def gradient(model, logps):
    """That of all weights that are trained, as one vector, of a loss which weighs every token differently."""
    weights = torch.linspace(-1.0, 1.0, logps.numel()).view_as(logps)
    model.zero_grad()
    (logps * weights).sum().backward()
    return torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])


def cosine(first, second):
    return torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=0).item()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_and_gradients_are_those_of_rows(family, attention, monkeypatch):
    monkeypatch.setitem(buckets.MIN_TOKENS, "cpu", 10)  # several blocks
    model, tokens = build(*FAMILIES[family], attention), batch()
    expected, entropy = score_rows(model, *tokens, FLOAT32)
    wanted = gradient(model, expected)
    assert reason_for_rows(model) is None
    share_prompts(model)
    assert torch.equal(score_rows(model, *tokens, FLOAT32)[0], expected)  # what has no `SharedRow` is as it was
    found = score_shared(model, *tokens, FLOAT32, states=True)
    torch.testing.assert_close(found.logps, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.entropy, entropy, atol=1e-4, rtol=0)
    assert found.logps.abs().max() > 3 and cosine(gradient(model, found.logps), wanted) > 1 - 1e-6
    bare = score_shared(model, *tokens, FLOAT32, head=False, states=True)
    torch.testing.assert_close(bare.states, found.states, atol=1e-6, rtol=0)
    assert bare.logps is None and found.states.shape == (8, 12, 32)


@pytest.mark.parametrize("kind", ["adapter", "adapter off", "checkpointing", "adapter, checkpointing", "bfloat16"])
def test_it_goes_with(kind, monkeypatch):
    monkeypatch.setitem(buckets.MIN_TOKENS, "cpu", 10)
    model, tokens = build(*FAMILIES["llama"]), batch()
    autocast = BFLOAT16 if kind == "bfloat16" else FLOAT32
    if "adapter" in kind:
        set_seed(0)
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    expected, _ = score_rows(model, *tokens, autocast)
    wanted = gradient(model, expected)
    share_prompts(model)
    if "checkpointing" in kind:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    found = score_shared(model, *tokens, autocast)
    if kind == "bfloat16":
        with autocast():  # kernels of a GPU take no mask in another type than the queries
            assert shared_row(*tokens, compute_dtype(model)).blocks[0].mask.dtype == torch.bfloat16
        torch.testing.assert_close(found.logps, expected, atol=0.2, rtol=0)
        assert cosine(gradient(model, found.logps), wanted) > 0.99
        return
    torch.testing.assert_close(found.logps, expected, atol=1e-4, rtol=0)
    assert cosine(gradient(model, found.logps), wanted) > 1 - 1e-6
    if kind == "adapter off":
        with model.disable_adapter(), torch.no_grad():
            expected, _ = score_rows(model, *tokens, autocast)
            torch.testing.assert_close(score_shared(model, *tokens, autocast).logps, expected, atol=1e-4, rtol=0)


def test_each_prompt_is_read_once_and_the_head_sees_no_prompt(monkeypatch):
    model = build(*FAMILIES["llama"])
    share_prompts(model)
    read = []
    model.get_input_embeddings().register_forward_pre_hook(lambda module, args: read.append(tuple(args[0].shape)))
    states = score_shared(model, *batch(), FLOAT32, states=True)
    assert read == [(1, 3 * 9 + 8 * 12)] and states.logps.shape == (8, 12)
    read.clear()
    monkeypatch.setitem(buckets.MIN_TOKENS, "cpu", 6)
    score_shared(model, *batch(), FLOAT32)
    assert read[0][1] < 3 * 9 + 8 * 12, "blocks of similar length hold less padding"


def test_passes_hold_the_completions_of_a_prompt_and_no_idle_row_beside_others():
    prompt_ids, prompt_mask, *_ = batch()
    assert [sorted(rows) for rows in shared_passes(prompt_ids, prompt_mask, 8)] == [[0, 1, 2, 3, 4, 5, 6, 7]]
    passes = shared_passes(prompt_ids, prompt_mask, 4)
    owners = [[ORDER[row] for row in rows] for rows in passes]
    assert sorted(row for rows in passes for row in rows) == list(range(8))
    assert sum(len(set(part)) for part in owners) <= 4  # three prompts, of which one is cut at most
    idle = torch.tensor([False, True, False, True, True, False, False, True])
    for rows in shared_passes(prompt_ids, prompt_mask, 8, idle):
        assert len({bool(idle[row]) for row in rows}) == 1
    assert shared_passes(prompt_ids[[0, 1, 3]], prompt_mask[[0, 1, 3]], 8) is None


def test_rows_without_a_gradient_leave_no_graph():
    model, tokens = build(*FAMILIES["llama"]), batch()
    share_prompts(model)
    idle = torch.tensor([False, True, False, True, True, False, False, True])
    passes = shared_passes(*tokens[:2], 8, idle)
    tracked = []
    model.get_input_embeddings().register_forward_hook(lambda *call: tracked.append(call[-1].requires_grad))
    logps, _ = score_in_passes(model, passes, tokens, FLOAT32, idle)
    assert tracked == [not idle[rows[0]] for rows in passes] and len(set(tracked)) == 2
    torch.testing.assert_close(logps, score_shared(model, *tokens, FLOAT32).logps, atol=1e-4, rtol=0)


@pytest.mark.parametrize("reason", OTHERS)
def test_other_policies_keep_their_rows_and_say_why(reason):
    model_class, config, settings = OTHERS[reason]
    assert reason_for_rows(model_class(config(**SIZES | {"attn_implementation": "sdpa"} | settings))) == reason


def test_dropout_in_an_adapter_keeps_the_rows():
    model = get_peft_model(build(*FAMILIES["llama"]), LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.1))
    assert reason_for_rows(model) == "dropout"
