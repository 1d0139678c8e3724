"""LoRA on a LoRA adapter, by either trainer and again on top: what a run exports is the policy that it trained."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from cli.parse import parse_options
from common.errors import UserError
from policy.load import load_policy, load_tokenizer, resolve
from run_sft import save_policy
from tasks.countdown.options import CountdownOptions, load_problems
from training.run import Run
from training.sft import SFTOptions, SFTRunConfig, build_trainer

PAIR = {
    "prompt": [{"role": "user", "content": "Numbers: 1 2 3. Target: 6."}],
    "completion": [{"role": "assistant", "content": "<think>\n1+2+3=6 hit\n</think>\n<answer>1+2+3</answer>"}],
}
IDS = torch.arange(10, 30)[None]
RATE = 3e-2  # of few steps whose adapter is to be seen


def logits(policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.eval()(IDS).logits.float()


def by_sft(start: str, folder: Path) -> torch.Tensor:
    """Logits of the policy that a supervised run on ``start`` has trained, which it leaves in ``folder``."""
    options = SFTOptions(data="x", model_name=start, lora=True, lora_r=2)
    config = SFTRunConfig(
        output_dir=str(folder), learning_rate=RATE, max_steps=4, per_device_train_batch_size=2, save_strategy="no"
    )
    folder.mkdir()
    trainer = build_trainer(options, config, Dataset.from_list([PAIR] * 8), load_tokenizer(start), {})
    trainer.train()
    save_policy(trainer, folder, options)
    return logits(trainer.model)


def by_grpo(start: str, folder: Path, monkeypatch) -> torch.Tensor:
    """The same of a GRPO run."""
    flags = f"--bs 2 --num_generations 4 --L 12 --train_problems 64 --max_steps 2 --learning_rate {RATE} --lora "
    flags += "--lora_r 2 --beta 0 --do_eval 0 --save_strategy no --warmup_steps 0 --config configs/countdown_tiny.yaml"
    monkeypatch.setattr(sys, "argv", ["run_countdown.py", "--model_name", start, *flags.split()])
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--output_dir", str(folder)])
    task, intrinsic, options, config = parse_options("countdown", CountdownOptions)
    rows, _ = load_problems(task, options.eval_problems, config.seed)
    run = Run("countdown", task, intrinsic, options, config, rows)

    def reward(completions, **kwargs):
        return [float(len(str(completion)) % 2) for completion in completions]

    reward.__name__ = "correctness"
    trainer = run.build_trainer(rows, [reward], [1.0], load_tokenizer(start))
    run.train(trainer, None, lambda folder: folder)
    return logits(trainer.model)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Folder and trained policy's logits of three runs, each with LoRA on the adapter of the one before."""
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        first = by_sft("tiny", folder / "a")
        second = by_grpo(str(folder / "a" / "adapter"), folder / "b", patch)
        third = by_sft(str(folder / "b" / "adapter"), folder / "c")
    return folder, {"a": first, "b": second, "c": third}


def test_final_and_adapter_are_the_trained_policy(chain):
    folder, trained = chain
    before = logits(load_policy("tiny"))
    for name, expected in trained.items():
        assert (expected - before).abs().max() > 0.1  # the run has learnt something
        for exported in ("final", "adapter"):
            found = logits(load_policy(str(folder / name / exported)))
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)
        before = expected


def test_the_adapter_names_the_base_that_holds_the_one_before(chain):
    folder, trained = chain
    for name, before in (("b", "a"), ("c", "b")):
        named = json.loads((folder / name / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert named == str((folder / name / "base").resolve())
        torch.testing.assert_close(logits(load_policy(named)), trained[before], rtol=1e-3, atol=2e-3)


def test_an_adapter_whose_base_is_gone_is_refused_before_weights_are_read(chain, tmp_path):
    shutil.copytree(chain[0] / "b", tmp_path / "b")
    config = tmp_path / "b" / "adapter" / "adapter_config.json"
    gone = str(tmp_path / "gone")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": gone}))
    with pytest.raises(UserError, match="an adapter whose base .*gone' is not there"):
        resolve(str(tmp_path / "b" / "adapter"))
