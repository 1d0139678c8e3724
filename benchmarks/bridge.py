"""BRIDGE on Countdown from data to the measured effect: plain against injected traces, supervised, then GRPO.

python -m benchmarks.bridge [--seeds 3] [--rl_steps 60] [--jobs 2]

For every seed and style: traces of the same problems (tasks/countdown_bridge.py), a supervised start on them
(run_sft.py), held-out accuracy, GRPO (run_countdown.py), held-out accuracy again, and the co-influence of the policy
before GRPO (analysis/influence.py). Every step is the script that a user runs; what is finished is not run again.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats
from transformers import HfArgumentParser

from analysis.style import SERIES, STYLE
from tasks.countdown_bridge import STYLES
from training.errors import RunError, UserError, run_cli

CONFIG = "configs/countdown_tiny.yaml"
STAGES = {"after SFT": "before", "after GRPO": "after"}  # name of a stage -> of the evaluation in GRPO's run folder


@dataclass
class Options:
    """What is run, and how long."""

    seeds: int = field(default=3, metadata={"help": "Seeds of traces, SFT and GRPO, 1 or more."})
    traces: int = field(default=2000, metadata={"help": "Traces per style and seed."})
    sft_epochs: int = field(default=5, metadata={"help": "Passes over the traces."})
    sft_learning_rate: float = field(default=5e-4, metadata={"help": "Peak learning rate of SFT."})
    rl_steps: int = field(default=100, metadata={"help": "Updates of GRPO."})
    L: int = field(default=256, metadata={"help": "Most tokens of a completion; searches soon outgrow 128."})
    bonus: str = field(default="no", metadata={"help": "Bonus of GRPO, as --use_ir."})
    eval_problems: int = field(default=512, metadata={"help": "Held-out problems."})
    queries: int = field(default=64, metadata={"help": "Problems of the influence, 0 to leave it out."})
    jobs: int = field(default=2, metadata={"help": "Arms at the same time, of one thread each."})
    output: str = field(default="outputs/bridge", metadata={"help": "Folder for data, runs, table and plot."})

    def __post_init__(self):
        for name in ("seeds", "traces", "sft_epochs", "rl_steps", "eval_problems", "jobs"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)} must be at least 1.")


def run_arm(options: Options, style: str, seed: int) -> None:
    """Every step of one style and seed; a step whose result is there is left out. Raises `RunError` if one fails."""
    folder = Path(options.output) / f"{style}_seed{seed}"
    data, sft, rl = folder / "traces.jsonl", folder / "sft", folder / "grpo"
    folder.mkdir(parents=True, exist_ok=True)
    traces = ["--style", style, "--n", options.traces, "--seed", 100 + seed, "--output", data]
    _step("traces", data, folder, "-m", "tasks.countdown_bridge", *traces)
    training = ["--per_device_train_batch_size", 64, "--num_train_epochs", options.sft_epochs, "--warmup_steps", 10]
    training += ["--learning_rate", options.sft_learning_rate, "--lr_scheduler_type", "cosine"]
    saving = ["--save_strategy", "no", "--seed", seed, "--output_dir", sft]
    _step("sft", sft / "final", folder, "run_sft.py", "--data", data, *training, *saving)
    policy = ["--model_name", sft / "final", "--seed", seed]
    if options.queries:
        sizes = ["--parameters", ".", "--split_halves", "true", "--samples", 32, "--queries", options.queries]
        found = folder / "influence"
        _step(
            "influence",
            found,
            folder,
            "-m",
            "analysis.influence",
            *policy,
            "--task",
            "countdown",
            *sizes,
            "--output",
            found,
        )
    # The script's own defaults for a folder are those of large models; the file is that of the embedded one.
    grpo = ["--config", CONFIG, "--gc", 1, "--attn_implementation", "eager", "--use_ir", options.bonus]
    grpo += ["--output_dir", rl]
    grpo += [
        "--L",
        options.L,
        "--max_steps",
        options.rl_steps,
        "--save_strategy",
        "no",
        "--eval_problems",
        options.eval_problems,
    ]
    _step("grpo", rl / "final", folder, "run_countdown.py", *policy, *grpo)


def _step(name: str, result: Path, folder: Path, *command) -> None:
    if result.exists():
        return
    log = folder / f"{name}.log"
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with log.open("w") as out:
        code = subprocess.run([sys.executable, *map(str, command)], stdout=out, stderr=out, env=environment).returncode
    if code:
        raise RunError(f"{' '.join(map(str, command))} ended with exit code {code}; its output is in {log}.")


def collect(options: Options) -> dict[str, list[dict[str, float]]]:
    """Style -> for every seed, accuracy at each stage with its interval, length, and relative influence."""
    found: dict[str, list[dict]] = {}
    for style in STYLES:
        found[style] = []
        for seed in range(options.seeds):
            folder = Path(options.output) / f"{style}_seed{seed}"
            row = {}
            for stage, name in STAGES.items():
                metrics = json.loads((folder / "grpo" / "eval" / f"{name}.json").read_text())["metrics"]
                row[stage] = metrics["accuracy"]
                row[f"length {stage}"] = metrics["mean_length"]
            if options.queries:
                row["influence"] = json.loads((folder / "influence" / "influence.json").read_text())
            found[style].append(row)
    return found


def mean_interval(values: list[float]) -> tuple[float, float]:
    """Mean over seeds and half width of its 95 % t interval; NaN for one seed."""
    if len(values) < 2:
        return values[0], float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values)), float(half)


def table(found: dict[str, list[dict]]) -> str:
    """Markdown: accuracy per style, seed and stage, and the mean over seeds."""
    seeds = range(len(next(iter(found.values()))))
    heads = [f"seed {seed}" for seed in seeds]
    lines = [f"| traces | stage | {' | '.join(heads)} | mean |", "|---" * (len(heads) + 3) + "|"]
    for style, rows in found.items():
        for stage in STAGES:
            cells = [
                f"{100 * r[stage]['mean']:.1f} [{100 * r[stage]['low']:.1f}, {100 * r[stage]['high']:.1f}]"
                for r in rows
            ]
            mean, half = mean_interval([100 * row[stage]["mean"] for row in rows])
            lines.append(f"| {style} | {stage} | {' | '.join(cells)} | {mean:.1f} ± {half:.1f} |")
    gains = {
        style: [100 * (r["after GRPO"]["mean"] - r["after SFT"]["mean"]) for r in rows] for style, rows in found.items()
    }
    for style, values in gains.items():
        mean, half = mean_interval(values)
        cells = " | ".join(f"{value:+.1f}" for value in values)
        lines.append(f"| {style} | gain by GRPO | {cells} | {mean:+.1f} ± {half:.1f} |")
    return "\n".join(lines) + "\n\nHeld-out accuracy in per cent, 95 % intervals over problems; mean ± t over seeds.\n"


def plot(found: dict[str, list[dict]], path: Path) -> None:
    """Accuracy after SFT and after GRPO, one line per seed, thick the mean over seeds."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
        for color, (style, rows) in zip(SERIES, found.items(), strict=False):
            lines = np.array([[100 * row[stage]["mean"] for stage in STAGES] for row in rows])
            for row, line in zip(rows, lines, strict=True):
                bounds = [[100 * row[stage][side] for stage in STAGES] for side in ("low", "high")]
                error = np.abs(np.array(bounds) - line)
                axis.errorbar(range(len(STAGES)), line, yerr=error, color=color, alpha=0.35, capsize=3)
            axis.plot(range(len(STAGES)), lines.mean(axis=0), color=color, linewidth=3, label=style)
        axis.set(xticks=range(len(STAGES)), xticklabels=STAGES, ylabel="held-out accuracy, %", xlim=(-0.3, 1.3))
        axis.legend()
        figure.savefig(path, dpi=130)
        plt.close(figure)


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    arms = [(style, seed) for seed in range(options.seeds) for style in STYLES]
    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(lambda arm: run_arm(options, *arm), arms):
            pass
    found, folder = collect(options), Path(options.output)
    text = table(found)
    (folder / "bridge.md").write_text(text)
    (folder / "bridge.json").write_text(json.dumps(found))
    plot(found, folder / "bridge.png")
    print(text)


if __name__ == "__main__":
    run_cli(main)
