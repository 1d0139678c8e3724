"""What each bonus costs: step time and peak memory over plain GRPO.

python -m benchmarks.bonus_overhead [--policy qwen2.5-0.5b] [--bonuses knn,knn+,sc,cfn,rnd] [--beta 0.04]

rarity_embedding is rarity with that partition, as the sweeps call it.

Every bonus runs in a process of its own, so that peak memory is its own, and plain GRPO runs before and after them all.
Times are medians over the steps after the first ones. "bonus" is the time inside the bonus code, the forward passes it
asks for and reading features off the generation, over the rest of the same steps: on a busy machine it says more than
the ratio of two runs. Policies called qwen2.5 have their sizes and random weights.
"""

import functools
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass

from transformers import TrainerCallback, set_seed

from benchmarks.child import exit_on_sigterm, measured
from benchmarks.flag_checks import check_bonuses
from benchmarks.machine import publish
from benchmarks.shapes import SHAPES, random_policy
from common.errors import UserError, run_cli
from common.flags import OutputStem, check_choices, check_least, flag, parse_one
from common.markdown import markdown_table
from intrinsic import REGISTRY, build_bonuses
from intrinsic.options import IntrinsicOptions
from intrinsic.parts.encoder import build_encoder
from intrinsic.pipeline import BonusPipeline
from intrinsic.rarity import PARTITIONS
from policy.load import load_policy, load_tokenizer
from policy.options import EMBEDDED_NAME
from policy.packaged import SHORT_NAME
from policy.precision import Precision
from tasks.countdown.problems import add_prompts, generate
from training.fit.out_of_memory import peak_bytes
from training.fit.report import correctness as every_other
from training.fit.report import now
from training.run_options import RunConfig
from training.tiny_policy import SPACE
from training.trainer import IntrinsicGRPOTrainer

ALL = "all"
BY_PARTITION = "rarity_"


@dataclass
class Options:
    """What is measured."""

    policy: str = flag(EMBEDDED_NAME, f"Policy: {EMBEDDED_NAME} (embedded), {SHORT_NAME}, {', '.join(SHAPES)}.")
    bonuses: str = flag(
        "knn,knn+,sc,cfn,rnd",
        f"Bonuses, separated by commas, or {ALL}; rarity_PARTITION for rarity by another partition.",
    )
    prompts: int = flag(24, "Prompts per step, each with 8 completions; 1 or more.")
    length: int = flag(64, "Most tokens of a completion, 1 or more.")
    beta: float = flag(0.0, "Weight of the KL penalty, 0 or more.")
    encoder: str = flag(IntrinsicOptions.encoder, "Text encoder of the memories.")
    steps: int = flag(6, "Optimiser steps per run, more than --warm_steps.")
    warm_steps: int = flag(2, "First steps of a run that are not counted, 1 or more.")
    output: OutputStem = flag("outputs/bonus_overhead", "Path of the results, without extension.")
    child: str = flag("", "Used by the benchmark itself: bonus of one process.")

    def __post_init__(self):
        check_choices(self, policy=(EMBEDDED_NAME, SHORT_NAME, *SHAPES))
        if not 1 <= self.warm_steps < self.steps:
            raise UserError(f"--warm_steps={self.warm_steps} must be at least 1 and below --steps={self.steps}.")
        check_least(self, prompts=1, length=1, beta=0)
        if self.bonuses != ALL:
            check_bonuses("bonuses", self.bonuses, [BY_PARTITION + name for name in PARTITIONS])

    @property
    def names(self) -> list[str]:
        """What ``--bonuses`` names."""
        return list(REGISTRY) if self.bonuses == ALL else self.bonuses.split(",")


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
        """Count the bonus pipeline of ``trainer``, its feature passes and its capture of features in generation."""
        trainer._features = self.timed(trainer._features)
        if trainer._capture is not None:
            for name in ("_keep_states", "_keep_statistics"):
                setattr(trainer._capture, name, self.timed(getattr(trainer._capture, name)))
        for name in ("score", "join", "update"):
            setattr(trainer.bonuses, name, self.timed(getattr(trainer.bonuses, name)))

    def on_step_begin(self, args, state, control, **kwargs):
        self._start = self._start if self._start is not None else now()

    def on_step_end(self, args, state, control, **kwargs):
        end = now()
        self.seconds.append(end - self._start)
        self.inside.append(self._inside)
        self._start, self._inside = end, 0.0


def correctness(completions, log_extra=None, **kwargs) -> list[float]:
    """Right for every other completion, with one of three answers and approaches for the bonuses that read them."""
    if log_extra is not None:
        for name in ("answer", "approach"):
            log_extra(name, [str(index % 3) for index in range(len(completions))])
    return every_other(completions)


def measure(options: Options, bonus: str) -> dict[str, float]:
    """Median seconds of a step, those inside the bonus, and peak megabytes of one run."""
    set_seed(0)
    is_random = options.policy in SHAPES
    tokenizer = load_tokenizer(EMBEDDED_NAME if is_random else options.policy)
    policy = random_policy(options.policy, tokenizer) if is_random else load_policy(options.policy)
    settings = {"use_ir": bonus, "encoder": options.encoder, "cfn_warmup": 1, "explore_warmup": 0}
    if bonus.startswith(BY_PARTITION):
        settings |= {"use_ir": "rarity", "rarity_partition": bonus.removeprefix(BY_PARTITION)}
    intrinsic = IntrinsicOptions(**settings)
    bonuses = BonusPipeline(build_bonuses(intrinsic), intrinsic.schedules())
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            output_dir=folder,
            bs=options.prompts,
            num_generations=8,
            L=options.length,
            beta=options.beta,
            max_steps=options.steps,
            learning_rate=1e-6,
            save_strategy="no",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
            seed=0,
        )
        encode = None
        if "text_embedding" in bonuses.needs:
            autocast = Precision.of(config).autocast
            encode = build_encoder(intrinsic.encoder, policy, tokenizer, config.device, autocast)
        trainer = IntrinsicGRPOTrainer(
            policy,
            args=config,
            train_dataset=add_prompts(generate(500, "train", 0, SPACE), "chat"),
            reward_funcs=[correctness],
            processing_class=tokenizer,
            bonuses=bonuses,
            encode=encode,
            callbacks=[times],
        )
        times.watch(trainer)
        trainer.train()
    warm = options.warm_steps
    return {
        "seconds": statistics.median(times.seconds[warm:]),
        "inside": statistics.median(times.inside[warm:]),
        "megabytes": peak_bytes() / 2**20,
    }


def main() -> None:
    exit_on_sigterm()
    options = parse_one(Options)
    if options.child:
        print(json.dumps(measure(options, options.child)))
        return
    runs: list[tuple[str, dict[str, float]]] = []
    try:
        for bonus in ("no", *options.names, "no"):
            runs.append((bonus, measured("benchmarks.bonus_overhead", *sys.argv[1:], "--child", bonus)))
    finally:  # what was measured before a run that fails, or an interruption, is kept
        if runs:
            publish(options.output, table(runs), {"options": asdict(options), "runs": runs})


def table(runs: list[tuple[str, dict[str, float]]]) -> str:
    """Markdown: each bonus over the faster, and the smaller, of the two runs of plain GRPO."""
    rows = []
    plain = [run for bonus, run in runs if bonus == "no"]
    base_time, base_memory = (min(run[name] for run in plain) for name in ("seconds", "megabytes"))
    for bonus, run in runs:
        time_ratio, memory_ratio = run["seconds"] / base_time, run["megabytes"] / base_memory
        own = run["inside"] / (run["seconds"] - run["inside"])
        times = [f"{run['seconds']:.3f}", f"{time_ratio:.2f}", f"{own:.1%}"]
        rows.append([bonus, *times, f"{run['megabytes']:.0f}", f"{memory_ratio:.3f}"])
    return markdown_table(["bonus", "seconds per step", "ratio", "bonus", "peak MB", "ratio"], rows)


if __name__ == "__main__":
    run_cli(main)
