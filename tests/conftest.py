"""Fixtures shared by all tests: toy rollouts, a stub encoder, a random policy and trainers built on it."""

import gc
import importlib
import os
import sys

gc.disable()  # until all tests are collected: it would walk whatever is imported already, again and again

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from common.threads import choose_threads

choose_threads()  # before torch is imported

import pytest
from datasets import Dataset
from transformers import set_seed

from tests.toys import TRAINER, make_rollout, shallow, stub_encode


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="Where tests/gpu runs: cuda at full size, cpu at toy size, auto: cuda where there is one.",
    )


def pytest_collection_finish():
    gc.enable()


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
    return shallow(build_model(tokenizer))


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
        size = {"output_dir": str(tmp_path / "run"), "per_device_train_batch_size": 8}
        settings = TRAINER | size | overrides
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
