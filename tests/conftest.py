"""Fixtures shared by all tests: toy rollouts, a stub encoder, a random policy and trainers built on it."""

import gc
import hashlib
import importlib
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from common.threads import choose_threads

choose_threads()  # before torch is imported

import pytest
import torch
from datasets import Dataset
from transformers import set_seed

from intrinsic.rollout import Rollout


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="Where tests/gpu runs: cuda at full size, cpu at toy size, auto: cuda where there is one.",
    )


def stub_encode(texts: list[str]) -> torch.Tensor:
    """Unit vectors in R^8 that depend on the text alone."""
    vectors = []
    for text in texts:
        seed = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")
        vectors.append(torch.randn(8, generator=torch.Generator().manual_seed(seed)))
    return torch.nn.functional.normalize(torch.stack(vectors), dim=1)


def make_rollout(
    completions, correct, questions=None, num_generations=None, step=10, max_steps=20, **fields
) -> Rollout:
    """A rollout of text completions with random token-level features of width 6."""
    size, length = len(completions), 6
    generator = torch.Generator().manual_seed(len("".join(completions)))
    lengths = torch.tensor([min(length, len(text)) for text in completions])
    mask = torch.arange(length)[None] < lengths[:, None]
    features = {
        "hidden": torch.randn(size, length, 6, generator=generator) * mask[..., None],
        "logps": -torch.rand(size, length, generator=generator) * mask,
        "self_certainty": torch.rand(size, length, generator=generator) * mask,
        "entropy": torch.rand(size, length, generator=generator) * mask,
        "frozen_hidden": torch.randn(size, length, 6, generator=generator) * mask[..., None],
        "frozen_self_certainty": torch.rand(size, length, generator=generator) * mask,
    }
    counts = lengths.clamp(min=1)[:, None]
    features["mean_hidden"] = features["hidden"].sum(dim=1) / counts
    features["frozen_mean_hidden"] = features["frozen_hidden"].sum(dim=1) / counts
    return Rollout(
        questions=list(questions or ["one question"] * size),
        completions=list(completions),
        correct=torch.tensor(correct, dtype=torch.float32),
        rewards=torch.tensor(correct, dtype=torch.float32),
        num_generations=num_generations or size,
        step=step,
        max_steps=max_steps,
        completion_mask=mask,
        completion_ids=torch.randint(5, 50, (size, length), generator=generator) * mask,
        prompt_ids=torch.randint(5, 50, (size, 3), generator=generator),
        prompt_mask=torch.ones(size, 3, dtype=torch.bool),
        vocab_size=50,
        features=features,
        encode=fields.pop("encode", stub_encode),
        **fields,
    )


@pytest.fixture(scope="module", autouse=True)
def forgotten_objects():
    """Lets the garbage collector pass over all that is there when a module of tests begins, imports above all.

    A run collects garbage several times, and walking a million objects of torch and transformers takes half its time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def run_here(monkeypatch):
    """Runs an entry script in this process: ``run_here("run_eval", "--task", "gsm8k")``.

    What it leaves locked for the rest of its process, its run folder, is let go. Its plots are left out.
    """
    import training.run
    import training.run_folder

    def run(script, *flags):
        folders = []

        def create(*args, **settings):
            folders.append(training.run_folder.create_run_folder(*args, **settings))
            return folders[-1]

        module = importlib.import_module(script)
        for place in (training.run, module):
            if hasattr(place, "create_run_folder"):
                monkeypatch.setattr(place, "create_run_folder", create)
        if hasattr(module, "write_report"):
            monkeypatch.setattr(module, "write_report", lambda folder: folder / "report.html")
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, flags)])
        try:
            module.main()
        finally:
            for folder in folders:
                folder.release()

    return run


@pytest.fixture
def rollout_factory():
    return make_rollout


@pytest.fixture(scope="session")
def tokenizer():
    from training.tiny_policy import build_tokenizer

    return build_tokenizer()


@pytest.fixture
def random_policy(tokenizer):
    from training.tiny_policy import build_model

    set_seed(0)
    return build_model(tokenizer)


@pytest.fixture
def trainer_factory(tokenizer, random_policy, tmp_path):
    """Builds an `IntrinsicGRPOTrainer` on the random policy: 2 prompts x 4 completions of up to 8 tokens a step."""
    from trl import GRPOConfig

    from intrinsic.pipeline import BonusPipeline
    from training.trainer import IntrinsicGRPOTrainer

    def length_reward(completions, **kwargs):
        return [float(len(completion[0]["content"]) % 3 == 0) for completion in completions]

    length_reward.__name__ = "correctness"

    def build(
        bonuses=(),
        schedules=(),
        clip=5.0,
        min_std=0.0,
        encode=stub_encode,
        policy=None,
        peft_config=None,
        capture=True,
        match_mass=False,
        **overrides,
    ):
        settings = {
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 8,
            "num_generations": 4,
            "max_completion_length": 8,
            "max_steps": 2,
            "learning_rate": 1e-3,
            "bf16": False,
            "gradient_checkpointing": False,
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "seed": 0,
        } | overrides
        rows = Dataset.from_list([{"prompt": [{"role": "user", "content": f"Numbers: {n}."}]} for n in range(16)])
        return IntrinsicGRPOTrainer(
            model=policy or random_policy,
            args=GRPOConfig(**settings),
            train_dataset=rows,
            eval_dataset=rows.select(range(4)),
            reward_funcs=[length_reward],
            processing_class=tokenizer,
            peft_config=peft_config,
            bonuses=BonusPipeline(bonuses, schedules, clip, min_std),
            match_mass=match_mass,
            encode=encode,
            capture_features=capture,
        )

    return build
