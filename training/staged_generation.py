"""Sampling in stages: after some tokens only the unfinished completions go on, in a smaller batch.

Hugging Face generation decodes every completion until the longest has ended. On a CPU a decoding step costs nearly as
much per completion, and most of them are short. A stage reads prompt and completion so far again, in one forward pass;
the tokens come from the same distributions. On an accelerator, where a step costs little more for many completions than
for few, this gains nothing.
"""

from collections.abc import Callable, Collection

FIRST_STAGE = 48


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
