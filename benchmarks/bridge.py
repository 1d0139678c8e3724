"""BRIDGE from data to the measured effect: plain against injected traces, supervised, then GRPO.

python -m benchmarks.bridge [--task countdown] [--seeds 3] [--rl_steps 100] [--jobs 2]

For every seed and style: traces of the same problems, a supervised start on them (run_sft.py), held-out accuracy, GRPO,
held-out accuracy again, and the co-influence of the policy before GRPO (analysis/influence). Every step is the script
that a user runs; what is finished is not run again. A finished arm leaves a record, and is not run again where that is.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.arm_records import ArmRecords, check_settings
from benchmarks.bridge_report import INFLUENCE, STAGES, plot, table
from benchmarks.child import Processes, exit_on_sigterm
from benchmarks.flag_checks import check_bonuses
from benchmarks.machine import publish
from common.errors import RunError, UserError, check_number, run_cli
from common.files import read_json, write_json
from common.flags import OutputFolder, check_choices, check_least, flag, parse_one
from policy.options import EMBEDDED_IGSM_NAME, EMBEDDED_NAME
from tasks.countdown.bridge import STYLES
from tasks.igsm.space import TINY

STEPS = Processes()  # that run
NOT_SETTINGS = ("seeds", "jobs", "output", "records")  # flags that change nothing that is measured
# Flags of the problems, the same ones of run_igsm.py and of the generator.
IGSM_SPACE = ("min_op", "max_op", "max_edges", "modulus", "zero_drop", "world")


@dataclass(frozen=True)
class Task:
    """What a task's steps are.

    Attributes:
        script, config: what trains by GRPO, and the flags of an embedded policy (a folder gets those of large ones).
        policy: the embedded policy that the supervised start begins with.
        batch: flags of the supervised start: how many traces, and which, make an update.
        L: most tokens of a completion.
    """

    script: str
    config: str
    policy: str
    batch: tuple
    L: int


TASKS = {
    "countdown": Task(
        "run_countdown.py", "configs/countdown_tiny.yaml", EMBEDDED_NAME, ("--per_device_train_batch_size", 64), 256
    ),
    "igsm": Task(
        "run_igsm.py",
        "configs/igsm_tiny.yaml",
        EMBEDDED_IGSM_NAME,
        # Traces of like length, because these differ several times over and are padded to the longest.
        ("--per_device_train_batch_size", 16, "--train_sampling_strategy", "group_by_length"),
        384,
    ),
}


@dataclass
class Options:
    """What is run, and how long."""

    task: str = flag("countdown", f"Task: {', '.join(TASKS)}.")
    seeds: int = flag(3, "Seeds of traces, SFT and GRPO, 1 or more.")
    traces: int = flag(2000, "Traces per style and seed, 1 or more.")
    sft_epochs: int = flag(5, "Passes over the traces, 1 or more.")
    sft_learning_rate: float = flag(5e-4, "Peak learning rate of SFT, above 0.")
    rl_steps: int = flag(100, "Updates of GRPO, 1 or more.")
    L: int = flag(
        0,
        "Most tokens of a completion; searches soon outgrow 128. 0: "
        + ", ".join(f"{task.L} on {name}" for name, task in TASKS.items())
        + ".",
    )
    bonus: str = flag("no", "Bonus of GRPO, as --use_ir.")
    eval_problems: int = flag(512, "Held-out problems, 1 or more.")
    queries: int = flag(64, "Problems of the influence, 2 or more; 0 to leave it out.")
    jobs: int = flag(2, "Arms at the same time, of one thread each; 1 or more.")
    output: OutputFolder = flag("", "Folder for data and runs; unset: outputs/bridge/<task>.")
    records: OutputFolder = flag(
        "", "Folder of a record per arm; table and plot get its name. Unset: outputs/bridge/<task>/bridge."
    )

    def __post_init__(self):
        check_choices(self, task=TASKS)
        check_least(self, seeds=1, traces=1, sft_epochs=1, rl_steps=1, eval_problems=1, jobs=1)
        check_bonuses("bonus", self.bonus)
        check_number("sft_learning_rate", self.sft_learning_rate, above=0)
        if self.L < 0:
            raise UserError(f"--L={self.L} must be at least 1, or 0 for what the task has.")
        if self.queries < 0 or self.queries == 1:
            raise UserError(f"--queries={self.queries} must be 0, for no influence, or at least 2.")
        self.L = self.L or TASKS[self.task].L
        self.output = self.output or f"outputs/bridge/{self.task}"
        self.records = self.records or f"{self.output}/bridge"

    def settings(self) -> dict:
        """The flags that what is measured depends on."""
        return {name: value for name, value in asdict(self).items() if name not in NOT_SETTINGS}

    def arm_records(self) -> ArmRecords:
        """The records of the arms that these flags measure."""
        return ArmRecords(self.records, self.settings())


def measure_arm(options: Options, style: str, seed: int) -> None:
    """`run_arm`, then its record; nothing where that is there."""
    records = options.arm_records()
    if not records.has(style, seed):
        run_arm(options, style, seed)
        records.save(style, seed, _measured(options, style, seed))


def run_arm(options: Options, style: str, seed: int) -> None:
    """Every step of one style and seed; a step whose result is there is left out.

    Raises:
        UserError: steps that are there were run with other settings.
        RunError: a step fails.
    """
    task, folder = TASKS[options.task], Path(options.output) / f"{style}_seed{seed}"
    data, sft, rl = folder / "traces.jsonl", folder / "sft", folder / "grpo"
    _check_folder(folder, options.settings())
    traces = [*_traces(options.task, style), "--n", options.traces, "--seed", 100 + seed, "--output", data]
    _step("traces", data, folder, *traces)
    training = [*task.batch, "--num_train_epochs", options.sft_epochs, "--warmup_steps", 10]
    training += ["--learning_rate", options.sft_learning_rate, "--lr_scheduler_type", "cosine"]
    saving = ["--save_strategy", "no", "--seed", seed, "--output_dir", sft]
    _step("sft", sft / "final", folder, "run_sft.py", "--data", data, "--model_name", task.policy, *training, *saving)
    policy = ["--model_name", sft / "final", "--seed", seed]
    if options.queries:
        sizes = ["--parameters", ".", "--split_halves", "true", "--samples", 32, "--queries", options.queries]
        found = folder / "influence"
        influence = [*policy, "--task", options.task, *_queries(options, folder), *sizes, "--output", found]
        _step("influence", found, folder, "-m", "analysis.influence", *influence)
    grpo = ["--config", task.config, "--gc", 1, "--attn_implementation", "eager", "--use_ir", options.bonus]
    grpo += ["--L", options.L, "--max_steps", options.rl_steps, "--eval_problems", options.eval_problems]
    grpo += ["--output_dir", rl]
    if any(rl.glob("checkpoint-*")):
        grpo += ["--resume", "auto"]
    _step("grpo", rl / "final", folder, task.script, *policy, *grpo)


def _check_folder(folder: Path, settings: dict) -> None:
    """A folder keeps the settings of the first step; raises `UserError` where others are asked of the steps to come."""
    path = folder / "settings.json"
    if path.exists():
        check_settings(path, read_json(path, "delete its folder"), settings, "give another --output")
    elif any(folder.glob("*")):
        raise UserError(f"{folder} does not say what its steps were run with; delete it, or give another --output.")
    else:
        write_json(path, settings)


def _traces(task: str, style: str) -> list[str]:
    """The command that writes traces of the training problems, without how many, seed and file."""
    if task == "countdown":
        return ["-m", "tasks.countdown.bridge", "--style", style]
    return [*_igsm_problems(), "--traces", style]


def _igsm_problems() -> list[str]:
    return ["-m", "tasks.igsm.generate", *(f"--{name}={getattr(TINY, name)}" for name in IGSM_SPACE)]


def _queries(options: Options, folder: Path) -> list[str]:
    """The flags of the problems that the influence is measured on: the test problems of the size trained on."""
    if options.task == "countdown":  # those of run_eval.py
        return []
    problems = folder / "queries.jsonl"
    held_out = ["--split", "test", "--n", options.queries, "--output", problems]
    _step("queries", problems, folder, *_igsm_problems(), *held_out)
    return ["--data", str(problems), "--max_new_tokens", str(options.L)]


def _step(name: str, result: Path, folder: Path, *command) -> None:
    if result.exists():
        return
    log = folder / f"{name}.log"
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with log.open("ab") as out:
        code = STEPS.run([sys.executable, *map(str, command)], stdout=out, stderr=out, env=environment)
    if code:
        raise RunError(f"{' '.join(map(str, command))} ended with exit code {code}; its output is in {log}.")


def collect(options: Options) -> dict[str, list[dict]]:
    """Style -> for every seed, what its record says was measured."""
    records = options.arm_records()
    return {style: [records.read(style, seed) for seed in range(options.seeds)] for style in STYLES}


def _measured(options: Options, style: str, seed: int) -> dict:
    """By stage "accuracy", "mean_length" and "truncated", on iGSM "accuracy, PART" of each part held out; influence."""
    folder, row = Path(options.output) / f"{style}_seed{seed}", {}
    for stage, name in STAGES.items():
        metrics = read_json(folder / "grpo" / "eval" / f"{name}.json", "delete its folder")["metrics"]
        row[stage] = {
            key.replace("/", ", "): value
            for key, value in metrics.items()
            if key in ("accuracy", "mean_length", "truncated") or key.startswith("accuracy/")
        }
    if options.queries:
        metrics = read_json(folder / "influence" / "influence.json", "delete its folder")["metrics"]
        row |= {name: metrics[key] for name, key in INFLUENCE.items()}
    return row


def main() -> None:
    exit_on_sigterm(STEPS)
    options = parse_one(Options)
    arms = [(style, seed) for seed in range(options.seeds) for style in STYLES]
    records = options.arm_records()
    records.check(arms)
    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(lambda arm: measure_arm(options, *arm), arms):
            pass
    found = collect(options)
    plot(found, Path(f"{options.records}.png"))
    numbers = {"options": asdict(options), "arms": found}
    publish(options.records, table(found), numbers, records.machines(arms))


if __name__ == "__main__":
    run_cli(main)
