"""The shared feature pass on heads that are more than a projection."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    set_seed,
)
from trl.trainer.utils import add_fused_lm_head

from policy.buckets import buckets_of
from policy.features import TOKEN_FEATURES, FeaturePass, mean_state
from policy.padding import pad_tokens

SIZES = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
HEADS = {
    "plain": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "soft-capped": (Gemma2ForCausalLM, Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=0.5)),
    "scaled": (CohereForCausalLM, CohereConfig(**SIZES, logit_scale=0.25)),
    "divided": (GraniteForCausalLM, GraniteConfig(**SIZES, logits_scaling=8.0)),
    "biased": (PhiForCausalLM, PhiConfig(**SIZES)),
}


def test_self_certainty_is_float32_under_autocast():
    set_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_().add_(3.0)  # a mean logit that bfloat16 rounds by several per cent of a nat
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    prompts, prompt_mask = pad_tokens([[5, 6, 7], [8]], "left", 0, "cpu")
    tokens, mask = pad_tokens([[9, 10, 11, 12, 13, 14], [15, 16]], "right", 0, "cpu")
    bfloat16 = partial(torch.autocast, "cpu", torch.bfloat16)
    states = []
    model.model.register_forward_hook(lambda module, args, output: states.append(output[0][:, 2:-1].float()))
    found = FeaturePass(model, 1.0, batch_size=2)(prompts, prompt_mask, tokens, mask, bfloat16)
    weight = model.lm_head.weight.detach()
    ((rows, _),) = buckets_of(mask, 3)
    hidden = states[0][torch.tensor(rows).argsort()]
    target = (hidden * weight[tokens]).sum(-1)
    expected = target - found["logps"] - hidden @ weight.mean(0) - torch.log(torch.tensor(97.0))
    torch.testing.assert_close(found["self_certainty"][mask], expected[mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model_class, config", HEADS.values(), ids=HEADS.keys())
def test_features_equal_those_of_full_logits_whatever_the_head(model_class, config, monkeypatch):
    monkeypatch.setattr("policy.features.CHUNK_TOKENS", 4)
    set_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.get_output_embeddings().parameters():
            parameter.normal_()
    temperature = 0.7
    prompts, prompt_mask = pad_tokens([[5, 6, 7], [8]], "left", 0, "cpu")
    tokens, mask = pad_tokens([[9, 10, 11, 12, 13, 14], [15, 16]], "right", 0, "cpu")
    ids, attention = torch.cat([prompts, tokens], dim=1), torch.cat([prompt_mask, mask], dim=1)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=attention.long()).logits[:, 2:-1].float() / temperature
    logps = logits.log_softmax(-1)
    expected = {
        "self_certainty": -logps.mean(-1) - torch.log(torch.tensor(97.0)),
        "entropy": -(logps.exp() * logps).sum(-1),
        "logps": logps.gather(-1, tokens[..., None])[..., 0],
    }
    add_fused_lm_head(model, temperature=temperature, outputs=("log_probs", "entropy"))
    features = FeaturePass(model, temperature, batch_size=1)
    assert features.head.is_plain == (model_class is LlamaForCausalLM)
    found = features(prompts, prompt_mask, tokens, mask, nullcontext)
    for name, values in expected.items():
        torch.testing.assert_close(found[name][mask], values[mask], atol=1e-4, rtol=1e-4)
        assert not found[name][~mask].any()


def test_the_head_is_gathered_once_per_batch_and_for_self_certainty_alone(monkeypatch):
    gathered = []
    monkeypatch.setattr("policy.features.whole_head", lambda model: gathered.append(1) or model.get_output_embeddings())
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    prompts, prompt_mask = pad_tokens([[5]] * 4, "left", 0, "cpu")
    tokens, mask = pad_tokens([[9, 10]] * 4, "right", 0, "cpu")
    features = FeaturePass(model, 1.0, batch_size=1)
    for names, count in ((TOKEN_FEATURES, 1), (TOKEN_FEATURES - {"self_certainty"}, 0)):
        gathered.clear()
        features(prompts, prompt_mask, tokens, mask, nullcontext, names)
        assert len(gathered) == count


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_states_are_in_the_type_of_the_pass_and_their_mean_is_that_of_the_unrounded_ones(precision, monkeypatch):
    monkeypatch.setattr("policy.buckets.MIN_TOKENS", {"cpu": 6})
    set_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    prompts, prompt_mask = pad_tokens([[5, 6, 7], [8], [9]], "left", 0, "cpu")
    tokens, mask = pad_tokens([[9, 10, 11, 12, 13, 14], [15, 16], []], "right", 0, "cpu")
    assert len(buckets_of(mask, 3)) > 1
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=precision == torch.bfloat16)
    features = FeaturePass(model, 1.0, batch_size=1)
    seen = {}

    def keep(module, args, output):  # one row at a time, each without the padding behind its bucket
        seen[len(seen)] = output[0][0, 2:-1].float()

    hook = model.model.register_forward_hook(keep)
    found = features(prompts, prompt_mask, tokens, mask, autocast, {"hidden", "mean_hidden"})
    hook.remove()
    whole = torch.zeros(3, 6, 16)
    for row, states in zip([row for rows, _ in buckets_of(mask, 3) for row in rows], seen.values(), strict=True):
        whole[row, : len(states)] = states
    assert found["hidden"].shape == (3, 6, 16) and found["hidden"].dtype == precision
    assert torch.equal(found["hidden"], (whole * mask[..., None]).to(precision))
    assert found["mean_hidden"].dtype == torch.float32 and torch.equal(found["mean_hidden"], mean_state(whole, mask))
