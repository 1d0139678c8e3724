"""Self-certainty from hidden states against logsumexp minus mean over full float32 logits: time and peak memory.

python -m benchmarks.self_certainty_memory [--rows 4] [--length 256]

Width and vocabulary are those of Qwen2.5-0.5B. Every way runs in a process of its own; its memory is the rise of the
peak above what was in use before, on a CPU (Linux) of the resident memory.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import set_seed

from benchmarks.child import measured
from benchmarks.machine import publish
from benchmarks.shapes import SHAPES, random_policy
from common.errors import run_cli
from common.flags import OutputStem, check_choices, check_least, flag, parse_one
from policy.features import FeaturePass
from policy.load import load_tokenizer

SHAPE = "qwen2.5-0.5b"
WAYS = ("identity", "logits")


@dataclass
class Options:
    """What is measured."""

    rows: int = flag(4, "Completions, 1 or more.")
    length: int = flag(256, "Tokens per completion, 1 or more.")
    output: OutputStem = flag("outputs/self_certainty_memory", "Path of the results, without extension.")
    way: str = flag("", "Used by the benchmark itself: what one process measures.")

    def __post_init__(self):
        check_least(self, rows=1, length=1)
        check_choices(self, way=("", *WAYS))


class Peak:
    """Megabytes that the peak of memory rises above what is in use now."""

    def __init__(self):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident memory starts anew
            self.before = self._resident_peak()

    def rise(self) -> float:
        """Megabytes since then."""
        after = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else self._resident_peak()
        return (after - self.before) / 2**20

    @staticmethod
    def _resident_peak() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def measure(way: str, rows: int, length: int) -> dict[str, float]:
    """Milliseconds, megabytes above the peak before, and the mean self-certainty found."""
    set_seed(0)
    model = random_policy(SHAPE, load_tokenizer("tiny")).eval()
    weight = model.get_output_embeddings().weight
    hidden = torch.randn(rows, length, weight.size(1))
    tokens = torch.randint(0, weight.size(0), (rows, length))
    with torch.no_grad():
        logps = torch.stack([_logps(row, ids, weight) for row, ids in zip(hidden, tokens, strict=True)])
        if torch.cuda.is_available():
            model, hidden, tokens, logps = (item.cuda() for item in (model, hidden, tokens, logps))
            weight = model.get_output_embeddings().weight
        features = FeaturePass(model, 1.0, rows)
        peak, start = Peak(), time.perf_counter()
        if way == "identity":
            found = features._self_certainty(hidden, logps, tokens, model.get_output_embeddings())
        else:
            logits = hidden @ weight.T
            found = logits.logsumexp(dim=-1) - logits.mean(dim=-1) - math.log(weight.size(0))
        mean = found.mean().item()
        seconds = time.perf_counter() - start
    return {"ms": 1e3 * seconds, "mb": peak.rise(), "mean": mean}


def _logps(hidden: torch.Tensor, tokens: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (T,), a few tokens at a time so that preparing them does not set the peak."""
    parts = []
    for states, ids in zip(hidden.split(16), tokens.split(16), strict=True):
        logits = states @ weight.T
        parts.append(logits.gather(1, ids[:, None]).squeeze(1) - logits.logsumexp(dim=-1))
    return torch.cat(parts)


def main() -> None:
    options = parse_one(Options)
    if options.way:
        print(json.dumps(measure(options.way, options.rows, options.length)))
        return
    sizes = ["--rows", options.rows, "--length", options.length]
    found = {way: measured("benchmarks.self_certainty_memory", "--way", way, *sizes) for way in WAYS}
    # Small tensors may fit into memory that the process held already: never count less than what it must make.
    own = max(found["identity"]["mb"], options.rows * options.length * SHAPES[SHAPE].hidden_size * 4 / 2**20)
    memory, milliseconds = found["logits"]["mb"] / own, found["logits"]["ms"] / found["identity"]["ms"]
    lines = ["| way | ms | MB | mean, nats |", "|---" * 4 + "|"]
    lines += [f"| {way} | {run['ms']:.0f} | {run['mb']:.1f} | {run['mean']:.5f} |" for way, run in found.items()]
    lines.append(f"| logits over identity | {milliseconds:.0f} x | {memory:.0f} x | |")
    publish(options.output, "\n".join(lines), {"options": asdict(options), "ways": found})


if __name__ == "__main__":
    run_cli(main)
