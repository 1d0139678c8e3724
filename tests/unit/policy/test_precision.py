"""One place decides the compute type, and every pass over the policy runs in it."""

import sys
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from analysis.influence.measure import InfluenceOptions
from common.errors import UserError
from evaluation.checkpoint import evaluate_checkpoint
from evaluation.evaluate import HeldOut, HeldOutCallback, Pass
from evaluation.generate import Decoding
from evaluation.options import EvalOptions
from intrinsic.base import Bonus, WeightSchedule
from intrinsic.parts.encoder import build_encoder
from policy.load import base_of, load_policy, save_merged
from policy.options import PolicyOptions
from policy.precision import Precision, adapters_in_float32, check_dtype, compute_type, half_type
from rewards.grade import Grade
from training.run_options import RunConfig, RunOptions
from training.sft import SFTOptions, SFTRunConfig
from training.sft import build_trainer as build_sft_trainer

ROWS = Dataset.from_list([{"prompt": [{"role": "user", "content": f"Numbers: {n} {n + 1}."}]} for n in range(4)])
SAMPLED, GREEDY = Pass("sampled", Decoding(2, 1.0, 12)), Pass("greedy", Decoding(1, 0.0, 3))
LORA = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)


def held_out(folder, way):
    def grade(text, row):
        return Grade(True, True, True, text, "correct", False)

    return HeldOut("toy", ROWS, grade, folder, [way], seed=0)


class EveryFeature(Bonus):
    """Asks for all that is read off passes over the policy, and for one batch before training."""

    name, placement, pretrain_batches = "every", "advantage", 1
    needs = frozenset({"text_embedding", "hidden", "logps", "frozen_hidden", "frozen_self_certainty"})

    def score(self, rollout):
        rollout.encode(rollout.completions)
        return torch.zeros(len(rollout))

    def update(self, rollout):
        self.pretrain_batches = 0
        return {}


class Spy:
    """Sees, per phase, under which autocast and in which type the first layer of a policy computes."""

    def __init__(self):
        self.phase, self.seen = "", {}

    def watch(self, model, phase=None):
        layer = base_of(model).base_model.layers[0].mlp.up_proj

        def see(module, args, output):
            states = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), output.dtype
            self.seen.setdefault(phase or self.phase, set()).add(states)

        layer.register_forward_hook(see)

    def during(self, phase, call):
        """``call``, in a phase of its own."""

        def called(*args, **kwargs):
            before, self.phase = self.phase, phase
            try:
                return call(*args, **kwargs)
            finally:
                self.phase = before

        return called


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
def test_every_pass_of_a_run_is_under_the_same_autocast(adapter, trainer_factory, random_policy, tokenizer):
    encode = build_encoder("policy", random_policy, tokenizer, autocast=Precision(torch.bfloat16, "cpu").autocast)
    spy = Spy()
    trainer = trainer_factory(
        [EveryFeature()],
        [WeightSchedule(1.0)],
        encode=spy.during("encoder", encode),
        peft_config=adapter,
        capture=False,
        bf16=True,
    )
    spy.watch(trainer.model)
    if adapter is None:
        spy.watch(trainer._frozen._copy, "frozen copy")
    trainer._generate_single_turn = spy.during("generation", trainer._generate_single_turn)
    trainer._features = spy.during("features", trainer._features)
    trainer._compute_loss = spy.during("training", trainer._compute_loss)
    evaluation = held_out(trainer.args.output_dir, GREEDY)
    settings = trainer.processing_class, "x", 0, trainer.accelerator
    spy.during("evaluation before", evaluation.evaluate)(trainer.model, *settings)
    spy.during("pretraining", trainer.pretrain_bonuses)()
    callback = HeldOutCallback(evaluation, trainer.processing_class, 1, trainer.accelerator, lambda report: None)
    callback.on_step_end = spy.during("evaluation during", callback.on_step_end)
    trainer.add_callback(callback)
    trainer.train()
    spy.during("evaluation after", evaluation.evaluate)(trainer.model, *settings)
    phases = {"encoder", "generation", "training", *(f"evaluation {when}" for when in ("before", "during", "after"))}
    phases |= {"frozen copy", "features"} if adapter is None else {"features"}
    assert phases <= spy.seen.keys()
    assert set.union(*spy.seen.values()) == {(True, torch.bfloat16, torch.bfloat16)}, spy.seen


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
def test_a_run_that_learns_nothing_changes_no_completion(adapter, trainer_factory, random_policy):
    for weight in random_policy.parameters():
        weight.data *= 4.0  # surer of its tokens, so that rounding moves more of them
    trainer = trainer_factory(peft_config=adapter, bf16=True, learning_rate=0.0, max_steps=1)
    evaluation = held_out(trainer.args.output_dir, SAMPLED)
    settings = trainer.model, trainer.processing_class, "x", 0
    in_float32 = evaluation.evaluate(*settings)
    before = evaluation.evaluate(*settings, trainer.accelerator)
    trainer.train()
    after = evaluation.evaluate(*settings, trainer.accelerator)
    assert after["records"] == before["records"]
    assert before["records"] != in_float32["records"]  # so bfloat16 shows in these completions


def test_evaluating_a_checkpoint_computes_in_the_type_asked_for(tmp_path, monkeypatch):
    spy = Spy()

    def watched(*args):
        policy = load_policy(*args)
        spy.watch(policy, policy.dtype)
        return policy

    monkeypatch.setattr("evaluation.checkpoint.load_policy", watched)
    for dtype in ("auto", "bfloat16"):
        grade = held_out(tmp_path, GREEDY).grade
        evaluate_checkpoint("tiny", "toy", ROWS, grade, GREEDY.decoding, tmp_path / dtype, {}, 4, 0, dtype)
    assert {(on, kind) for on, _, kind in spy.seen[torch.float32]} == {(False, torch.float32)}
    assert spy.seen[torch.bfloat16] == {(True, torch.bfloat16, torch.bfloat16)}


def test_the_policy_as_encoder_gives_unit_vectors_in_float32_close_to_those_of_float32(random_policy, tokenizer):
    half = build_encoder("policy", random_policy, tokenizer, autocast=Precision(torch.bfloat16, "cpu").autocast)
    texts = ["1 + 2 = 3", "", "Numbers: 4 5 6."]
    found, expected = half(texts), build_encoder("policy", random_policy, tokenizer)(texts)
    assert found.dtype is torch.float32 and not torch.equal(found, expected)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert (found * expected).sum(dim=1).min() > 0.999


def gpu(monkeypatch, has_bfloat16):
    """A machine whose GPU has bfloat16, or not, as a T4; torch's emulation does not count."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *args: "Tesla T4")


def test_a_gpu_without_bfloat16_computes_in_float16_and_says_so(monkeypatch):
    gpu(monkeypatch, has_bfloat16=False)
    assert compute_type(None, False, "cuda") is torch.float16
    assert compute_type(False, False, "cuda") is torch.float32
    assert str(Precision(torch.float16, "cuda")).endswith("scaled gradients, as this GPU has no bfloat16")
    assert half_type() is torch.float16
    assert PolicyOptions(lora=True).weight_dtype() is torch.float16
    assert PolicyOptions().weight_dtype() is torch.float32
    monkeypatch.setattr("policy.options.is_bitsandbytes_available", lambda: True)
    assert PolicyOptions(lora=True, load_in_4bit=True).quantization().bnb_4bit_compute_dtype is torch.float16


def test_a_gpu_with_bfloat16_computes_in_it_unless_told_otherwise(monkeypatch):
    gpu(monkeypatch, has_bfloat16=True)
    assert compute_type(None, False, "cuda") is torch.bfloat16
    assert compute_type(False, False, "cuda") is torch.float32
    assert compute_type(None, True, "cuda") is torch.float16
    assert PolicyOptions(lora=True).weight_dtype() is torch.bfloat16
    assert str(Precision(torch.float16, "cuda")) == "float16 autocast with scaled gradients"
    monkeypatch.setattr("policy.precision.cpu_has_bfloat16", lambda: False)
    assert compute_type(None, False, "cpu") is torch.float32  # --use_cpu


def test_a_cpu_computes_in_bfloat16_with_amx_alone(monkeypatch):
    for found, type_ in (({"avx512_bf16": True}, torch.float32), ({"amx_bf16": True}, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert compute_type(None, False, "cpu") is type_


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: RunConfig(bf16=True, use_cpu=False), "--bf16 true: Tesla T4 has no bfloat16"),
        (lambda: SFTRunConfig(bf16=True, use_cpu=False), "--bf16 true: Tesla T4 has no bfloat16"),
    ],
)
def test_bfloat16_that_the_gpu_lacks_is_refused(build, said, monkeypatch):
    gpu(monkeypatch, has_bfloat16=False)
    with pytest.raises(UserError, match=said):
        build()


@pytest.mark.parametrize(
    "build",
    [
        RunOptions,
        EvalOptions,
        lambda dtype: SFTOptions(data="x", dtype=dtype),
        lambda dtype: InfluenceOptions(output="x", dtype=dtype),
    ],
)
def test_every_dtype_flag_is_held_against_the_same_words(build, monkeypatch):
    with pytest.raises(UserError, match="^--dtype='fp8' is unknown; use one of auto, float32, bfloat16, float16.$"):
        build(dtype="fp8")
    gpu(monkeypatch, has_bfloat16=False)
    with pytest.raises(UserError, match="--dtype bfloat16: Tesla T4 has no bfloat16"):
        build(dtype="bfloat16")


def test_a_script_asked_for_bfloat16_that_is_not_there_ends_with_exit_code_2(monkeypatch, capsys):
    from common.errors import run_cli
    from run_countdown import main

    gpu(monkeypatch, has_bfloat16=False)
    monkeypatch.setattr("policy.load.AutoModelForCausalLM.from_pretrained", lambda *args, **kwargs: pytest.fail())
    monkeypatch.setattr(sys, "argv", ["run_countdown.py", "--bf16", "true"])
    with pytest.raises(SystemExit) as end:
        run_cli(main)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith("error: --bf16 true: Tesla T4 has no") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: RunConfig(fp16=True, use_cpu=True), "--fp16 true: a CPU"),
        (lambda: RunConfig(fp16=True, bf16=True, use_cpu=True), "exclude each other"),
        (lambda: RunOptions(dtype="float16"), "--dtype float16 .* add --lora"),
        (lambda: SFTOptions(data="x", dtype="float16"), "--dtype float16 .* add --lora"),
    ],
)
def test_types_in_which_a_run_would_not_train_are_refused(build, said):
    with pytest.raises(UserError, match=said):
        build()


def test_frozen_weights_may_be_float16():
    check_dtype("float16", trained=False)
    assert RunOptions(dtype="float16", lora=True).weight_dtype() is torch.float16


def test_the_choice_reaches_the_trainers_arguments(monkeypatch):
    for chosen in (torch.float16, torch.bfloat16, torch.float32):
        monkeypatch.setattr("policy.precision.compute_type", lambda *asked, chosen=chosen: chosen)
        for config in (RunConfig(use_cpu=True), SFTRunConfig(use_cpu=True)):
            assert (config.bf16, config.fp16) == (chosen is torch.bfloat16, chosen is torch.float16)
            assert Precision.of(config).compute is chosen


@pytest.mark.parametrize("bf16", [False, True])
def test_precision_is_the_accelerators_own(bf16, trainer_factory):
    trainer = trainer_factory(bf16=bf16)
    states = []
    for around in (Precision.of(trainer.args).autocast, trainer.accelerator.autocast):
        with around():
            on = torch.is_autocast_enabled("cpu")
            states.append(torch.get_autocast_dtype("cpu") if on else None)
    assert states == [torch.bfloat16 if bf16 else None] * 2


def test_an_engine_that_casts_its_weights_gets_no_autocast():
    config = SimpleNamespace(bf16=True, fp16=False, device=torch.device("cpu"), deepspeed_plugin=object())
    precision = Precision.of(config)
    assert precision.cast is torch.float32 and str(precision) == "bfloat16 autocast"
    with precision.autocast():
        assert not torch.is_autocast_enabled("cpu")


def trained_types(model):
    return {weight.dtype for weight in model.parameters() if weight.requires_grad}


@pytest.mark.parametrize("trainer", ["grpo", "sft"])
def test_adapters_on_four_bits_are_trained_in_float32(trainer, trainer_factory, random_policy, tokenizer, tmp_path):
    random_policy.is_loaded_in_4bit = True  # what bitsandbytes sets, at which TRL casts the adapter to bfloat16
    if trainer == "grpo":
        found = trainer_factory(peft_config=LORA, learning_rate=1e-5)
        before = {n: w.detach().clone() for n, w in found.model.named_parameters() if w.requires_grad}
        assert trained_types(found.model) == {torch.float32}
        for weight in found.model.parameters():
            if weight.requires_grad:
                weight.grad = torch.ones_like(weight)
        found.create_optimizer()
        found.optimizer.step()
        moved = [(w != before[n]).float().mean() for n, w in found.model.named_parameters() if n in before]
        assert min(moved) > 0.99  # in bfloat16 half of them and more stay where they are
        return
    options = SFTOptions(data="x", lora=True, lora_r=2)
    config = SFTRunConfig(output_dir=str(tmp_path), bf16=False, save_strategy="no")
    pair = {"prompt": "1 + 1 =", "completion": " 2"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.sft.build_policy", lambda *args: random_policy)
        found = build_sft_trainer(options, config, Dataset.from_list([pair] * 2), tokenizer, {})
    assert trained_types(found.model) == {torch.float32}


def test_weights_that_are_not_quantised_keep_their_type(random_policy):
    adapters_in_float32(random_policy.bfloat16())
    assert trained_types(random_policy) == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_exported_adapter_is_merged_in_the_type_of_the_weights(dtype, tmp_path, monkeypatch):
    from peft import get_peft_model

    policy = get_peft_model(load_policy("tiny"), LORA)
    policy.peft_config["default"].base_model_name_or_path = str(load_policy("tiny").name_or_path)
    policy.save_pretrained(tmp_path / "adapter")
    loaded = []
    monkeypatch.setattr(
        "policy.load.load_policy", lambda name, options: loaded.append(options.dtype) or load_policy(name, options)
    )
    monkeypatch.setattr(PolicyOptions, "weight_dtype", lambda self: dtype if self.lora else _weights_of(self))
    save_merged(str(tmp_path / "adapter"), tmp_path / "final", PolicyOptions(lora=True))
    kept = load_policy(str(tmp_path / "final"), PolicyOptions(dtype="auto"))
    merged = policy.merge_and_unload()
    layer = "model.layers.0.mlp.up_proj.weight"
    base = load_policy("tiny").state_dict()[layer]
    delta = merged.state_dict()[layer] - base
    assert torch.equal(kept.state_dict()[layer], (base.to(dtype).float() + delta).to(dtype).float())


def _weights_of(options):
    return {"bfloat16": torch.bfloat16}.get(options.dtype, torch.float32)
