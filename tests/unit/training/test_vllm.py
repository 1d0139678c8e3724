"""Training with vLLM, on the stand-in of tests/vllm_stub.py: every bonus, both modes, full and LoRA, and its seams."""

import copy
from itertools import cycle

import pytest
import torch
from peft import LoraConfig
from trl.distributed import DistributedBackend

from common.errors import UserError
from policy.features import FROZEN_FEATURES
from policy.load import load_policy, load_tokenizer
from tests.compare import assert_same_bits
from tests.equivalence.cases import ALONE, CASES
from tests.equivalence.scripted import build, weights_of
from tests.vllm_stub import Client, engine_of, own_environment, standing_in

LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
LAYOUTS = [("colocate", False), ("server", True), ("colocate", True), ("server", False)]
MODES = pytest.mark.parametrize("mode", ["colocate", "server"])
# The engine pads to the left, the trainer to both sides: sums in another order.
ATOL = 1e-4


@pytest.fixture(autouse=True)
def vllm():
    with standing_in():
        yield


def build_with(name, folder, mode="colocate", lora=False, **settings):
    """A trainer of the case, bonus or flags ``name`` with vLLM in ``mode``."""
    flags = name if isinstance(name, dict) else CASES.get(name, {"use_ir": name})
    adapter = {"peft_config": copy.deepcopy(LORA)} if lora else {}
    with own_environment():
        return build(flags, folder, use_vllm=True, vllm_mode=mode, **adapter, **settings)


def bare(trainer):
    return trainer.accelerator.unwrap_model(trainer.model)


def merged(trainer) -> dict[str, torch.Tensor]:
    """The policy's weights, an adapter merged into a copy by PEFT itself."""
    policy = copy.deepcopy(bare(trainer))
    policy = policy.merge_and_unload() if hasattr(policy, "merge_and_unload") else policy
    return {name: value.detach() for name, value in policy.named_parameters()}


@torch.no_grad()
def move_adapter(policy, generator: torch.Generator) -> None:
    for name, value in policy.named_parameters():
        if "lora_" in name:
            value.add_(1e-2 * torch.randn(value.shape, generator=generator))


def record_batches(trainer) -> tuple[list[dict], list[int]]:
    """What each generation batch will give the loss, and the policy's forward passes that each will take."""
    batches, counts, passes = [], [], []
    score = trainer._generate_and_score_completions
    bare(trainer).get_input_embeddings().register_forward_hook(lambda *_: passes.append(1))

    def recorded(inputs):
        passes.clear()
        batches.append(score(inputs))
        counts.append(len(passes))
        return batches[-1]

    trainer._generate_and_score_completions = recorded
    return batches, counts


# Bonuses that another one stands for (`tests.equivalence.cases.STANDS_FOR`) ask nothing else of generation and passes.
@pytest.mark.parametrize(("name", "layout"), zip(["no", *ALONE], cycle(LAYOUTS)), ids=str)
def test_every_bonus_trains_on_one_pass_per_batch(name, layout, tmp_path):
    trainer = build_with(name, tmp_path, *layout)
    before, (batches, passes) = copy.deepcopy(weights_of(trainer)), record_batches(trainer)
    trainer.train()
    assert engine_of(trainer).syncs == len(batches) == 2
    assert any(not torch.equal(before[key], value) for key, value in weights_of(trainer).items())
    # With an adapter a bonus that reads the initial policy has a pass of it besides, with the adapter off.
    initial = layout[1] and bool(trainer.bonuses.needs & FROZEN_FEATURES.keys())
    assert passes == [1 + initial] * 2
    for batch in batches:
        assert batch["advantages"].isfinite().all()
        kept = batch["completion_mask"].bool()
        difference = batch["old_per_token_logps"] - batch["sampling_per_token_logps"]
        assert difference[kept].abs().max() < ATOL, "the engine has sampled from other weights"
    assert engine_of(trainer).prompts[-1] == trainer._prompt_ids_list[-1]


def test_a_bonus_without_weight_leaves_ratio_and_update_as_they_are_without_it(tmp_path):
    """Old log-probabilities are those of plain GRPO, bit for bit, though another pass gives them."""
    weights, recorded = [], []
    for flags in ("no", {"use_ir": "sc,ppl", "ir_weight": "0,0"}):
        trainer = build_with(flags, tmp_path, max_steps=3, mask_truncated_completions=True)
        recorded.append(record_batches(trainer)[0])
        trainer.train()
        weights.append(dict(weights_of(trainer)))
    for first, second in zip(*recorded, strict=True):
        assert first.keys() == second.keys() >= {"old_per_token_logps", "importance_sampling_ratio"}
        kept = first["completion_mask"].bool()
        assert torch.equal(first["old_per_token_logps"][kept], second["old_per_token_logps"][kept])
    assert_same_bits(*weights)


@pytest.mark.parametrize(
    ("settings", "taken"),
    [
        ({}, True),
        ({"vllm_importance_sampling_correction": False}, False),
        ({"vllm_importance_sampling_correction": False, "num_iterations": 2}, True),
    ],
    ids=str,
)
def test_old_log_probabilities_are_taken_with_a_bonus_where_they_are_without(settings, taken, tmp_path):
    for name in ("no", "ppl"):
        trainer = build_with(name, tmp_path, max_steps=1, **settings)
        batches, passes = record_batches(trainer)
        trainer.train()
        assert ("old_per_token_logps" in batches[0]) == taken
        assert passes == [int(taken or name == "ppl")]


def test_the_correction_is_the_policy_over_what_the_engine_says(tmp_path):
    settings = {"vllm_importance_sampling_mode": "token_truncate", "vllm_importance_sampling_clip_max": 2.0}
    trainer = build_with("ppl", tmp_path, max_steps=1, **settings)
    engine_of(trainer).skew = -0.5
    (batches, _) = record_batches(trainer)
    trainer.train()
    ratio, kept = batches[0]["importance_sampling_ratio"], batches[0]["completion_mask"].bool()
    torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 0.5).exp(), atol=ATOL, rtol=0)


@MODES
def test_deliveries_leave_every_bit_of_the_base_and_the_engine_has_the_merged_weights(mode, tmp_path):
    trainer = build_with("no", tmp_path, mode, lora=True)
    adapted = bare(trainer).to(torch.bfloat16)
    base = {name: value.clone() for name, value in adapted.state_dict().items() if "lora_" not in name}
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        move_adapter(adapted, generator)
        trainer.vllm_generation.sync_weights()
    assert_same_bits(base, {name: value for name, value in adapted.state_dict().items() if "lora_" not in name})
    assert not any(module.merged_adapters for module in adapted.modules() if hasattr(module, "merged_adapters"))
    seen, expected = engine_of(trainer).weights, merged(trainer)
    assert_same_bits({name: value.detach().bfloat16() for name, value in seen.items()}, expected)
    layer = "model.layers.0.self_attn.q_proj"
    assert not torch.equal(expected[f"{layer}.weight"], base[f"base_model.model.{layer}.base_layer.weight"])


def test_a_delivery_that_is_broken_off_leaves_the_base_too(tmp_path):
    trainer = build_with("no", tmp_path, lora=True)
    move_adapter(bare(trainer), torch.Generator().manual_seed(0))
    base = {name: value.clone() for name, value in weights_of(trainer).items()}
    weights = trainer.vllm_generation._iter_named_params()
    for name, _ in weights:
        if name.endswith("q_proj.weight"):
            break
    weights.close()
    assert_same_bits(base, dict(weights_of(trainer)))


def test_an_adapter_that_is_sharded_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(DistributedBackend, "is_fsdp", True)
    build_with("no", tmp_path)
    with pytest.raises(UserError, match="--lora with --use_vllm .* configs/accelerate/ddp.yaml"):
        build_with("no", tmp_path, lora=True)


@pytest.mark.parametrize(("case", "settings"), [("sc", {}), ("cfn token", {"vllm_enable_sleep_mode": True})], ids=str)
def test_a_resumed_run_equals_the_uninterrupted_one(case, settings, tmp_path):
    straight = build_with(case, tmp_path, max_steps=3, save_strategy="steps", save_steps=1, **settings)
    straight.train()
    resumed = build_with(case, tmp_path, max_steps=3, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert engine_of(resumed).prompts == engine_of(straight).prompts[-len(engine_of(resumed).prompts) :]
    assert_same_bits(weights_of(straight), weights_of(resumed))
    assert_same_bits(straight.bonuses.state_dict(), resumed.bonuses.state_dict())


def test_a_colocated_engine_samples_by_the_seed_of_the_run(tmp_path):
    sampled = []
    for seed in (0, 1, 0):
        trainer = build_with("no", tmp_path, seed=seed, max_steps=1, shuffle_dataset=False)
        trainer.train()
        sampled.append(trainer._completion_ids_list)
    assert sampled[0] == sampled[2] != sampled[1]


@MODES
def test_the_engine_stops_where_the_chat_template_ends_a_turn_behind_an_opened_thought(mode, tmp_path, monkeypatch):
    """The folder of the policy and its tokenizer name another end, as those of base models do."""
    policy, tokenizer = load_policy("tiny"), load_tokenizer("tiny")
    end, tokenizer.eos_token = tokenizer.eos_token_id, tokenizer.pad_token
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>{% endif %}"
    policy.generation_config.eos_token_id = tokenizer.pad_token_id
    policy.save_pretrained(tmp_path / "policy")
    policy = load_policy(str(tmp_path / "policy"))
    monkeypatch.setattr(Client, "served", str(tmp_path / "policy"))
    monkeypatch.setattr("tests.equivalence.scripted.load_policy", lambda name: policy)
    monkeypatch.setattr("tests.equivalence.scripted.load_tokenizer", lambda name: tokenizer)
    settings = {"max_completion_length": 150, "max_steps": 1, "generation_kwargs": {"stop_token_ids": [7]}}
    trainer = build_with("no", tmp_path, mode, **settings)
    trainer.train()
    engine = engine_of(trainer)
    assert engine.params[0].stop_token_ids == [7, tokenizer.pad_token_id, end]
    assert trainer.args.generation_kwargs == {"stop_token_ids": [7]}
    ended = [ids for ids in trainer._completion_ids_list if ids[-1] == end]
    assert ended and all(end not in ids[:-1] for ids in trainer._completion_ids_list)
    log = next(entry for entry in trainer.state.log_history if "completions/clipped_ratio" in entry)
    assert log["completions/clipped_ratio"] <= 1 - len(ended) / 12
    opened = tokenizer.convert_tokens_to_ids("<think>")
    assert {ids[-1] for ids in engine.prompts} == {opened}
