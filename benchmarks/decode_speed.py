"""Seconds of sampling as the project does it, and with autocast around each forward pass: one run, the same tokens.

python -m benchmarks.decode_speed [--shape qwen2.5-0.5b] [--rows 8] [--new 16]

The policy has the published sizes of the model, random float32 weights, and computes in the half precision of the
device. Both ways take turns; what is compared is the median over the rounds.
"""

import statistics
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import wraps

import torch
from transformers import set_seed

from benchmarks.machine import publish
from benchmarks.shapes import SHAPES, random_policy
from common.errors import UserError, run_cli
from common.flags import OutputStem, check_choices, flag, parse_one
from policy.decoding import cast_once
from policy.load import load_tokenizer
from policy.precision import NAMES, Precision, half_type
from training.fit.report import now

EACH, ONE = "autocast around each pass", "one autocast, cache in its type"


@dataclass
class Options:
    """What is measured."""

    shape: str = field(default="qwen2.5-0.5b", metadata={"help": f"Sizes of the policy: {', '.join(SHAPES)}."})
    rows: int = field(default=8, metadata={"help": "Completions that are decoded at once, 1 or more."})
    prompt: int = field(default=32, metadata={"help": "Tokens of a prompt, 1 or more."})
    new: int = field(default=16, metadata={"help": "Tokens of a completion, 1 or more."})
    rounds: int = field(
        default=3, metadata={"help": "Times that each way is measured, after one that is not; 1 or more."}
    )
    output: OutputStem = flag("outputs/decode_speed", "Path of the results, without extension.")

    def __post_init__(self):
        check_choices(self, shape=SHAPES)
        for name in ("rows", "prompt", "new", "rounds"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)} must be at least 1.")


def measure(options: Options) -> dict:
    """Seconds of every round by way, and whether both ways sampled the same tokens."""
    set_seed(0)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    precision = Precision(half_type(), accelerator.type)
    policy = random_policy(options.shape, load_tokenizer("tiny")).to(accelerator)
    ids = torch.randint(5, 1000, (options.rows, options.prompt), device=accelerator)
    usual = policy.forward

    @wraps(usual)
    def forward(*args, **kwargs):
        with precision.autocast():
            return usual(*args, **kwargs)

    policy.forward = forward  # as accelerate leaves it
    around = {EACH: nullcontext, ONE: lambda: cast_once(policy, precision.autocast)}
    seconds, tokens = {way: [] for way in around}, {}
    for _ in range(1 + options.rounds):
        for way, context in around.items():
            set_seed(0)
            start = now()
            with context(), torch.no_grad():
                tokens[way] = policy.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=True,
                    top_k=0,
                    max_new_tokens=options.new,
                    min_new_tokens=options.new,
                    disable_compile=True,
                )
            seconds[way].append(now() - start)
    return {
        "seconds": {way: found[1:] for way, found in seconds.items()},
        "same_tokens": torch.equal(tokens[EACH], tokens[ONE]),
        "type": NAMES[precision.compute],
    }


def table(result: dict, options: Options) -> str:
    """Median and range of the seconds by way, and how many times as fast the second is."""
    seconds = {way: sorted(found) for way, found in result["seconds"].items()}
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    lines = [
        f"{options.shape}, random weights, {result['type']}: {options.new} tokens for {options.rows} completions after "
        f"{options.prompt} tokens; the {'same' if result['same_tokens'] else 'OTHER'} tokens both ways.\n",
        "| way | seconds | all rounds | times as fast |",
        "|---|---|---|---|",
    ]
    for way, found in seconds.items():
        ratio = medians[EACH] / medians[way]
        lines.append(f"| {way} | {medians[way]:.2f} | {found[0]:.2f} to {found[-1]:.2f} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    options = parse_one(Options)
    result = measure(options)
    publish(options.output, table(result, options), {"options": asdict(options), **result})


if __name__ == "__main__":
    run_cli(main)
