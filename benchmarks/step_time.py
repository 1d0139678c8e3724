r"""Time of a training step: our trainer without a bonus against TRL's GRPOTrainer, as it comes and at our precision.

python -m benchmarks.step_time [--steps 8] [--rounds 2] [--prompts 24] [--length 128]
python -m benchmarks.step_time --model_name smollm2 --prompts 2 --prompt_tokens 600 --length 60 --beta 0
python -m benchmarks.step_time --model_name smollm2 --prompts 8 --prompt_tokens 100 --length 100 --beta 0 \
    --micro_batch 16 --steps 3 --rounds 1 --ways "trl, our precision;ours"

Same policy, data, reward, batch and loss. "trl" is GRPOTrainer with GRPOConfig's defaults for everything a user would
leave alone (bfloat16 and gradient checkpointing, on a CPU too); "trl, our precision" has our two choices for the
device. Every run is a process of its own; the three take turns, so that a machine that slows down slows them all.
Ratios are of medians over all rounds, without the first two steps of each run. Of each step the time in generation and
the rest, which is training, are measured apart.
"""

import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass

from datasets import Dataset
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer

from benchmarks.bonus_overhead import StepTimes
from benchmarks.child import exit_on_sigterm, measured
from benchmarks.flag_checks import check_micro_batch
from benchmarks.machine import publish
from common.errors import UserError, run_cli
from common.flags import OutputStem, check_choices, check_least, flag, parse_one
from common.markdown import markdown_table
from policy.chat import render
from policy.load import load_policy, load_tokenizer
from tasks.countdown.problems import add_prompts, generate, question
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

    steps: int = flag(8, "Optimiser steps per run, 3 or more.")
    rounds: int = flag(2, "Runs of each trainer, 1 or more.")
    prompts: int = flag(24, "Prompts per step, with eight completions each; 1 or more.")
    length: int = flag(128, "Most tokens of a completion, 1 or more.")
    beta: float = flag(0.04, "Weight of the KL penalty, 0 or more.")
    prompt_tokens: int = flag(0, "Tokens that solved problems before each question fill a prompt to; 0: none.")
    micro_batch: int = flag(
        0, "Completions per forward and backward pass of each trainer, a divisor of those of a step; 0: all."
    )
    ways: str = flag(";".join(WAYS), "Trainers to measure, separated by semicolons.")
    model_name: str = flag("tiny", "Policy: tiny, smollm2 or a folder.")
    output: OutputStem = flag("outputs/step_time", "Path of the results, without extension.")
    way: str = flag("", "Used by the benchmark itself: trainer of one process.")

    def __post_init__(self):
        chosen = set(self.ways.split(";"))
        if "ours" not in chosen or chosen - set(WAYS):
            raise UserError(f"--ways={self.ways!r} must be some of {'; '.join(WAYS)}, with ours, to which all relate.")
        if self.steps <= WARM_STEPS:
            raise UserError(f"--steps={self.steps} must be {WARM_STEPS + 1} or more: the first {WARM_STEPS} warm up.")
        check_least(self, rounds=1, prompts=1, length=1, beta=0, prompt_tokens=0)
        check_micro_batch(self.micro_batch, 8 * self.prompts)
        check_choices(self, way=("", *WAYS))


def problems(options: Options) -> Dataset:
    """Countdown problems with prompts, other solved problems before each question where long ones are asked for."""
    rows = generate(500, "train", 0, SPACE)
    prompts = add_prompts(rows, "chat")
    if not options.prompt_tokens:
        return prompts
    tokenizer = load_tokenizer(options.model_name)
    solved = [f"{question(row['numbers'], row['target'])}\nAnswer: {row['solution']}\n\n" for row in rows]

    def lengthen(row: dict, index: int) -> dict:
        # Each problem has solved ones of its own, so that no prompt begins like another.
        shots, at = "", index
        system, asked = row["prompt"]
        while len(tokenizer(render(row["prompt"], tokenizer)).input_ids) < options.prompt_tokens:
            at += 1
            shots += solved[at % len(solved)]
            row["prompt"] = [system, asked | {"content": shots + question(row["numbers"], row["target"])}]
        return {"prompt": row["prompt"]}

    return prompts.map(lengthen, with_indices=True)


def measure(options: Options) -> dict:
    """Seconds of the steps after the first two, of generation in each, tokens per step, and peak megabytes."""
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
    of_a_step = 8 * options.prompts
    rows = options.micro_batch or of_a_step
    with tempfile.TemporaryDirectory() as folder:
        ours = RunConfig(
            output_dir=folder, bs=options.prompts, L=options.length, micro_batch=options.micro_batch, **shared
        )
        plain = {"output_dir": folder, "per_device_train_batch_size": rows}
        plain |= {"gradient_accumulation_steps": of_a_step // rows}
        plain |= {"max_completion_length": options.length, "use_cpu": ours.use_cpu}
        if options.way == "trl, our precision":
            plain |= {"bf16": ours.bf16, "gradient_checkpointing": bool(ours.activation_checkpointing)}
        trainer_class = IntrinsicGRPOTrainer if options.way == "ours" else GRPOTrainer
        trainer = trainer_class(
            load_policy(options.model_name),
            args=ours if options.way == "ours" else GRPOConfig(**plain, **shared),
            train_dataset=problems(options),
            reward_funcs=[correctness],
            processing_class=load_tokenizer(options.model_name),
            callbacks=[times],
        )
        trainer._generate_single_turn = times.timed(trainer._generate_single_turn)
        trainer.train()
    tokens = [log["num_tokens"] for log in trainer.state.log_history if "num_tokens" in log]
    return {
        "seconds": times.seconds[WARM_STEPS:],
        "generation": times.inside[WARM_STEPS:],
        "tokens": tokens[-1] / options.steps,
        "mb": peak_bytes() / 2**20,
    }


def main() -> None:
    exit_on_sigterm()
    options = parse_one(Options)
    if options.way:
        print(json.dumps(measure(options)))
        return
    runs: dict[str, list[dict]] = {}
    try:
        for _ in range(options.rounds):
            for way in options.ways.split(";"):
                run = measured("benchmarks.step_time", *sys.argv[1:], "--way", way)
                runs.setdefault(way, []).append(run)
    finally:  # what was measured before a run that fails, or an interruption, is kept; ratios need one of ours
        if "ours" in runs:
            publish(options.output, table(runs), {"options": asdict(options), "runs": runs})


def table(runs: dict[str, list[dict]]) -> str:
    """Markdown: medians per step of all seconds, of generation and of the rest, each with its ratio to ours."""
    heads = ["trainer", "seconds per step", "all steps", "over ours", "generation", "over ours", "training"]
    heads += ["over ours", "tokens per step", "peak MB"]
    rows = []
    ours = _medians(runs["ours"])
    for way, of_way in runs.items():
        steps = sorted(s for run in of_way for s in run["seconds"])
        total, generation, training = (
            (f"{median:.2f}", f"{median / own:.2f}") for median, own in zip(_medians(of_way), ours, strict=True)
        )
        spread = f"{steps[0]:.2f} to {steps[-1]:.2f}"
        tokens, memory = statistics.mean(run["tokens"] for run in of_way), max(run["mb"] for run in of_way)
        seconds = [total[0], spread, total[1], *generation, *training]
        rows.append([way, *seconds, f"{tokens:.0f}", f"{memory:.0f}"])
    return markdown_table(heads, rows)


def _medians(runs: list[dict]) -> list[float]:
    """Over the steps of all runs: of the whole step, of generation, and of the rest."""
    pairs = [pair for run in runs for pair in zip(run["seconds"], run["generation"], strict=True)]
    columns = [(whole, generation, whole - generation) for whole, generation in pairs]
    return [statistics.median(column) for column in zip(*columns, strict=True)]


if __name__ == "__main__":
    run_cli(main)
