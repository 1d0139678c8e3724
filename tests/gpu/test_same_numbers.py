"""Ways to the same numbers: sampling, features, log-probabilities and updates that must not depend on the way."""

from importlib.util import find_spec

import pytest
import torch

import policy.buckets
from evaluation.evaluate import HeldOut, Pass
from evaluation.generate import Decoding
from policy.features import TOKEN_FEATURES
from policy.load import load_policy
from policy.options import PolicyOptions
from rewards.grade import Grade
from tests.equivalence.scripted import ScriptedTrainer
from tests.gpu.machine import DESCENT, Recorder, build, trained, weights_of
from training.fit.report import now
from training.trainer import IntrinsicGRPOTrainer


def judged(text, row):
    """A grade that tells texts apart."""
    return Grade(False, bool(text), bool(text), text, "correct" if text else "no_answer", False)


def test_sampling_in_training_writes_the_tokens_of_plain_generation(machine, tmp_path, figure):
    """The embedded policy, greedily; plain is autocast around each forward pass alone, and transformers' own cache."""
    greedy = {"generation_kwargs": {"do_sample": False}, "learning_rate": 0.0, "max_steps": 1}
    trainer = build(machine, tmp_path, recorder=Recorder(), model_name="tiny", **greedy)
    trainer.train()
    (rollout,) = trainer.bonuses.bonuses[0].seen
    policy = trainer.accelerator.unwrap_model(trainer.model).eval()
    inputs = {"input_ids": rollout.prompt_ids, "attention_mask": rollout.prompt_mask.long()}
    with torch.no_grad():
        plain = policy.generate(**inputs, max_new_tokens=machine.length, do_sample=False, disable_compile=True)
    plain = plain[:, rollout.prompt_ids.size(1) :]
    width = min(plain.size(1), rollout.completion_ids.size(1))
    kept = rollout.completion_mask[:, :width]
    assert len(rollout.completion_ids[:, :width][kept].unique()) > 2
    assert torch.equal(rollout.completion_ids[:, :width][kept], plain[:, :width][kept])
    if machine.has_gpu:
        compare_cost(build(machine, tmp_path), inputs, tmp_path, figure)


def compare_cost(trainer, inputs, folder, figure):
    """Seconds and peak of sampling 64 completions as evaluations do, over those of plain generation."""
    policy = trainer.accelerator.unwrap_model(trainer.model)
    row = trainer.train_dataset.select([0])
    held_out = HeldOut("toy", row, judged, folder, [Pass("sampled", Decoding(64, 1.0, 256))], seed=0)
    plain = {name: value[:1].repeat(64, 1) for name, value in inputs.items()}

    def ours():
        held_out.evaluate(trainer.model, trainer.processing_class, "cost", 0, trainer.accelerator)

    def theirs():
        with torch.no_grad():
            policy.generate(**plain, max_new_tokens=256, do_sample=True, disable_compile=True)

    costs = []
    for sample in (ours, theirs):
        sample()
        torch.cuda.reset_peak_memory_stats()
        start = now()
        sample()
        costs.append((now() - start, torch.cuda.max_memory_allocated()))
    (seconds, peak), (plain_seconds, plain_peak) = costs
    figure("seconds over plain generation", f"{seconds / plain_seconds:.2f}")
    figure("peak over plain generation", f"{peak / plain_peak:.2f}")
    assert seconds <= 1.15 * plain_seconds and peak <= 1.05 * plain_peak


def test_features_captured_in_generation_are_those_of_a_forward_pass(machine, tmp_path):
    rollouts = []
    for capture in (True, False):
        recorder = Recorder(*TOKEN_FEATURES)
        settings = {"own": {"capture_features": capture}, "temperature": 0.9, "max_steps": 1, "learning_rate": 0.0}
        trained(machine, tmp_path, recorder=recorder, **settings)
        rollouts += recorder.seen
    captured, passed = rollouts
    assert torch.equal(captured.completion_ids, passed.completion_ids)
    machine.assert_close(captured.features, passed.features)


def test_the_fused_head_gives_the_log_probabilities_of_full_logits(machine, tmp_path):
    trainer = build(machine, tmp_path, temperature=0.9)
    policy = trainer.accelerator.unwrap_model(trainer.model)
    ids = torch.randint(5, 500, (4, 24), device=machine.device, generator=torch.Generator(machine.device))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found = []
    for fused in (True, False):
        policy.zero_grad()
        with trainer.accelerator.autocast():
            if fused:
                logps = policy(**inputs, labels=ids, fused_lm_head=True, use_cache=False).log_probs[:, -8:].float()
            else:
                logits = policy(**inputs, use_cache=False).logits[:, -9:-1].float() / 0.9
                logps = logits.log_softmax(dim=-1).gather(2, ids[:, -8:, None]).squeeze(2)
        logps.sum().backward()
        found.append({"logps": logps.detach(), "gradient": policy.model.norm.weight.grad.clone()})
    machine.assert_close(*found)


@pytest.mark.parametrize("way", ["copy", "reference", "adapter"])
def test_the_initial_policy_is_the_same_as_copy_reference_and_adapter_off(way, machine, tmp_path):
    """After an update, against the policy as it was, loaded again."""
    recorder = Recorder("frozen_hidden")
    options = PolicyOptions(lora=way == "adapter", dtype="float32")
    settings = {"beta": 0.04 * (way == "reference"), "learning_rate": 0.02}
    trainer = trained(machine, tmp_path, recorder=recorder, policy_options=options, **settings)
    rollout = recorder.seen[-1]
    hidden = {}
    for name, loaded in {"initial": load_policy(machine.policy, PolicyOptions(dtype="float32")), "now": None}.items():
        policy = (loaded or trainer.accelerator.unwrap_model(trainer.model)).to(machine.device).eval()
        ids = torch.cat([rollout.prompt_ids, rollout.completion_ids], dim=1)
        mask = torch.cat([rollout.prompt_mask, rollout.completion_mask], dim=1).long()
        with torch.no_grad(), trainer.accelerator.autocast():
            output = policy(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        states = output.hidden_states[-1][:, -rollout.completion_ids.size(1) - 1 : -1]
        hidden[name] = states.float() * rollout.completion_mask[..., None]
    machine.assert_close(rollout.features, {"frozen_hidden": hidden["initial"]})
    with pytest.raises(AssertionError):
        machine.assert_close({"frozen_hidden": hidden["now"]}, {"frozen_hidden": hidden["initial"]})


@pytest.mark.parametrize("lora", [False, True])
def test_a_run_at_learning_rate_zero_evaluates_the_same_before_and_after(lora, machine, tmp_path):
    options = PolicyOptions(lora=lora, dtype="auto" if lora else "float32")
    trainer = build(machine, tmp_path, {"use_ir": "sc"}, policy_options=options, learning_rate=0.0)
    passes = [Pass("sampled", Decoding(2, 1.0, machine.length)), Pass("greedy", Decoding(1, 0.0, machine.length))]
    held_out = HeldOut("toy", trainer.train_dataset.select(range(4)), judged, tmp_path, passes, seed=0)
    arguments = trainer.model, trainer.processing_class
    before = held_out.evaluate(*arguments, "before", 0, trainer.accelerator)
    trainer.train()
    after = held_out.evaluate(*arguments, "after", 2, trainer.accelerator)
    records = [held_out.load(name)["records"] for name in ("before", "after")]
    assert records[0] == records[1] and before["metrics"] == after["metrics"]


def test_flash_attention_gives_the_policy_of_sdpa(gpu, tmp_path):
    if find_spec("flash_attn") is None:
        pytest.skip("flash-attn is not installed: pip install flash-attn")
    ids = torch.randint(5, 500, (4, 24), device=gpu.device)
    mask = torch.ones_like(ids)
    mask[1, :9] = 0  # left padding
    found = []
    for attention in ("flash_attention_2", "sdpa"):
        options = PolicyOptions(attn_implementation=attention, dtype="float32")
        trainer = build(gpu, tmp_path, {"use_ir": "sc"}, policy_options=options, max_steps=1)
        with torch.no_grad(), trainer.accelerator.autocast():
            logits = trainer.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        found.append({"logits": logits[mask.bool()].float()})
        passes = [Pass("greedy", Decoding(1, 0.0, 16))]
        held_out = HeldOut("toy", trainer.train_dataset.select(range(2)), judged, tmp_path, passes, seed=0)
        held_out.evaluate(trainer.model, trainer.processing_class, attention, 0, trainer.accelerator)
        trainer.train()
    gpu.assert_close(*found)


def scripted_updates(machine, folder, **changes):
    """What two steps of gradient descent on given completions change in the weights."""
    settings = {"trainer_class": ScriptedTrainer, "own": {"capture_features": False}} | DESCENT
    trainer = build(machine, folder, **settings | changes)
    before = weights_of(trainer)
    trainer.train()
    return {name: value - before[name].to(value.device) for name, value in weights_of(trainer).items()}


def test_recomputed_activations_give_the_same_update(machine, tmp_path):
    machine.assert_close(
        scripted_updates(machine, tmp_path, gradient_checkpointing=True), scripted_updates(machine, tmp_path)
    )


def test_buckets_and_idle_rows_leave_the_update_as_it_is(machine, tmp_path, monkeypatch):
    """Groups of equal rewards have no advantage, so there are idle rows."""
    shared = scripted_updates(machine, tmp_path)
    monkeypatch.setattr(policy.buckets, "MIN_TOKENS", {"cpu": 1})
    monkeypatch.setattr(policy.buckets, "MIN_TOKENS_ACCELERATOR", 1)
    split = scripted_updates(machine, tmp_path)
    monkeypatch.setattr(IntrinsicGRPOTrainer, "_rows_without_gradient", lambda self, inputs: None)
    whole = scripted_updates(machine, tmp_path)
    machine.assert_close(split, shared)
    machine.assert_close(whole, shared)
