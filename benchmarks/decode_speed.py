"""Seconds of sampling as the project does it, and as transformers does with autocast around each pass: taking turns.

python -m benchmarks.decode_speed [--policy qwen2.5-0.5b] [--rows 8] [--group 8] [--new 16]
python -m benchmarks.decode_speed --policy smollm2 --rows 64 --prompt 90 --new 33

A policy of published sizes has random float32 weights; smollm2 has its own. Both compute in what a run takes on the
device unless told: bfloat16, or float32 on a CPU without units for it. The time to the first token is that of a call
for one token; a further token's is what a call for more of them takes above that. Medians over the rounds are compared.
"""

import statistics
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import wraps

import torch
from transformers import PreTrainedModel, set_seed

from benchmarks.machine import publish
from benchmarks.shapes import SHAPES, random_policy
from common.devices import default_device
from common.errors import UserError, run_cli
from common.flags import OutputStem, check_choices, check_least, flag, parse_one
from common.markdown import markdown_table
from policy.decoding import cast_once
from policy.load import load_policy, load_tokenizer
from policy.packaged import SHORT_NAME
from policy.precision import NAMES, Precision, compute_type
from training.fit.report import now

EACH, ONE = "transformers, autocast around each pass", "as the project samples"


@dataclass
class Options:
    """What is measured."""

    policy: str = flag("qwen2.5-0.5b", f"Policy: {', '.join(SHAPES)} (random weights) or {SHORT_NAME}.")
    rows: int = flag(8, "Completions that are decoded at once, 1 or more.")
    group: int = flag(8, "Completions of a prompt, 1 or more; must divide --rows.")
    prompt: int = flag(32, "Tokens of a prompt, 1 or more.")
    new: int = flag(16, "Tokens of a completion, 2 or more.")
    rounds: int = flag(3, "Times that each way is measured, after one that is not; 1 or more.")
    output: OutputStem = flag("outputs/decode_speed", "Path of the results, without extension.")

    def __post_init__(self):
        check_choices(self, policy=(*SHAPES, SHORT_NAME))
        check_least(self, rows=1, group=1, prompt=1, new=2, rounds=1)
        if self.rows % self.group:
            raise UserError(f"--group={self.group} must divide --rows={self.rows}.")


def measure(options: Options) -> dict[str, dict[str, list[float]]]:
    """Seconds to the first token and per further token, of every round by way."""
    device = default_device()
    precision = _precision()
    set_seed(0)
    policy = _policy(options.policy).to(device)
    prompts = torch.randint(5, 1000, (options.rows // options.group, options.prompt), device=device)
    ids = prompts.repeat_interleave(options.group, dim=0)  # (prompts, tokens) -> (rows, tokens)
    usual = policy.forward

    @wraps(usual)
    def forward(*args, **kwargs):
        with precision.autocast():
            return usual(*args, **kwargs)

    policy.forward = forward  # as accelerate leaves it
    around = {EACH: nullcontext, ONE: lambda: cast_once(policy, precision.autocast)}
    found: dict[str, dict[str, list[float]]] = {way: {"first": [], "further": []} for way in around}
    for _ in range(1 + options.rounds):
        for way, context in around.items():
            first, whole = (_seconds(policy, ids, tokens, context) for tokens in (1, options.new))
            found[way]["first"].append(first)
            found[way]["further"].append((whole - first) / (options.new - 1))
    return {way: {part: seconds[1:] for part, seconds in parts.items()} for way, parts in found.items()}


def _precision() -> Precision:
    """That of a run on the device at hand that says nothing about it."""
    device = default_device().type
    return Precision(compute_type(None, False, device), device)


def _policy(name: str) -> PreTrainedModel:
    """The policy that ``--policy`` names, in float32."""
    return load_policy(name).float() if name == SHORT_NAME else random_policy(name, load_tokenizer("tiny"))


def _seconds(policy: PreTrainedModel, ids: torch.Tensor, tokens: int, context) -> float:
    """What a call takes that samples ``tokens`` for each row of ``ids`` (rows, prompt) in that context."""
    start = now()
    with context(), torch.no_grad():
        policy.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            disable_compile=True,
        )
    return now() - start


def table(found: dict[str, dict[str, list[float]]], options: Options) -> str:
    """Medians and ranges of the seconds by way, and how many times as fast as the first."""
    weights = "" if options.policy == SHORT_NAME else ", random weights"
    about = (
        f"{options.policy}{weights}, {NAMES[_precision().compute]}: {options.rows} completions, {options.group} to a "
        f"prompt of {options.prompt} tokens; {options.new - 1} further tokens each."
    )
    heads, rows = ["way"], []
    for seconds in ("s to the first token", "s per further token"):
        heads += [seconds, "all rounds", "times as fast"]
    for way, parts in found.items():
        cells = [way]
        for part, seconds in parts.items():
            median = statistics.median(seconds)
            ratio = statistics.median(found[EACH][part]) / median
            cells += [f"{median:.3f}", f"{min(seconds):.3f} to {max(seconds):.3f}", f"{ratio:.2f}"]
        rows.append(cells)
    return f"{about}\n\n{markdown_table(heads, rows)}"


def main() -> None:
    options = parse_one(Options)
    found = measure(options)
    publish(options.output, table(found, options), {"options": asdict(options), "seconds": found})


if __name__ == "__main__":
    run_cli(main)
