"""Which model sizes fit which GPU: the estimate of ``--dry_run`` for the published sizes of Qwen2.5, nothing measured.

python -m benchmarks.fit_table [--prompt 512] [--completion 200] [--completions 256] [--micro_batch 8]

The defaults are an update of run_gsm8k.py with gradient checkpointing. A size fits a GPU if the estimated peak leaves a
tenth of it free.
"""

from dataclasses import asdict, dataclass, field

from transformers import HfArgumentParser, Qwen2Config

from benchmarks.machine import publish
from training.memory_estimate import GIB, Work, estimate
from training.policy import PolicyOptions

# Vocabulary, width, inner width, layers, heads, key-value heads, and whether the head is the embedding.
SIZES = {
    "0.5B": (151_936, 896, 4864, 24, 14, 2, True),
    "1.5B": (151_936, 1536, 8960, 28, 12, 2, True),
    "3B": (151_936, 2048, 11_008, 36, 16, 2, True),
    "7B": (152_064, 3584, 18_944, 28, 28, 4, False),
    "14B": (152_064, 5120, 13_824, 48, 40, 8, False),
}
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

    prompt: int = field(default=512, metadata={"help": "Tokens of the longest prompt."})
    completion: int = field(default=200, metadata={"help": "Most tokens of a completion."})
    completions: int = field(default=256, metadata={"help": "Completions sampled at once."})
    micro_batch: int = field(default=8, metadata={"help": "Completions per forward and backward pass."})
    output: str = field(default="outputs/fit_table", metadata={"help": "Path of the results, without extension."})


def architecture(size: str) -> Qwen2Config:
    """The published shape of that size of Qwen2.5."""
    ids, width, inner, layers, heads, shared_heads, is_tied = SIZES[size]
    return Qwen2Config(
        vocab_size=ids,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=shared_heads,
        tie_word_embeddings=is_tied,
        max_position_embeddings=32_768,
    )


def smallest_card(peak: int) -> str:
    """The smallest GPU that holds ``peak`` bytes and stays free by `FREE_SHARE`."""
    fitting = [card for card in CARDS if peak <= (1 - FREE_SHARE) * card * 1e9]
    return f"{fitting[0]} GB" if fitting else f"more than {CARDS[-1]} GB"


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    lines, peaks = [f"| Qwen2.5 | {' | '.join(WAYS)} |", "|---" * (len(WAYS) + 1) + "|"], {}
    for size in SIZES:
        cells = []
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
            cells.append(f"{peak / GIB:.0f} GiB: {smallest_card(peak)}")
        lines.append(f"| {size} | {' | '.join(cells)} |")
    publish(options.output, "\n".join(lines), {"options": asdict(options), "bytes": peaks})


if __name__ == "__main__":
    main()
