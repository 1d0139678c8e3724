"""What must not move training: a bonus of weight 0, an evaluation, an adapter that has learnt nothing."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from common.errors import UserError
from evaluation.evaluate import HeldOut, HeldOutCallback, Pass
from evaluation.generate import Decoding
from policy.load import load_policy
from policy.options import PolicyOptions
from rewards.grade import Grade
from tests.compare import assert_close, assert_same_bits
from tests.equivalence.cases import CASES, MODES
from tests.equivalence.scripted import LENGTH, build, weights_of
from tests.toys import shallow

ADAPTER = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")


def trained(flags, folder, **settings):
    trainer = build(flags, folder, **settings)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The weights that plain GRPO ends with, not those it starts with."""
    weights = weights_of(trained({"use_ir": "no"}, tmp_path_factory.mktemp("plain")))
    assert not torch.equal(weights["model.embed_tokens.weight"], load_policy("tiny").get_input_embeddings().weight)
    return weights


@pytest.mark.parametrize("mode", MODES)
def test_weight_zero_trains_like_no_bonus(mode, plain, tmp_path):
    """The other ways bonuses work, and compositions; test_contract.py has every bonus as it comes."""
    assert_same_bits(weights_of(trained(CASES[mode] | {"ir_weight": "0"}, tmp_path)), plain)


def held_out(folder):
    """Four problems, sampled and greedy; an answer of even length is right."""

    def grade(text, row):
        right = len(text) % 2 == 0
        return Grade(False, right, right, text, "correct" if right else "wrong", False)

    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": f"Numbers: {n}."}]} for n in range(4)])
    passes = [Pass("sampled", Decoding(2, 1.0, LENGTH)), Pass("greedy", Decoding(1, 0.0, LENGTH))]
    return HeldOut("toy", rows, grade, folder, passes, seed=0)


@pytest.mark.parametrize("case", ["no", "knn+", "sc", "cfn", "rnd"])
def test_evaluation_leaves_the_training_trajectory_alone(case, tmp_path):
    """Before training and after every step, as the scripts evaluate; the bonuses read features off the generation."""
    flags = CASES.get(case, {"use_ir": case})
    unwatched = trained(flags, tmp_path / "unwatched", max_steps=3)
    watched = build(flags, tmp_path / "watched", max_steps=3)
    evaluation, reports = held_out(tmp_path), []
    evaluation.evaluate(watched.model, watched.processing_class, "before", 0, watched.accelerator)
    watched.add_callback(HeldOutCallback(evaluation, watched.processing_class, 1, watched.accelerator, reports.append))
    watched.train()
    assert [report["step"] for report in reports] == [1, 2]
    assert_same_bits(weights_of(watched), weights_of(unwatched))
    assert_same_bits(watched.bonuses.state_dict(), unwatched.bonuses.state_dict())


def test_a_fresh_adapter_samples_and_scores_like_the_full_policy(tmp_path):
    """peft makes no adapter of rank 0; one that has learnt nothing is what LoRA off has to equal on the first step."""
    runs = [trained(CASES["ppl"], tmp_path, peft_config=config, max_steps=1) for config in (None, ADAPTER)]
    full, adapted = (trainer._rollout for trainer in runs)
    assert full.completions == adapted.completions
    assert_close(full.features, adapted.features)


def test_a_trained_adapter_that_is_off_is_the_full_policy_bit_for_bit(tmp_path):
    trainer = trained(CASES["cfn"], tmp_path, peft_config=ADAPTER, learning_rate=0.01)
    policy = trainer.accelerator.unwrap_model(trainer.model).eval()
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        full = shallow(load_policy("tiny"))(ids).logits
        assert not torch.allclose(policy(ids).logits, full)
        with policy.disable_adapter():
            assert torch.equal(policy(ids).logits, full)


def test_rank_zero_is_refused_by_name():
    with pytest.raises(UserError, match="--lora_r=0"):
        PolicyOptions(lora=True, lora_r=0)
