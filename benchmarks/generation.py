"""Tokens per second of generation against what memory bandwidth allows, and where the time of a training step goes.

    python -m benchmarks.generation --shape qwen2.5-0.5b [--sampler hf,continuous_batching,vllm] [--lora]

The policy has the published sizes of the model and random weights, so nothing is downloaded. Every sampler trains for a
few steps in a process of its own, through `IntrinsicGRPOTrainer` as a run does. The bound is what reading takes: to
decode one token for all completions the weights are read once, and for each completion the keys and values of the
tokens before it, at the speed of a large copy on the same device in the same process. It leaves out the prompts' own
pass and counts every completion as decoded from the first step on. Where everything fits into the cache of a CPU, as
with the toy shape, it is no bound.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from transformers import PreTrainedModel, set_seed
from trl.import_utils import is_vllm_available

from benchmarks.child import exit_on_sigterm, measured
from benchmarks.flag_checks import check_bonuses, check_listed, check_micro_batch
from benchmarks.machine import publish
from benchmarks.shapes import SHAPES, random_policy
from benchmarks.step_split import SECTIONS, StepSplit
from common.devices import has_bfloat16
from common.errors import RunError, UserError, check_number, run_cli
from common.flags import OutputStem, check_choices, check_least, flag, parse_one
from intrinsic import build_bonuses
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.encoder import build_encoder
from intrinsic.pipeline import BonusPipeline
from policy.load import load_tokenizer
from policy.options import PolicyOptions
from tasks.countdown.problems import add_prompts, generate
from training.fit.out_of_memory import peak_bytes
from training.fit.report import correctness, now
from training.run_options import RunConfig
from training.tiny_policy import SPACE
from training.trainer import IntrinsicGRPOTrainer

SAMPLERS = ("hf", "continuous_batching", "vllm")
WARM_STEPS = 1


@dataclass
class Options:
    """What is measured."""

    shape: str = flag("qwen2.5-0.5b", f"Sizes of the policy: {', '.join(SHAPES)}.")
    sampler: str = flag(",".join(SAMPLERS), f"Samplers, separated by commas: {', '.join(SAMPLERS)}.")
    lora: bool = flag(False, "Train a LoRA adapter instead of all weights.")
    prompts: int = flag(8, "Prompts per step, 1 or more.")
    generations: int = flag(16, "Completions per prompt, 2 or more.")
    length: int = flag(256, "Most tokens of a completion, 1 or more.")
    micro_batch: int = flag(0, "Completions per forward pass, a divisor of those of a step; 0: all.")
    bonus: str = flag("no", "Bonus, as --use_ir.")
    steps: int = flag(4, f"Optimiser steps; the first {WARM_STEPS} not counted.")
    memory_share: float = flag(0.3, "Share of the device's memory for the cache of continuous_batching and vllm.")
    copy_megabytes: int = flag(1024, "Size of the copy that measures the bandwidth, 1 or more.")
    output: OutputStem = flag("outputs/generation", "Path of the results, extended by shape, full or lora.")
    child: str = flag("", "Used by the benchmark itself: sampler of one process.")

    def __post_init__(self):
        check_choices(self, shape=SHAPES)
        check_listed("sampler", self.sampler, SAMPLERS)
        check_number("memory_share", self.memory_share, above=0, below=1)
        if self.steps <= WARM_STEPS:
            raise UserError(f"--steps={self.steps} must be above {WARM_STEPS}, the steps that are not counted.")
        check_least(self, prompts=1, generations=2, length=1, copy_megabytes=1)
        check_micro_batch(self.micro_batch, self.prompts * self.generations)
        check_bonuses("bonus", self.bonus)


def sampler_flags(sampler: str, memory_share: float) -> dict:
    """Flags of TRL that choose the sampler and the memory for its cache."""
    if sampler == "vllm":
        return {"use_vllm": True, "vllm_gpu_memory_utilization": memory_share}
    if sampler == "continuous_batching":
        cache = {"max_memory_percent": memory_share}
        flags = {"use_transformers_continuous_batching": True, "transformers_continuous_batching_config": cache}
        return flags | {"bf16": False}
    return {}


def copy_bandwidth(device: torch.device, megabytes: int) -> float:
    """Bytes per second read and written by the fastest of a few large copies."""
    source = torch.ones(megabytes * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    moments = [now()]
    for _ in range(5):
        target.copy_(source)
        moments.append(now())
    return 2 * source.nbytes / min(end - start for start, end in pairwise(moments))


def weight_bytes(policy: PreTrainedModel) -> int:
    """Bytes of the weights that decoding one token reads: all but an input embedding that is not the head as well."""
    embedding, head = policy.get_input_embeddings().weight, policy.get_output_embeddings().weight
    skipped = 0 if embedding is head else embedding.nbytes
    return sum(weight.nbytes for weight in policy.parameters()) - skipped


def cache_bytes(policy: PreTrainedModel, itemsize: int) -> int:
    """Bytes of keys and values of one token."""
    config = policy.config
    head = config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * config.num_key_value_heads * head * itemsize


def bytes_to_decode(prompts: Sequence[int], completions: Sequence[int], weights: int, cache: int) -> int:
    """Least bytes read to decode a batch, from the tokens of each prompt and completion: the weights once per step of
    the longest completion, and at its t-th token the keys and values of all t - 1 + prompt tokens before it."""
    tokens_read = sum(new * prompt + new * (new - 1) // 2 for prompt, new in zip(prompts, completions, strict=True))
    return max(completions) * weights + tokens_read * cache


def measure(options: Options, sampler: str) -> dict[str, float]:
    """Tokens per second and their bound, median seconds of a step and its sections, bandwidth and peak megabytes."""
    set_seed(0)
    tokenizer, split = load_tokenizer("tiny"), StepSplit()
    policy_options = PolicyOptions(lora=options.lora)
    intrinsic = IntrinsicOptions(use_ir=options.bonus)
    with tempfile.TemporaryDirectory() as folder:
        # Under autocast TRL would turn the trained weights themselves into bfloat16, which RunConfig refuses.
        in_half = sampler == "continuous_batching" and has_bfloat16()
        dtype = torch.bfloat16 if in_half else policy_options.weight_dtype()
        policy = random_policy(options.shape, tokenizer, dtype)
        if sampler == "vllm":  # it loads the policy by name, and gets its weights from the trainer afterwards
            policy.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            policy.name_or_path = folder
        bonuses = BonusPipeline(build_bonuses(intrinsic), intrinsic.schedules())
        config = RunConfig(
            output_dir=folder,
            bs=options.prompts,
            num_generations=options.generations,
            L=options.length,
            micro_batch=options.micro_batch,
            max_steps=options.steps,
            learning_rate=1e-6,
            save_strategy="no",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
            seed=0,
            **sampler_flags(sampler, options.memory_share),
        )
        trainer = IntrinsicGRPOTrainer(
            policy,
            args=config,
            train_dataset=add_prompts(generate(500, "train", 0, SPACE), "chat"),
            reward_funcs=[correctness],
            processing_class=tokenizer,
            peft_config=policy_options.lora_config(),
            bonuses=bonuses,
            encode=build_encoder(intrinsic.encoder) if "text_embedding" in bonuses.needs else None,
            callbacks=[split],
        )
        split.watch(trainer)
        trainer.train()
    return summarize(split, trainer, options)


def summarize(split: StepSplit, trainer: IntrinsicGRPOTrainer, options: Options) -> dict[str, float]:
    """What `measure` returns, of the steps and batches after the first ones."""
    megabytes = peak_bytes() / 2**20
    policy = trainer.accelerator.unwrap_model(trainer.model)
    half = trainer.args.bf16 or trainer.args.fp16
    weights, cache = weight_bytes(policy), cache_bytes(policy, 2 if half else policy.dtype.itemsize)
    bandwidth = copy_bandwidth(trainer.accelerator.device, options.copy_megabytes)
    steps, batches = split.steps[WARM_STEPS:], split.batches[WARM_STEPS:]
    tokens = sum(sum(completions) for _, completions in batches)
    bound = sum(bytes_to_decode(*batch, weights, cache) for batch in batches) / bandwidth
    seconds = {name: statistics.median(step[name] for step in steps) for name in ("step", *SECTIONS)}
    return {
        "tokens_per_second": tokens / sum(step["generation"] for step in steps),
        "bound": tokens / bound,
        "gigabytes_per_second": bandwidth / 1e9,
        "weight_megabytes": weights / 1e6,
        "tokens_per_completion": tokens / sum(len(completions) for _, completions in batches),
        "seconds": seconds,
        "megabytes": megabytes,
    }


def run_child(sampler: str) -> dict:
    """`measure` in a process of its own, with the flags of this one; {"missing": why} where it cannot run."""
    if sampler == "vllm" and not is_vllm_available():
        return {"missing": "not installed (requirements-vllm.txt)"}
    try:
        return measured("benchmarks.generation", *sys.argv[1:], "--child", sampler)
    except RunError as error:
        print(error, file=sys.stderr)
        return {"missing": f"failed: {str(error).splitlines()[-1][:120]}"}


def table(result: dict) -> str:
    """Markdown: one row per sampler."""
    options = result["options"]
    lines = [
        f"{options['shape']}, random weights, {'LoRA' if options['lora'] else 'all weights trained'}, bonus "
        f"{options['bonus']}; {options['prompts']} x {options['generations']} completions of up to {options['length']} "
        "tokens per step.\n",
        "| sampler | tokens per second | bound | share | seconds per step | generation | rewards, bonus | forward "
        "| backward | optimiser | other | peak MB |",
        "|---" * 12 + "|",
    ]
    for sampler, run in result["samplers"].items():
        if "missing" in run:
            lines.append(f"| {sampler} | {run['missing']} |{' |' * 10}")
            continue
        seconds, speed, bound = run["seconds"], run["tokens_per_second"], run["bound"]
        parts = [seconds[name] for name in SECTIONS]
        cells = [f"{speed:.0f}", f"{bound:.0f}", f"{speed / bound:.1%}"]
        cells += [f"{part:.2f}" for part in (seconds["step"], *parts, max(0.0, seconds["step"] - sum(parts)))]
        lines.append(f"| {sampler} | {' | '.join(cells)} | {run['megabytes']:.0f} |")
    speeds = [f"{run['gigabytes_per_second']:.0f} GB/s" for run in result["samplers"].values() if "missing" not in run]
    copies = f" Large copies: {', '.join(speeds)}." if speeds else ""
    return "\n".join(lines) + f"\n\nMedians over steps.{copies}"


def main() -> None:
    exit_on_sigterm()
    options = parse_one(Options)
    if options.child:
        print(json.dumps(measure(options, options.child)))
        return
    samplers: dict[str, dict] = {}
    result = {"options": asdict(options), "samplers": samplers}
    try:
        for sampler in options.sampler.split(","):
            samplers[sampler] = run_child(sampler)
    finally:  # what was measured before an interruption is kept
        if samplers:
            publish(f"{options.output}_{options.shape}_{'lora' if options.lora else 'full'}", table(result), result)


if __name__ == "__main__":
    run_cli(main)
