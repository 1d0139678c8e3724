"""What each bonus costs: step time and peak memory over plain GRPO.

python -m benchmarks.bonus_overhead [--policies tiny,wide] [--bonuses knn,knn+,sc,cfn,rnd] [--steps 6]

Every bonus runs in a process of its own, so that peak memory is its own, and plain GRPO runs before and after them all.
Times are medians over the steps after the first two. "bonus" is the time inside the bonus code and the forward passes
it asks for, over the rest of the same steps: on a busy machine it says more than the ratio of two runs, but it misses
what reading features off the generation takes. "wide" is a random Llama with width and vocabulary of Qwen2.5-0.5B and
two layers.
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field

from transformers import HfArgumentParser, LlamaConfig, LlamaForCausalLM, TrainerCallback, set_seed

from benchmarks.machine import publish
from intrinsic import build_bonuses
from intrinsic.encoder import build_encoder
from tasks.countdown import add_prompts, generate
from training.bonus_pipeline import BonusPipeline
from training.fit import correctness, now
from training.options import IntrinsicOptions
from training.out_of_memory import peak_bytes
from training.policy import load_policy, load_tokenizer
from training.run_options import RunConfig
from training.tiny_policy import SPACE
from training.trainer import IntrinsicGRPOTrainer

# policy -> prompts and completion tokens of a step; eight completions per prompt.
BATCHES = {"tiny": (24, 64), "wide": (2, 16)}
WARM_STEPS = 2


@dataclass
class Options:
    """What is measured."""

    policies: str = field(default="tiny,wide", metadata={"help": "Policies, separated by commas: tiny, wide."})
    bonuses: str = field(default="knn,knn+,sc,cfn,rnd", metadata={"help": "Bonuses, separated by commas."})
    steps: int = field(default=6, metadata={"help": "Optimiser steps per run, 3 or more."})
    output: str = field(default="outputs/bonus_overhead", metadata={"help": "Path of the results, without extension."})
    child: str = field(default="", metadata={"help": "Used by the benchmark itself: policy and bonus of one process."})


class StepTimes(TrainerCallback):
    """Seconds of every optimiser step, generation and bonus included."""

    def __init__(self):
        self.seconds: list[float] = []
        self.inside: list[float] = []
        self._inside = 0.0
        self._start: float | None = None

    def timed(self, function):
        """``function``, with its time counted as the bonus's own."""

        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            start = now()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside += now() - start

        return wrapper

    def watch(self, trainer: IntrinsicGRPOTrainer) -> None:
        """Count the bonus pipeline of ``trainer`` and its feature passes."""
        trainer._features = self.timed(trainer._features)
        for name in ("score", "join", "update"):
            setattr(trainer.bonuses, name, self.timed(getattr(trainer.bonuses, name)))

    def on_step_begin(self, args, state, control, **kwargs):
        self._start = self._start if self._start is not None else now()

    def on_step_end(self, args, state, control, **kwargs):
        end = now()
        self.seconds.append(end - self._start)
        self.inside.append(self._inside)
        self._start, self._inside = end, 0.0


def build_policy(name: str, tokenizer):
    """The embedded policy, or the wide random one with the embedded policy's tokenizer."""
    if name == "tiny":
        return load_policy("tiny")
    config = LlamaConfig(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=2,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def peak_megabytes() -> float:
    """Peak memory so far: allocated on the GPU where there is one, else resident."""
    return peak_bytes() / 2**20


def measure(policy_name: str, bonus: str, steps: int) -> dict[str, float]:
    """Median seconds of a step, those inside the bonus, and peak megabytes of one run."""
    set_seed(0)
    prompts, length = BATCHES[policy_name]
    tokenizer = load_tokenizer("tiny")
    options = IntrinsicOptions(use_ir=bonus, cfn_warmup=1, explore_warmup=0)
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            output_dir=folder,
            bs=prompts,
            num_generations=8,
            L=length,
            max_steps=steps,
            learning_rate=1e-6,
            save_strategy="no",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
            seed=0,
        )
        trainer = IntrinsicGRPOTrainer(
            build_policy(policy_name, tokenizer),
            args=config,
            train_dataset=add_prompts(generate(500, "train", 0, SPACE), "chat"),
            reward_funcs=[correctness],
            processing_class=tokenizer,
            bonuses=BonusPipeline(build_bonuses(options), options.schedules()),
            encode=build_encoder(options.encoder) if "knn" in bonus else None,
            callbacks=[times],
        )
        times.watch(trainer)
        trainer.train()
    return {
        "seconds": statistics.median(times.seconds[WARM_STEPS:]),
        "inside": statistics.median(times.inside[WARM_STEPS:]),
        "megabytes": peak_megabytes(),
    }


def run_child(policy: str, bonus: str, steps: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bonus_overhead", "--child", f"{policy}:{bonus}", "--steps", str(steps)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if result.returncode:
        sys.exit(f"{policy} with {bonus} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    if options.child:
        policy, bonus = options.child.split(":")
        print(json.dumps(measure(policy, bonus, options.steps)))
        return
    policies, bonuses = options.policies.split(","), ["no", *options.bonuses.split(","), "no"]
    runs = {policy: [(bonus, run_child(policy, bonus, options.steps)) for bonus in bonuses] for policy in policies}
    publish(options.output, table(runs), {"options": asdict(options), "runs": runs})


def table(runs: dict[str, list[tuple[str, dict[str, float]]]]) -> str:
    """Markdown: each bonus over the faster, and the smaller, of the two runs of plain GRPO."""
    lines = ["| policy | bonus | seconds per step | ratio | bonus | peak MB | ratio |", "|---" * 7 + "|"]
    for policy, found in runs.items():
        plain = [run for bonus, run in found if bonus == "no"]
        base_time, base_memory = (min(run[name] for run in plain) for name in ("seconds", "megabytes"))
        for bonus, run in found:
            time_ratio, memory_ratio = run["seconds"] / base_time, run["megabytes"] / base_memory
            own = run["inside"] / (run["seconds"] - run["inside"])
            lines.append(
                f"| {policy} | {bonus} | {run['seconds']:.3f} | {time_ratio:.2f} | {own:.1%} | "
                f"{run['megabytes']:.0f} | {memory_ratio:.3f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
