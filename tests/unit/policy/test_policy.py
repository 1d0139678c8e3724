"""Loading policies: whole models, adapters on their base, and what is refused before any weights are read."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model

from common.errors import UserError
from policy import load
from policy.load import EMBEDDED, check_lora_targets, context_length, load_policy, load_tokenizer, lora_base, resolve
from policy.options import EMBEDDED_NAME, PolicyOptions
from tasks.load import load_rows


@pytest.fixture
def adapter(tmp_path):
    """An adapter on the embedded policy whose weights are not zero."""
    model = get_peft_model(load_policy("tiny"), PolicyOptions(lora=True, lora_r=4).lora_config())
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.05)
    model.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter"


def test_adapter_is_merged_into_its_base(adapter):
    model, folder = adapter
    ids = torch.arange(10, 30)[None]
    merged = load_policy(str(folder)).eval()
    assert not hasattr(merged, "peft_config") or "lora" not in str(type(merged)).lower()
    assert not any("lora" in name for name, _ in merged.named_parameters())
    with torch.no_grad():
        expected = model.eval()(ids).logits
        torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(load_policy("tiny").eval()(ids).logits, expected, atol=1e-2)


def test_all_weights_of_a_merged_adapter_can_be_trained(adapter):
    assert all(value.requires_grad for value in load_policy(str(adapter[1])).parameters())


def test_the_base_of_an_adapter_on_an_adapter_takes_no_folder_of_others(adapter, tmp_path):
    options = PolicyOptions(lora=True)
    base = tmp_path / "run" / "base"
    assert lora_base(str(adapter[1]), options, base, resumes=False) == str(base)
    lora_base(str(adapter[1]), options, base, resumes=False)  # made by a run: replaced
    (base / "made_by_run.json").unlink()
    with pytest.raises(UserError, match="is in the way, and no run made it"):
        lora_base(str(adapter[1]), options, base, resumes=False)
    assert (base / "config.json").is_file()


def test_adapter_without_tokenizer_has_that_of_its_base(adapter):
    assert load_tokenizer(str(adapter[1])).get_vocab() == load_tokenizer("tiny").get_vocab()
    assert context_length(str(adapter[1])) == context_length("tiny") == 1024


def test_adapter_whose_base_is_missing_is_refused(adapter):
    config = json.loads((adapter[1] / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "nowhere/base"
    (adapter[1] / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="base 'nowhere/base' is not there"):
        resolve(str(adapter[1]))


def test_adapter_that_names_no_base_is_refused(adapter):
    (adapter[1] / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="does not name its base"):
        resolve(str(adapter[1]))


def test_adapter_without_weights_is_refused(adapter):
    (adapter[1] / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="incomplete"):
        resolve(str(adapter[1]))


def test_model_folder_without_weights_is_refused(tmp_path):
    shutil.copytree(EMBEDDED, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="lacks model.safetensors"):
        resolve(str(tmp_path / "model"))


def test_model_folder_with_a_missing_shard_is_refused(tmp_path):
    load_policy("tiny").save_pretrained(tmp_path, max_shard_size="1MB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1 and resolve(str(tmp_path)) == str(tmp_path)
    shards[-1].unlink()
    with pytest.raises(UserError, match=shards[-1].name):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"load_in_4bit": True}, "--lora"),
        ({"load_in_4bit": True, "lora": True}, "CUDA"),
        ({"lora": True, "lora_r": 0}, "lora_r=0"),
        ({"lora": True, "lora_dropout": 1.0}, "lora_dropout=1.0"),
        ({"dtype": "int3"}, "int3"),
    ],
)
def test_impossible_policy_flags_are_refused(flags, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=words):
        PolicyOptions(**flags)


def test_full_training_keeps_float32_weights_and_lora_on_a_gpu_bfloat16(monkeypatch):
    assert PolicyOptions(lora=True).weight_dtype() is torch.float32
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert PolicyOptions().weight_dtype() is torch.float32
    assert PolicyOptions(lora=True).weight_dtype() is torch.bfloat16
    assert PolicyOptions(dtype="float16").weight_dtype() is torch.float16


def test_lora_flags_reach_the_adapter():
    config = PolicyOptions(lora=True, lora_r=4, lora_alpha=8, lora_target_modules="q_proj,v_proj").lora_config()
    assert isinstance(config, LoraConfig) and (config.r, config.lora_alpha) == (4, 8)
    assert config.target_modules == {"q_proj", "v_proj"}
    assert PolicyOptions().lora_config() is None


@pytest.mark.parametrize("modules", ["q_prj", "q_proj,v_prj", "mlp", ","])
def test_lora_targets_that_the_policy_lacks_are_refused_with_those_it_has(modules):
    options = PolicyOptions(lora=True, lora_target_modules=modules)
    with pytest.raises(UserError, match=r"--lora_target_modules.*all-linear.*k_proj.*q_proj"):
        check_lora_targets(EMBEDDED_NAME, options)


@pytest.mark.parametrize("modules", ["q_proj, v_proj", "all-linear", "layers.0.mlp.up_proj"])
def test_lora_targets_that_the_policy_has_pass(modules):
    check_lora_targets(EMBEDDED_NAME, PolicyOptions(lora=True, lora_target_modules=modules))


@pytest.mark.parametrize("name", ["outputs/nowhere", "./nowhere", "../nowhere", "/no/where", "~/nowhere", "a/b/final"])
def test_the_hub_is_not_asked_about_a_path(name, monkeypatch):
    monkeypatch.setattr(load, "_resolve_on_hub", lambda name: pytest.fail("the hub was asked"))
    monkeypatch.setattr("tasks.load._load_hub", lambda *source: pytest.fail("the hub was asked"))
    with pytest.raises(UserError, match=f"--model_name='{name}' is a path, and no folder is there"):
        resolve(name)
    with pytest.raises(UserError, match=f"'{name}' is not a file or folder"):
        load_rows(name)


def test_the_hub_is_asked_once_for_each_name(monkeypatch):
    asked = []
    monkeypatch.setattr(load, "find_adapter_config_file", lambda name: None)
    monkeypatch.setattr(load.AutoConfig, "from_pretrained", lambda name: asked.append(name))
    assert {load.resolve("owner/asked-once") for _ in range(3)} == {"owner/asked-once"}
    assert asked == ["owner/asked-once"]


def test_a_hub_that_did_not_answer_is_asked_again(monkeypatch):
    answers = [OSError("no connection"), None]

    def answer(name):
        if found := answers.pop(0):
            raise found

    monkeypatch.setattr(load, "find_adapter_config_file", lambda name: None)
    monkeypatch.setattr(load.AutoConfig, "from_pretrained", answer)
    with pytest.raises(UserError, match="owner/asked-again.*nor reachable"):
        load.resolve("owner/asked-again")
    assert load.resolve("owner/asked-again") == "owner/asked-again"
