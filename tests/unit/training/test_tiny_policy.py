"""The embedded policies: lossless tokenizer, single tokens for numbers, loads as shipped, and can be made again."""

import hashlib
import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from policy.load import EMBEDDED, EMBEDDED_FOLDERS, load_policy, load_tokenizer
from tasks.countdown.problems import prompt
from tasks.igsm.vocabulary import BRIEF, WORLDS
from training import tiny_policy
from training.tiny_policy import TAGS, WarmStart, warm_start


@pytest.mark.parametrize("text", ["Natalia sold 1,080 clips!", "naïve Ω 😀\n\ttabs", "(12*3)-4=36-4=32 high", "<b>007"])
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_numbers_and_tags_are_single_tokens(tokenizer):
    for piece in [*map(str, range(100)), *TAGS]:
        assert len(tokenizer.encode(piece)) == 1, piece


def test_shipped_tokenizer_is_the_one_the_code_builds(tokenizer):
    shipped = load_tokenizer("tiny")
    chat = prompt([3, 14, 15], 92)
    rendered = shipped.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|user|>Numbers: 3 14 15. Target: 92.<|assistant|>"
    assert shipped.encode(rendered) == tokenizer.encode(rendered)
    assert shipped.get_vocab() == tokenizer.get_vocab()


def test_shipped_weights_are_those_of_the_card():
    card = json.loads((EMBEDDED / "warm_start.json").read_text())
    weights = (EMBEDDED / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == card["sha256"]
    assert len(weights) < 8e6
    assert 1e6 < sum(parameter.numel() for parameter in load_policy("tiny").parameters()) < 2e6


def test_the_policy_of_igsm_is_the_one_of_its_card_and_has_a_token_for_every_name_of_its_world():
    folder = EMBEDDED_FOLDERS["tiny_igsm"]
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text(encoding="utf-8")
    policy, countdown = load_policy("tiny_igsm"), load_policy("tiny")
    assert 1e6 < sum(parameter.numel() for parameter in policy.parameters()) < 2e6
    assert policy.config._attn_implementation == countdown.config._attn_implementation
    tokenizer = load_tokenizer("tiny_igsm")
    names = {name for category in WORLDS[BRIEF] for kind in category.kinds for name in kind}
    assert len(names) > 20 and all(len(tokenizer.encode(f" {name}")) == 1 for name in names)


def test_warm_start_gives_the_same_bits_again_and_a_loadable_policy_or_leaves_the_earlier_one(tmp_path, monkeypatch):
    folders = [warm_start(WarmStart(output_dir=str(tmp_path / name), steps=3, batch_size=4)) for name in ("one", "two")]
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
    assert AutoTokenizer.from_pretrained(folders[0]).encode("12 7") == load_tokenizer("tiny").encode("12 7")
    assert AutoModelForCausalLM.from_pretrained(folders[0]).config.model_type == "llama"

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(tiny_policy, "write_card", full_disk)
    with pytest.raises(OSError, match="No space"):
        warm_start(WarmStart(output_dir=str(folders[0]), steps=1, batch_size=4, seed=1))
    assert (folders[0] / "model.safetensors").read_bytes() == weights[0]
