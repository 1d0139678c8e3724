"""A run's model card says what was trained how, and only the final policy leaves the machine."""

import logging
from types import SimpleNamespace

import pytest
import yaml

from intrinsic.pass_at_k import PassAtK
from training import publish
from training.publish import model_card, push_final

RECORD = {
    "seed": 3,
    "options": {
        "run": {"model_name": "Qwen/Qwen2.5-0.5B"},
        "intrinsic": {"use_ir": "passk"},
        "task": {"data": "rows.csv"},
    },
    "git": {"commit": "c0ffee", "dirty": False},
}


def report(share):
    return {"metrics": {"accuracy": {"mean": share, "low": share - 0.1, "high": share + 0.1, "n": 50}}}


def test_the_card_names_base_bonus_paper_data_and_both_evaluations():
    card = model_card("my_run", "gsm8k", RECORD, [PassAtK()], report(0.2), report(0.4))
    front, text = card.split("---\n", 2)[1:]
    assert yaml.safe_load(front) == {
        "base_model": "Qwen/Qwen2.5-0.5B",
        "library_name": "transformers",
        "tags": ["trl", "grpo", "intrinsic-motivation"],
    }
    for part in ("--use_ir=passk", "arXiv 2508.10751", "rows.csv", "Seed 3", "c0ffee", '"my_run"'):
        assert part in text
    assert "20.0 % [10.0, 30.0]  40.0 % [30.0, 50.0]  2.00x" in text


def test_the_card_of_a_run_without_bonus_or_evaluation_says_so():
    plain = RECORD | {"options": {"run": {"model_name": "tiny"}, "intrinsic": {"use_ir": "no"}}}
    card = model_card("my_run", "countdown", plain, [], None, None)
    assert "base_model" not in card and "without a bonus" in card and "Not evaluated" in card and "is from" not in card


@pytest.fixture
def hub(monkeypatch):
    calls = []

    class Hub:
        def __init__(self, token=None):
            calls.append(("token", token))

        def create_repo(self, name, private, exist_ok):
            if name == "refused":
                raise OSError("401")
            calls.append(("repo", name, private))
            return SimpleNamespace(repo_id=f"me/{name}")

        def upload_folder(self, repo_id, folder_path, commit_message):
            calls.append(("upload", repo_id, folder_path))

    monkeypatch.setattr(publish, "HfApi", Hub)
    return calls


def settings(**others):
    return SimpleNamespace(
        **{"hub_model_id": None, "run_name": "my_run", "hub_token": "t", "hub_private_repo": True} | others
    )


def test_only_the_final_policy_is_uploaded(hub, tmp_path):
    push_final(tmp_path / "final", settings())
    assert hub == [("token", "t"), ("repo", "my_run", True), ("upload", "me/my_run", tmp_path / "final")]


def test_a_hub_that_refuses_costs_a_warning_with_the_command(hub, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        push_final(tmp_path / "final", settings(hub_model_id="refused"))
    assert "hf upload refused" in caplog.text and "401" in caplog.text
