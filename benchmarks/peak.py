"""Peak memory of a training step against its estimate: what ``--dry_run`` prints, for policies of random weights.

python -m benchmarks.peak [--shapes qwen2.5-0.5b,qwen2.5-1.5b] [--prompts 8] [--length 256] [--micro_batch 8]

Each row is a process of its own: run_countdown.py --dry_run, which trains two steps on the longest prompts with
completions that all reach --L. On a CPU the measured peak is that of the process, less what it held before the policy.
"""

import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.child import exit_on_sigterm, output_of
from benchmarks.flag_checks import check_listed, check_micro_batch
from benchmarks.machine import publish
from benchmarks.shapes import SHAPES, save_llama
from common.errors import run_cli
from common.flags import OutputStem, check_least, flag, parse_one
from common.markdown import markdown_table

ROOT = Path(__file__).parent.parent
WAYS = {
    "full, KL penalty": ["--beta", "0.04"],
    "full": ["--beta", "0"],
    "full, sc and cfn": ["--beta", "0", "--use_ir=sc,cfn"],
    "--lora": ["--beta", "0", "--lora"],
}
_SIZE = r"(\d+\.\d+) GiB"
ESTIMATED = rf"at most at once +{_SIZE}"
MEASURED = rf"measured peak on the worst batch +{_SIZE}(?: \({_SIZE} of it before)?"


@dataclass
class Options:
    """The shapes of a training step."""

    shapes: str = flag("qwen2.5-0.5b,qwen2.5-1.5b", f"Policies, by commas: {', '.join(SHAPES)}.")
    prompts: int = flag(8, "Prompts per step, with eight completions each; 1 or more.")
    length: int = flag(256, "Tokens of a completion, 1 or more.")
    micro_batch: int = flag(8, "Completions per forward and backward pass, a divisor of those of a step; 0: all.")
    output: OutputStem = flag("outputs/peak", "Path of the results, without extension.")

    def __post_init__(self):
        check_listed("shapes", self.shapes, SHAPES)
        check_least(self, prompts=1, length=1)
        check_micro_batch(self.micro_batch, 8 * self.prompts)


def measure(options: Options, policy: Path, flags: list[str]) -> dict[str, float | None]:
    """GiB of a step, estimated and measured; None for a step that the dry run did not try."""
    sizes = ["--bs", options.prompts, "--num_generations", 8, "--L", options.length]
    sizes += ["--micro_batch", options.micro_batch, "--train_problems", 64, "--do_eval", 0]
    command = [ROOT / "run_countdown.py", "--dry_run", "--model_name", policy, *sizes, *flags]
    return read(output_of(command, cwd=ROOT))


def read(printed: str) -> dict[str, float | None]:
    """The two figures in what a dry run ``printed``."""
    estimated, measured = re.search(ESTIMATED, printed), re.search(MEASURED, printed)
    peak = float(measured.group(1)) - float(measured.group(2) or 0) if measured else None
    return {"estimated": float(estimated.group(1)), "measured": peak}


def table(runs: dict[str, dict[str, dict]]) -> str:
    """Markdown: one row per policy and way."""
    rows = []
    for shape, ways in runs.items():
        for way, run in ways.items():
            estimated, measured = run["estimated"], run["measured"]
            ratio = f"{measured / estimated:.2f}" if measured is not None and estimated else ""
            found = "not tried" if measured is None else f"{measured:.2f}"
            rows.append([shape, way, f"{estimated:.2f}", found, ratio])
    return markdown_table(["policy", "trained", "estimated GiB", "measured GiB", "measured over estimated"], rows)


def main() -> None:
    exit_on_sigterm()
    options = parse_one(Options)
    runs: dict[str, dict[str, dict]] = {}
    try:
        for shape in options.shapes.split(","):
            with tempfile.TemporaryDirectory() as folder:
                save_llama(SHAPES[shape], Path(folder))
                for way, flags in WAYS.items():
                    run = measure(options, Path(folder), flags)
                    runs.setdefault(shape, {})[way] = run
    finally:  # what was measured before a run that fails, or an interruption, is kept
        if runs:
            publish(options.output, table(runs), {"options": asdict(options), "runs": runs})


if __name__ == "__main__":
    run_cli(main)
