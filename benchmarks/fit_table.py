"""Which model sizes fit which GPU: the estimate of ``--dry_run`` for the published sizes of Qwen2.5, nothing measured.

python -m benchmarks.fit_table [--prompt 512] [--completion 200] [--completions 256] [--micro_batch 8]

The defaults are an update of run_gsm8k.py with gradient checkpointing. A size fits a GPU if the estimated peak leaves a
tenth of it free.
"""

from dataclasses import asdict, dataclass

from benchmarks.machine import publish
from benchmarks.shapes import SHAPES, architecture
from common.devices import GIB
from common.errors import run_cli
from common.flags import OutputStem, check_least, flag, parse_one
from common.markdown import markdown_table
from policy.options import PolicyOptions
from training.fit.estimate import Work, estimate

SIZES = [name for name in SHAPES if name.startswith("qwen2.5")]
# What is trained -> flags of the policy, and whether the KL penalty takes a reference model.
WAYS = {
    "full, float32, with KL penalty": (PolicyOptions(dtype="float32"), True),
    "full, float32, --beta 0": (PolicyOptions(dtype="float32"), False),
    "--lora, bfloat16": (PolicyOptions(lora=True, dtype="bfloat16"), False),
}
CARDS = (16, 24, 40, 80)
FREE_SHARE = 0.1


@dataclass
class Options:
    """The shapes of a training step."""

    prompt: int = flag(512, "Tokens of the longest prompt, 1 or more.")
    completion: int = flag(200, "Most tokens of a completion, 1 or more.")
    completions: int = flag(256, "Completions sampled at once, 1 or more.")
    micro_batch: int = flag(8, "Completions per forward and backward pass, 1 or more.")
    output: OutputStem = flag("outputs/fit_table", "Path of the results, without extension.")

    def __post_init__(self):
        check_least(self, prompt=1, completion=1, completions=1, micro_batch=1)


def smallest_card(peak: int) -> str:
    """The smallest GPU that holds ``peak`` bytes and stays free by `FREE_SHARE`."""
    fitting = [card for card in CARDS if peak <= (1 - FREE_SHARE) * card * 1e9]
    return f"{fitting[0]} GB" if fitting else f"more than {CARDS[-1]} GB"


def main() -> None:
    options = parse_one(Options)
    rows, peaks = [], {}
    for size in SIZES:
        rows.append([size.removeprefix("qwen2.5-").upper()])
        for way, (policy, reference) in WAYS.items():
            work = Work(
                micro_batch=options.micro_batch,
                generation_batch=options.completions,
                num_generations=16,
                prompt=options.prompt,
                completion=options.completion,
                bfloat16=True,
                checkpointing=True,
                device="cuda",
                attention=None,
                reference=reference,
            )
            peak = peaks[f"{size}, {way}"] = estimate(architecture(size), policy, work).peak
            rows[-1].append(f"{peak / GIB:.0f} GiB: {smallest_card(peak)}")
    publish(options.output, markdown_table(["Qwen2.5", *WAYS], rows), {"options": asdict(options), "bytes": peaks})


if __name__ == "__main__":
    run_cli(main)
