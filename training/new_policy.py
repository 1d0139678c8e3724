"""A new policy sized for a task: a tokenizer trained on its traces, and a Llama-type model with random weights.

python -m training.new_policy --data data/injected.jsonl --hidden_size 256 --layers 6 --output policies/igsm

run_sft.py then trains it from nothing. For tasks whose texts the embedded policy has no words for, such as iGSM.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from common.errors import UserError, check_number, run_cli
from common.flags import check_choices, check_least, flag, parse_one
from tasks.load import refuse_test_sets
from tasks.traces import load_traces
from training.byte_bpe import byte_bpe

SAMPLE = 32  # rows that show whether a tokenizer has words for them
# Where a text is cut before BPE. "digits": for arithmetic, digit by digit. "whole": a number of up to 3 digits is one
# token, and numbers and signs take the space before them: a short text has few tokens, and a copied number is one.
PIECES = {
    "digits": r"\d| ?\p{L}+|\s|[^\d\p{L}\s]",
    "whole": r" ?\d{1,3}| ?\p{L}+| ?[^\d\p{L}\s]|\s",
}


@dataclass
class NewPolicyOptions:
    """What the policy learns its words from, and how large it is."""

    data: str = flag("", "Traces, as for run_sft.py. Needed.")
    output: str = flag("", "Folder for model and tokenizer. Needed, and must be new.")
    vocabulary: int = flag(2048, "Token ids, 300 or more; fewer where the text has fewer.")
    numbers: str = flag("digits", "Tokens of a number: digits (each one) or whole (up to 3).")
    hidden_size: int = flag(256, "Width, a multiple of --heads.")
    layers: int = flag(6, "Layers, 1 or more.")
    heads: int = flag(4, "Attention heads, 1 or more.")
    context: int = flag(2048, "Most tokens of prompt and completion.")
    seed: int = flag(0, "Seed of the weights.")

    def __post_init__(self):
        for name in ("data", "output"):
            if not getattr(self, name):
                raise UserError(f"--{name} is needed.")
        refuse_test_sets(self)
        check_choices(self, numbers=PIECES)
        if Path(self.output).exists():
            raise UserError(f"--output={self.output!r} is there already; give a new folder.")
        check_number("seed", self.seed, least=0, most=2**32 - 1)
        check_least(self, vocabulary=300, layers=1, heads=1, context=8)
        if self.hidden_size < self.heads or self.hidden_size % self.heads:
            raise UserError(f"--hidden_size={self.hidden_size} must be a multiple of --heads={self.heads}.")


def texts(rows: Dataset) -> Iterator[str]:
    """Every text of a conversation that its chat template shows (the system's is not), or the text itself."""
    for row in rows:
        for part in (row["prompt"], row["completion"]):
            if isinstance(part, str):
                yield part
            else:
                yield from (message["content"] for message in part if message["role"] != "system")


def train_tokenizer(rows: Dataset, vocabulary: int, numbers: str = "digits") -> PreTrainedTokenizerFast:
    """Byte-level BPE inside the pieces of `PIECES` that ``numbers`` names; any text survives it."""
    return byte_bpe(PIECES[numbers], texts(rows), vocabulary)


def new_model(tokenizer: PreTrainedTokenizerFast, options: NewPolicyOptions) -> LlamaForCausalLM:
    """The model with random weights from ``options.seed``."""
    set_seed(options.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=options.hidden_size,
            intermediate_size=4 * options.hidden_size,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            num_key_value_heads=options.heads,
            max_position_embeddings=options.context,
            # The default, 0.02, suits widths of thousands. At width 128 a word to be copied from the prompt, one of
            # five, was at chance after 400 updates (-1.62 nats); begun at 1 / sqrt(width) it was not (-0.71).
            initializer_range=options.hidden_size**-0.5,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def spells(tokenizer: PreTrainedTokenizerBase, rows: Dataset) -> bool:
    """Whether ``tokenizer`` has no words for the first of ``rows``: most of their letters are tokens by themselves."""
    letters = alone = 0
    for text in texts(rows.select(range(min(SAMPLE, len(rows))))):
        for piece in tokenizer.batch_decode([[token] for token in tokenizer(text)["input_ids"]]):
            count = sum(map(str.isalpha, piece))
            letters += count
            alone += count == 1
    return alone > letters / 2


def build(rows: Dataset, options: NewPolicyOptions) -> None:
    """Make tokenizer and model for ``rows`` and save both to ``options.output``."""
    tokenizer = train_tokenizer(rows, options.vocabulary, options.numbers)
    model = new_model(tokenizer, options)
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    size = f"{model.num_parameters() / 1e6:.1f} million parameters, {len(tokenizer)} token ids"
    print(f"new policy: {options.output} ({size})", flush=True)


def main() -> None:
    options = parse_one(NewPolicyOptions)
    build(load_traces(options.data, "train"), options)


if __name__ == "__main__":
    run_cli(main)
