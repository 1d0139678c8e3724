"""Features captured during generation are those of the forward pass, at no forward pass of their own."""

from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    set_seed,
)
from trl.trainer.utils import add_fused_lm_head

from intrinsic.base import Bonus, WeightSchedule
from policy import stages as staged_generation
from policy.capture import GenerationCapture
from policy.features import TOKEN_FEATURES, FeaturePass, mean_state
from policy.load import load_policy
from policy.padding import pad_tokens

SIZES = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
MODELS = {
    "plain": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "soft-capped": (Gemma2ForCausalLM, Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=0.5)),
    "biased": (PhiForCausalLM, PhiConfig(**SIZES)),
}


class FeatureReader(Bonus):
    """Keeps the features it was given, and the tokens and masks they belong to."""

    name, placement, needs = "reader", "advantage", TOKEN_FEATURES

    def score(self, rollout):
        self.rollout = rollout
        return rollout.features["self_certainty"].mean(dim=1)


def build(model_class, config, adapter=False):
    set_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.get_output_embeddings().parameters():
            parameter.normal_()
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    if adapter:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    return model.eval()


def generate(model, capture):
    """Sampled tokens after prompts of different length, one of which ends early, and the capture's features."""
    prompts, prompt_mask = pad_tokens([[5, 6, 7], [8], [9, 10]], "left", 0, "cpu")
    with capture.capturing(range(3)), torch.no_grad():
        output = model.generate(
            input_ids=prompts,
            attention_mask=prompt_mask.long(),
            do_sample=True,
            top_k=0,
            max_new_tokens=12,
            temperature=0.7,
        )
    tokens = output[:, prompts.size(1) :]
    ended = (tokens == 1).int().cumsum(dim=1) - (tokens == 1).int()
    mask = ended == 0
    return prompts, prompt_mask, tokens, mask


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "adapter"])
@pytest.mark.parametrize("model_class, config", MODELS.values(), ids=MODELS.keys())
def test_captured_features_equal_those_of_the_forward_pass(model_class, config, adapter):
    model = build(model_class, config, adapter)
    capture = GenerationCapture(model, 0.7, end_ids=[1])
    prompts, prompt_mask, tokens, mask = generate(model, capture)
    captured = capture.features(tokens, mask)
    passed = FeaturePass(model, 0.7, batch_size=3)(prompts, prompt_mask, tokens, mask, nullcontext)
    assert captured.keys() == passed.keys()
    for name, values in passed.items():
        torch.testing.assert_close(captured[name], values, atol=1e-4, rtol=1e-4)


def test_a_mean_taken_while_sampling_is_that_of_the_completions_tokens_alone():
    _, _, tokens, _ = generate(model := build(*MODELS["plain"]), GenerationCapture(model, 0.7))
    end = int(tokens[0, 4])
    capture = GenerationCapture(model := build(*MODELS["plain"]), 0.7, {"hidden", "mean_hidden"}, end_ids=[end])
    _, _, again, _ = generate(model, capture)
    assert torch.equal(tokens, again)
    ended = (tokens == end).int()
    mask = ended.cumsum(dim=1) - ended == 0
    assert mask.sum(dim=1).min() < mask.size(1), "a completion ends early"
    captured = capture.features(tokens, mask)
    mean = mean_state(captured["hidden"], mask)
    torch.testing.assert_close(captured["mean_hidden"], mean, atol=1e-6, rtol=1e-6)


def test_hooks_are_gone_and_the_capture_empty_afterwards():
    model = build(*MODELS["plain"])
    capture = GenerationCapture(model, 0.7, {"logps"})
    _, _, tokens, mask = generate(model, capture)
    assert "hidden" not in capture.features(tokens, mask)
    model(torch.ones(1, 3, dtype=torch.long))
    with pytest.raises(IndexError):
        capture.features(tokens, mask)


def held(capture):
    """Every tensor that ``capture`` holds."""
    for stage in capture._stages:
        yield from (value for value in (stage.state, stage.ended, stage.total) if value is not None)
        for step in stage.steps:
            yield from step.values()


class Operations(TorchDispatchMode):
    """Names of the operations that run while it is open."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "name, expected",
    [
        ("hidden", set()),
        ("mean_hidden", set()),
        ("logps", {"logsumexp"}),
        ("self_certainty", {"logsumexp", "mean"}),
        ("entropy", {"logsumexp", "exp", "mul", "sub", "sum", "unsqueeze"}),
    ],
)
def test_only_what_is_asked_for_is_computed_and_no_view_of_the_prompts_states_is_kept(monkeypatch, name, expected):
    capture = GenerationCapture(build(*MODELS["plain"]), 1.0, {name}, end_ids=[1])
    statistics, operations = capture._statistics, Operations()

    def watched(logits):
        with operations:
            return statistics(logits)

    monkeypatch.setattr(capture, "_statistics", watched)
    _, _, tokens, mask = generate(capture.model, capture)
    assert operations.names - {"slice", "alias"} == expected
    kept = list(held(capture))
    assert kept and all(value.untyped_storage().nbytes() == value.nbytes for value in kept)
    assert max(value.numel() for value in kept) == (3 if expected and name != "logps" else 3 * SIZES["hidden_size"])
    assert capture.features(tokens, mask).keys() == {name} and capture._states is None


@pytest.mark.parametrize("names", [{"logps"}, {"logps", "hidden"}], ids=len)
def test_states_are_held_for_one_token_at_a_time_unless_asked_for(names):
    capture = GenerationCapture(build(*MODELS["plain"]), 0.7, names)
    with torch.autocast("cpu", torch.bfloat16):
        _, _, tokens, mask = generate(capture.model, capture)
    (stage,) = capture._stages
    assert len(stage.steps) > 2 and stage.state.dtype == torch.float32
    assert {"hidden" in step for step in stage.steps} == {"hidden" in names}
    if "hidden" in names:
        assert capture.features(tokens, mask)["hidden"].dtype == torch.bfloat16
    assert not any(stage.steps) or "hidden" not in names, "joined states leave the steps"


def test_captured_bonuses_cost_no_forward_pass(trainer_factory, random_policy):
    def forwards(**settings):
        count = 0

        def add(*_):
            nonlocal count
            count += 1

        hook = random_policy.model.register_forward_hook(add)
        trainer_factory(policy=random_policy, max_steps=1, **settings).train()
        hook.remove()
        return count

    plain, second = forwards(), FeatureReader()
    second.name = "second"
    assert forwards(bonuses=[FeatureReader()], schedules=[WeightSchedule(1.0)]) == plain
    both = {"bonuses": [FeatureReader(), second], "schedules": [WeightSchedule(1.0)] * 2}
    assert forwards(**both, capture=False) == plain + 1


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_features_of_completions_sampled_in_stages_are_those_of_the_forward_pass(
    trainer_factory, monkeypatch, temperature
):
    monkeypatch.setattr(staged_generation, "STAGE", 4)
    reader = FeatureReader()
    trainer = trainer_factory(
        policy=load_policy("tiny"),
        bonuses=[reader],
        schedules=[WeightSchedule(1.0)],
        max_completion_length=40,
        max_steps=1,
        temperature=temperature,
        learning_rate=0.0,
    )
    assert trainer._samples_in_stages and trainer._capture is not None
    trainer.train()
    seen = reader.rollout
    lengths = seen.completion_mask.sum(dim=1)
    assert lengths.min() < 32 < lengths.max(), "the completions end in different stages"
    tokens = (seen.prompt_ids, seen.prompt_mask, seen.completion_ids, seen.completion_mask)
    passed = FeaturePass(trainer.model, temperature, batch_size=8)(*tokens, nullcontext)
    assert seen.features.keys() == passed.keys()
    for name, values in passed.items():
        torch.testing.assert_close(seen.features[name], values, atol=1e-4, rtol=1e-4)
