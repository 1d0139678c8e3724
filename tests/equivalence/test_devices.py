"""The trainer in all its ways, and the text encoders, on a device that claims to be a GPU: no call mixes devices."""

import accelerate
import pytest
import torch
import transformers
from datasets import Dataset
from peft import LoraConfig

import policy.buckets
from analysis.influence.measure import InfluenceOptions, analyse
from analysis.token_map.page import TokenMapOptions, write_token_map
from evaluation.generate import Decoding, sample_completions
from evaluation.rank import evaluate_ranking
from intrinsic.parts.encoder import POLICY, SentenceEncoder, build_encoder
from tests.device_tags import CUDA, DeviceTags, claimed
from tests.equivalence.cases import FAST
from tests.equivalence.scripted import GROUP, PROMPTS, build, weights_of
from tests.unit.analysis.test_token_map import COUNTDOWN, QUESTION, RIGHT, write_run
from tests.vllm_stub import own_environment, standing_in

ADAPTER = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
MICRO_BATCHES = {"per_device_train_batch_size": PROMPTS * GROUP // 2, "gradient_accumulation_steps": 2}
# Name -> flags of the bonuses, settings of `build`.
RUNS = {
    "no bonus": ({"use_ir": "no"}, {}),
    "captured in generation": ({"use_ir": "sc,ppl,entropy-adv,repexp,outcome"}, {"num_iterations": 2}),
    "feature pass, in the reward": ({"use_ir": "sc,ppl,repexp,knn+", "ir_level": "reward"}, {"capture": False}),
    "copy of the policy, pretrained": ({"use_ir": "cfn,rnd", "cfn_pretrain": 1}, {}),
    "copy of the policy, offline": ({"use_ir": "sc", "sc_annotator": "offline"}, {}),
    "reference model": ({"use_ir": "cfn,rnd,sc", "sc_annotator": "offline"}, {"beta": 0.04}),
    "adapter": ({"use_ir": "cfn,sc,knn-sent"}, {"peft_config": ADAPTER}),
    "adapter, KL penalty": ({"use_ir": "cfn,sc"}, {"peft_config": ADAPTER, "beta": 0.04}),
    "token level, micro-batches": (
        {"use_ir": "knn+,cfn", "cfn_level": "token"},
        {**MICRO_BATCHES, "loss_type": "dapo", "mask_truncated_completions": True},
    ),
    "replaced advantage": ({"use_ir": "passk,entropy-adv"}, {}),
    "likelihoods": ({"use_ir": "smooth,unlikely,certain,rarity,majority"}, {"top_entropy_quantile": 0.5}),
    "multiplied advantage, mass matched": ({"use_ir": "focal,sc", "match_mass": True}, {"use_adaptive_entropy": True}),
    "vLLM, adapter": ({"use_ir": "sc,cfn"}, {"use_vllm": True, "vllm_mode": "colocate", "peft_config": ADAPTER}),
}


@pytest.fixture
def tags(monkeypatch):
    """`DeviceTags`, not yet open, with trainers that take cuda:0 for their device and cut batches as on a GPU."""
    monkeypatch.setattr(transformers.TrainingArguments, "device", property(lambda self: self._setup_devices and CUDA))
    monkeypatch.setattr(accelerate.Accelerator, "device", property(lambda self: CUDA))
    monkeypatch.setattr(policy.buckets, "MIN_TOKENS_ACCELERATOR", 100)
    # What TRL asks a GPU for, and the random state that evaluations keep of it.
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *device: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    return DeviceTags()


def built(flags, folder, **settings):
    settings = {"dataloader_pin_memory": False} | settings
    trainer = build(FAST | flags, folder, **settings)
    trainer.encode = build_encoder(POLICY, trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class)
    return trainer


@pytest.mark.parametrize("run", RUNS)
def test_the_trainer_mixes_no_devices(run, tags, tmp_path):
    flags, settings = RUNS[run]
    with standing_in(), own_environment(), tags:
        trainer = built(flags, tmp_path, **settings)
        trainer.pretrain_bonuses()
        trainer.train()
        places = {claimed(value) for value in weights_of(trainer).values()}
    assert tags.mixes == []
    assert places == {CUDA}


def test_a_resumed_run_and_evaluations_mix_no_devices(tags, tmp_path):
    flags = {"use_ir": "cfn,rnd,knn+", "rnd_mode": "reference"}
    prompts = [[{"role": "user", "content": "Numbers: 1."}], [{"role": "user", "content": "Numbers: 22, 3."}]]
    with tags:
        built(flags, tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
        resumed = built(flags, tmp_path, max_steps=2)
        for decoding in (Decoding(2, 1.0, 6), Decoding(1, 0.0, 6)):
            sample_completions(resumed.model, resumed.processing_class, prompts, decoding)
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert resumed.state.global_step == 2
    assert tags.mixes == []


def test_finished_runs_are_read_without_mixing_devices(tags, tmp_path, monkeypatch):
    """A checkpoint ranked on multiple choice, painted token by token, and its queries' influence on each other."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: CUDA)
    monkeypatch.setattr("policy.setup_line.device_name", lambda device: "a GPU")
    run = write_run(tmp_path / "run", COUNTDOWN, [(QUESTION, RIGHT, True), (QUESTION, "no", False)])
    choices = Dataset.from_list([{"question": "1 + 1?", "choices": ["2", "3 + 4"], "gold": "2", "subject": ""}])
    with tags:
        evaluate_ranking("tiny", "arc_easy", choices, tmp_path / "rank.json", {}, 0, "float32")
        write_token_map(TokenMapOptions(run=str(run), model_name="tiny", out=str(tmp_path / "map.html")))
        analyse(InfluenceOptions(output=str(tmp_path), queries=2, samples=2, max_new_tokens=8))
    assert tags.mixes == []


def test_a_sentence_encoder_answers_where_its_model_is(tags):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    words = modules.BoW(vocab=["one", "two", "three"])
    model = sentence_transformers.SentenceTransformer(modules=[words, modules.Dense(3, 4)], device="cpu")
    with tags:
        encode = SentenceEncoder(model.to("cuda"))
        vectors = encode(["one two", "three", ""])
    assert tags.mixes == []
    assert claimed(vectors) == CUDA and vectors.shape == (3, 4)
