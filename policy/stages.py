"""Sampling in stages: after some tokens only the unfinished completions go on, in a smaller batch.

Hugging Face generation decodes every completion until the longest has ended. On a CPU a decoding step costs nearly as
much per completion, and most of them are short. The next stage takes over the keys and values of the rows that go on
(`StageCache`); a policy with a cache of its own reads prompt and completion so far again, in one forward pass. The
tokens come from the same distributions. On an accelerator, where a step costs little more for many completions than
for few, this gains nothing.
"""

from collections.abc import Collection, Sequence

import torch
from transformers import GenerationConfig

from policy.growing_cache import GrowingCache
from policy.slices import Generate

# STAGE: tokens of the first stage, and of each that takes over keys and values, as copying those of the rows that go on
# costs as much as a decoding step or two. Stages that read everything again end at FIRST_STAGE tokens, then each has as
# many as there were before.
STAGE, FIRST_STAGE = 16, 48
# Settings of generation under which a token depends on the tokens before it alone, whether prompt or completion. Others
# look at where the prompt ends, at the most tokens of the call, or keep a state: a stage would change what they do.
_LENGTH_AND_END = "max_length max_new_tokens pad_token_id bos_token_id eos_token_id decoder_start_token_id"
_SAMPLING = (
    "do_sample temperature top_k top_p min_p top_h typical_p epsilon_cutoff eta_cutoff renormalize_logits "
    "repetition_penalty no_repeat_ngram_size bad_words_ids suppress_tokens sequence_bias remove_invalid_values"
)
_MECHANICS = (
    "use_cache cache_implementation cache_config max_cache_len low_memory compile_config disable_compile "
    "output_attentions output_hidden_states output_scores output_logits return_dict_in_generate "
    "transformers_version"
)
STAGEABLE = frozenset(f"{_LENGTH_AND_END} {_SAMPLING} {_MECHANICS}".split())


def allows_stages(config: GenerationConfig) -> bool:
    """Whether completions sampled in stages have the distribution of those sampled in one go under ``config``."""
    neutral = config._get_default_generation_params()  # what ``generate`` takes where nothing is set
    settings = {name: value for name, value in vars(config).items() if name not in STAGEABLE and name[0] != "_"}
    return all(value is None or value == neutral.get(name) for name, value in settings.items())


class StageCache:
    """Keys and values that one call of ``generate`` leaves to the next, which goes on with some of its rows.

    Attributes:
        rows: numbers of the completions that the next call samples; none where no call goes on with another's.
    """

    rows: Sequence[int] = ()

    def __init__(self):
        self._left: tuple[Sequence[int], GrowingCache] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the last call left nothing."""
        return self._left is None

    def leave(self, cache) -> None:
        """Keep the cache that a call for `rows` has filled; those of other kinds are not kept."""
        self._left = (self.rows, cache) if self.rows and isinstance(cache, GrowingCache) else None

    def take(self, asked: dict) -> GrowingCache | None:
        """What the last call left for ``generate(**asked)``: all of its tokens but the newest; None where it did not.

        Nothing stays here. The tokens are left padded; columns in which no row that goes on has a token are dropped.
        """
        if self._left is None:
            return None
        (before, cache), self._left = self._left, None
        place, tokens = {row: index for index, row in enumerate(before)}, asked["input_ids"]
        padding = cache.get_seq_length() - (tokens.size(1) - 1)
        if padding < 0 or not place.keys() >= set(self.rows):
            return None
        cache.go_on_with(torch.tensor([place[row] for row in self.rows], device=tokens.device), padding)
        return cache


def in_stages(generate: Generate, end_ids: Collection[int], left: StageCache) -> Generate:
    """``generate`` in calls for fewer and fewer rows: those whose completions go on.

    Args:
        generate: (row numbers, their token ids to go on from, most new tokens) -> new token ids, up to the end token.
        end_ids: tokens that end a completion.
        left: what a call leaves to the next.
    """

    def staged(rows: Sequence[int], ids: list[list[int]], most: int) -> list[list[int]]:
        completions: list[list[int]] = [[] for _ in rows]
        unfinished, done, size = list(range(len(rows))), 0, STAGE
        while unfinished and done < most:
            size = min(size, most - done)
            left.rows = [rows[index] for index in unfinished]
            parts = generate(left.rows, [ids[index] + completions[index] for index in unfinished], size)
            for index, part in zip(unfinished, parts, strict=True):
                completions[index] += part
            unfinished = [index for index in unfinished if completions[index][-1] not in end_ids]
            done += size
            size = max(FIRST_STAGE - done, done) if left.is_empty else STAGE
        return completions

    return staged
