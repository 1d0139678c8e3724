"""Sampling in stages: after some tokens only the unfinished completions go on, in a smaller batch.

Hugging Face generation decodes every completion until the longest has ended. On a CPU a decoding step costs nearly as
much per completion, and most of them are short. A stage reads prompt and completion so far again, in one forward pass;
the tokens come from the same distributions. On an accelerator, where a step costs little more for many completions than
for few, this gains nothing.
"""

from collections.abc import Callable, Collection

from transformers import GenerationConfig

FIRST_STAGE = 48
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


def stage_sizes(length: int) -> list[int]:
    """Most tokens of each stage, which add up to ``length``: `FIRST_STAGE`, then as many again as there were before."""
    sizes = [min(FIRST_STAGE, length)]
    while sum(sizes) < length:
        sizes.append(min(sum(sizes), length - sum(sizes)))
    return sizes


def in_stages(
    generate: Callable[[list[int], list[list[int]], int], list[list[int]]],
    prompt_ids: list[list[int]],
    length: int,
    end_ids: Collection[int],
) -> list[list[int]]:
    """A completion of up to ``length`` tokens for each prompt.

    Args:
        generate: (row numbers, their token ids to go on from, most new tokens) -> new token ids, up to the end token.
        end_ids: tokens that end a completion.
    """
    completions: list[list[int]] = [[] for _ in prompt_ids]
    unfinished = list(range(len(prompt_ids)))
    for size in stage_sizes(length):
        parts = generate(unfinished, [prompt_ids[row] + completions[row] for row in unfinished], size)
        for row, part in zip(unfinished, parts, strict=True):
            completions[row] += part
        unfinished = [row for row in unfinished if completions[row][-1] not in end_ids]
        if not unfinished:
            break
    return completions
