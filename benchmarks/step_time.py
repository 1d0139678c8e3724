"""Time of a training step: our trainer without a bonus against TRL's GRPOTrainer, as it comes and at our precision.

python -m benchmarks.step_time [--steps 8] [--rounds 2] [--prompts 24] [--length 128]

Same policy, data, reward, batch and loss. "trl" is GRPOTrainer with GRPOConfig's defaults for everything a user would
leave alone (bfloat16 and gradient checkpointing, on a CPU too); "trl, our precision" has our two choices for the
device. Every run is a process of its own; the three take turns, so that a machine that slows down slows them all.
Ratios are of medians over all rounds, without the first two steps of each run.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field

from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer

from benchmarks.bonus_overhead import StepTimes
from benchmarks.machine import publish
from common.errors import run_cli
from common.flags import parse_one
from policy.load import load_policy, load_tokenizer
from tasks.countdown.problems import add_prompts, generate
from training.fit.out_of_memory import peak_bytes
from training.fit.report import correctness
from training.run_options import RunConfig
from training.tiny_policy import SPACE
from training.trainer import IntrinsicGRPOTrainer

WAYS = ("trl", "trl, our precision", "ours")
WARM_STEPS = 2


@dataclass
class Options:
    """What is measured."""

    steps: int = field(default=8, metadata={"help": "Optimiser steps per run, 3 or more."})
    rounds: int = field(default=2, metadata={"help": "Runs of each trainer, 1 or more."})
    prompts: int = field(default=24, metadata={"help": "Prompts per step, with eight completions each."})
    length: int = field(default=128, metadata={"help": "Most tokens of a completion."})
    beta: float = field(default=0.04, metadata={"help": "Weight of the KL penalty."})
    model_name: str = field(default="tiny", metadata={"help": "Policy: tiny, smollm2 or a folder."})
    output: str = field(default="outputs/step_time", metadata={"help": "Path of the results, without extension."})
    way: str = field(default="", metadata={"help": "Used by the benchmark itself: trainer of one process."})


def measure(options: Options) -> dict:
    """Seconds of the steps after the first two, tokens per step, and peak megabytes."""
    set_seed(0)
    times = StepTimes()
    shared = {
        "num_generations": 8,
        "max_steps": options.steps,
        "learning_rate": 1e-6,
        "beta": options.beta,
        "loss_type": "grpo",
        "temperature": 1.0,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        ours = RunConfig(output_dir=folder, bs=options.prompts, L=options.length, **shared)
        plain = {"output_dir": folder, "per_device_train_batch_size": 8 * options.prompts}
        plain |= {"max_completion_length": options.length, "use_cpu": ours.use_cpu}
        if options.way == "trl, our precision":
            plain |= {"bf16": ours.bf16, "gradient_checkpointing": bool(ours.activation_checkpointing)}
        trainer_class = IntrinsicGRPOTrainer if options.way == "ours" else GRPOTrainer
        trainer = trainer_class(
            load_policy(options.model_name),
            args=ours if options.way == "ours" else GRPOConfig(**plain, **shared),
            train_dataset=add_prompts(generate(500, "train", 0, SPACE), "chat"),
            reward_funcs=[correctness],
            processing_class=load_tokenizer(options.model_name),
            callbacks=[times],
        )
        trainer.train()
    tokens = [log["num_tokens"] for log in trainer.state.log_history if "num_tokens" in log]
    return {"seconds": times.seconds[WARM_STEPS:], "tokens": tokens[-1] / options.steps, "mb": peak_bytes() / 2**20}


def run_child(way: str) -> dict:
    """`measure` in a process of its own, with the flags of this one."""
    command = [sys.executable, "-m", "benchmarks.step_time", *sys.argv[1:], "--way", way]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{way} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    options = parse_one(Options)
    if options.way:
        print(json.dumps(measure(options)))
        return
    runs = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            runs[way].append(run_child(way))
    publish(options.output, table(runs), {"options": asdict(options), "runs": runs})


def table(runs: dict[str, list[dict]]) -> str:
    """Markdown: median and range of the seconds per step, their ratio to ours, tokens per step and peak memory."""
    steps = {way: sorted(s for run in runs[way] for s in run["seconds"]) for way in WAYS}
    ours = statistics.median(steps["ours"])
    lines = ["| trainer | seconds per step | all steps | over ours | tokens per step | peak MB |", "|---" * 6 + "|"]
    for way, seconds in steps.items():
        median, tokens = statistics.median(seconds), statistics.mean(run["tokens"] for run in runs[way])
        memory = max(run["mb"] for run in runs[way])
        spread = f"{seconds[0]:.2f} to {seconds[-1]:.2f}"
        lines.append(f"| {way} | {median:.2f} | {spread} | {median / ours:.2f} | {tokens:.0f} | {memory:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_cli(main)
