"""BRIDGE on Countdown from data to the measured effect: plain against injected traces, supervised, then GRPO.

python -m benchmarks.bridge [--seeds 3] [--rl_steps 60] [--jobs 2]

For every seed and style: traces of the same problems (tasks/countdown/bridge.py), a supervised start on them
(run_sft.py), held-out accuracy, GRPO (run_countdown.py), held-out accuracy again, and the co-influence of the policy
before GRPO (analysis/influence). Every step is the script that a user runs; what is finished is not run again.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from analysis.style import SERIES, STYLE
from benchmarks.machine import publish
from common.errors import RunError, UserError, run_cli
from common.flags import OutputFolder, flag, parse_one
from tasks.countdown.bridge import STYLES

CONFIG = "configs/countdown_tiny.yaml"
STAGES = {"after SFT": "before", "after GRPO": "after"}  # name of a stage -> of the evaluation in GRPO's run folder

# What is shown -> its name in the influence's metrics.
INFLUENCE = {"E[sqrt(a(1-a))] before GRPO": "accuracy_factor", "mean cosine before GRPO": "cosine"}


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
    output: OutputFolder = flag("outputs/bridge", "Folder for data, runs, table and plot.")

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
    _step("traces", data, folder, "-m", "tasks.countdown.bridge", *traces)
    training = ["--per_device_train_batch_size", 64, "--num_train_epochs", options.sft_epochs, "--warmup_steps", 10]
    training += ["--learning_rate", options.sft_learning_rate, "--lr_scheduler_type", "cosine"]
    saving = ["--save_strategy", "no", "--seed", seed, "--output_dir", sft]
    _step("sft", sft / "final", folder, "run_sft.py", "--data", data, *training, *saving)
    policy = ["--model_name", sft / "final", "--seed", seed]
    if options.queries:
        sizes = ["--parameters", ".", "--split_halves", "true", "--samples", 32, "--queries", options.queries]
        found = folder / "influence"
        influence = [*policy, "--task", "countdown", *sizes, "--output", found]
        _step("influence", found, folder, "-m", "analysis.influence", *influence)
    # The script's own defaults for a folder are those of large models; the file is that of the embedded one.
    grpo = ["--config", CONFIG, "--gc", 1, "--attn_implementation", "eager", "--use_ir", options.bonus]
    grpo += ["--L", options.L, "--max_steps", options.rl_steps, "--eval_problems", options.eval_problems]
    grpo += ["--save_strategy", "no", "--output_dir", rl]
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


def collect(options: Options) -> dict[str, list[dict]]:
    """Style -> for every seed, accuracy with its interval and other means at each stage, and influence before GRPO."""
    return {style: [_read_arm(options, style, seed) for seed in range(options.seeds)] for style in STYLES}


def _read_arm(options: Options, style: str, seed: int) -> dict:
    folder, row = Path(options.output) / f"{style}_seed{seed}", {}
    for stage, name in STAGES.items():
        metrics = json.loads((folder / "grpo" / "eval" / f"{name}.json").read_text())["metrics"]
        row[stage] = metrics["accuracy"]
        row |= {f"{what} {stage}": metrics[what] for what in ("mean_length", "truncated")}
    if options.queries:
        metrics = json.loads((folder / "influence" / "influence.json").read_text())["metrics"]
        row |= {name: metrics[key] for name, key in INFLUENCE.items()}
    return row


def mean_interval(values: list[float]) -> tuple[float, float]:
    """Mean over seeds and half width of its 95 % t interval; NaN for one seed."""
    if len(values) < 2:
        return values[0], float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values)), float(half)


def table(found: dict[str, list[dict]]) -> str:
    """Markdown: accuracy, lengths and influence per style and seed, and means over seeds."""
    heads = [f"seed {seed}" for seed in range(len(next(iter(found.values()))))]
    lines = [f"| traces | | {' | '.join(heads)} | mean |", "|---" * (len(heads) + 3) + "|"]
    for style, rows in found.items():
        for stage in STAGES:
            lines.append(_line(style, f"accuracy {stage}, %", [_shown(row[stage], 100, 1) for row in rows]))
            lines[-1] += _mean([100 * row[stage]["mean"] for row in rows], 1)
        lines.append(_points(style, "gain by GRPO, points", _gains(rows)))
        for stage in STAGES:
            cells = [f"{row[f'mean_length {stage}']:.0f}, {row[f'truncated {stage}']:.0%}" for row in rows]
            lines.append(_line(style, f"tokens, cut off, {stage}", cells) + " |")
        for name in INFLUENCE:
            if all(name in row for row in rows):
                lines.append(_line(style, name, [_shown(row[name], 1, 3) for row in rows]))
                lines[-1] += _mean([row[name]["mean"] for row in rows], 3)
    plain, injected = (_gains(found[style]) for style in ("plain", "injected"))
    more = [own - other for own, other in zip(injected, plain, strict=True)]
    lines.append(_points("injected over plain", "gain by GRPO, points", more))
    notes = "95 % intervals over held-out problems; means over seeds ± half of a 95 % t interval."
    return "\n".join(lines) + f"\n\n{notes}\n"


def _gains(rows: list[dict]) -> list[float]:
    return [100 * (row["after GRPO"]["mean"] - row["after SFT"]["mean"]) for row in rows]


def _points(style: str, what: str, values: list[float]) -> str:
    return _line(style, what, [f"{value:+.1f}" for value in values]) + _mean(values, 1, "+")


def _line(style: str, what: str, cells: list[str]) -> str:
    return f"| {style} | {what} | {' | '.join(cells)} |"


def _shown(value: dict[str, float], scale: float, digits: int) -> str:
    mean, low, high = (f"{scale * value[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _mean(values: list[float], digits: int, sign: str = "") -> str:
    mean, half = mean_interval(values)
    return f" {mean:{sign}.{digits}f} ± {half:.{digits}f} |"


def plot(found: dict[str, list[dict]], path: Path) -> None:
    """Accuracy from SFT to GRPO, one thin line per seed; beside it what was measured of the theory before GRPO."""
    has_influence = all(name in row for rows in found.values() for row in rows for name in INFLUENCE)
    with plt.rc_context(STYLE):
        panels = 1 + len(INFLUENCE) * has_influence
        sizes = [1.8] + [1.0] * (panels - 1)
        figure, axes = plt.subplots(
            1, panels, figsize=(3.0 + 2.6 * panels, 4.2), width_ratios=sizes, layout="constrained", squeeze=False
        )
        _plot_accuracy(axes[0, 0], found)
        for axis, name in zip(axes[0, 1:], INFLUENCE, strict=False):  # no further axis without influence
            _plot_before(axis, found, name)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _plot_accuracy(axis, found: dict[str, list[dict]]) -> None:
    for color, (style, rows) in zip(SERIES, found.items(), strict=False):
        lines = np.array([[100 * row[stage]["mean"] for stage in STAGES] for row in rows])
        for number, (row, line) in enumerate(zip(rows, lines, strict=True)):
            bounds = [[100 * row[stage][side] for stage in STAGES] for side in ("low", "high")]
            at = np.arange(len(STAGES)) + 0.03 * (number - (len(rows) - 1) / 2)
            axis.errorbar(at, line, yerr=np.abs(np.array(bounds) - line), color=color, alpha=0.35, capsize=3)
        axis.plot(range(len(STAGES)), lines.mean(axis=0), color=color, linewidth=3, label=style)
    axis.set(xticks=range(len(STAGES)), xticklabels=STAGES, ylabel="held-out accuracy, %", xlim=(-0.3, 1.3))
    axis.legend()


def _plot_before(axis, found: dict[str, list[dict]], name: str) -> None:
    for place, (color, rows) in enumerate(zip(SERIES, found.values(), strict=False)):
        means = np.array([row[name]["mean"] for row in rows])
        error = np.abs(np.array([[row[name][side] for row in rows] for side in ("low", "high")]) - means)
        at = place + 0.12 * (np.arange(len(rows)) - (len(rows) - 1) / 2)
        axis.errorbar(at, means, yerr=error, color=color, fmt="o", capsize=3)
    axis.axhline(0, color="#BBBBBB", linewidth=0.8)
    axis.set(xticks=range(len(found)), xticklabels=list(found), xlim=(-0.5, len(found) - 0.5), title=name)
    axis.set_title(name, fontsize=9)


def main() -> None:
    options = parse_one(Options)
    arms = [(style, seed) for seed in range(options.seeds) for style in STYLES]
    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(lambda arm: run_arm(options, *arm), arms):
            pass
    found, folder = collect(options), Path(options.output)
    plot(found, folder / "bridge.png")
    publish(str(folder / "bridge"), table(found), {"options": asdict(options), "arms": found})


if __name__ == "__main__":
    run_cli(main)
