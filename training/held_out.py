"""The evaluation of a run on held-out problems, as its flags ask for it."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset

from evaluation.checkpoint import rows_digest, weights_digest
from evaluation.evaluate import HeldOut, Pass
from evaluation.generate import Decoding
from policy.setup_line import Setup
from rewards.grade import Grade
from training.run_folder import git_commit, package_versions
from training.run_options import RunConfig, RunOptions


def held_out_of(
    task: str,
    rows: Dataset,
    grade: Callable[[str, dict], Grade],
    folder: Path,
    options: RunOptions,
    config: RunConfig,
    batch: int,
    samples: dict[str, Any],
) -> HeldOut:
    """The evaluation of ``rows``, sampled and, where the flags say so, greedy; see `HeldOut` for what it takes.

    Args:
        folder: that of the run.
        batch: completions that are sampled at once.
        samples: `samples_of` the run.
    """
    passes = [Pass("sampled", Decoding(options.eval_samples, options.eval_temperature, config.L))]
    if options.eval_greedy and options.eval_temperature > 0:
        passes.append(Pass("greedy", Decoding(1, 0.0, config.L)))
    return HeldOut(task, rows, grade, folder / "eval", passes, config.seed, batch, samples)


def samples_of(
    rows: Dataset, model_name: str, policy: dict[str, Any], setup: Setup, config: RunConfig
) -> dict[str, Any]:
    """What the samples of a run's first policy on ``rows`` depend on, beside decoding, seed and batch.

    Args:
        model_name: where its weights are from.
        policy: the settings that it is loaded with, see `training.identity`.
        setup: what it is run with.
        config: whose processes and chat template they depend on.
    """
    return {
        "weights": weights_digest(model_name),
        "rows": rows_digest(rows),
        "policy": policy,
        "chat_template_kwargs": config.chat_template_kwargs,
        "setup": asdict(setup),
        "processes": config.world_size,
        "versions": package_versions(),
        "code": git_commit(),
    }
