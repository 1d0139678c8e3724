"""Micro-batches that hold whole groups, so that completions of a prompt can share it in one pass.

TRL shuffles a generation batch before it cuts it into micro-batches. The micro-batches whose gradients an update sums
may share out its completions as they like: the sum is the same. TRL's entropy term alone, a mean over the tokens of one
micro-batch, has to be weighed for that.
"""

import torch

from policy.padding import distinct_rows


def update_window(args) -> int:
    """How many micro-batches in a row an update sums whatever they hold, under TRL's settings; 1 for none.

    A loss that looks at all tokens of a micro-batch depends on what stands in it.
    """
    if args.loss_type == "bnpo" or args.top_entropy_quantile < 1.0:
        return 1
    window = min(args.gradient_accumulation_steps, args.steps_per_generation)
    whole = args.steps_per_generation % window == 0 and args.gradient_accumulation_steps % window == 0
    return window if whole else 1


def with_whole_groups(batches: list[dict], window: int) -> list[dict]:
    """``batches`` of one generation, in which every ``window`` of them hold the same rows as before, by prompt.

    Each is what TRL trains on at once: tensors (B, ...) and lists of B values by name, None, and single numbers.
    """
    if window == 1:
        return batches
    windows = [batches[start : start + window] for start in range(0, len(batches), window)]
    return [batch for part in windows for batch in _by_prompt(part)]


def share_of_tokens(inputs: dict, args, processes: int) -> torch.Tensor:
    """Tokens of a micro-batch ``inputs`` over those that a micro-batch of its generation has on average, a number.

    The mean over a micro-batch's tokens times this sums, over the micro-batches and processes of an update, to a mean
    over tokens, as TRL 1.16 normalises its loss "dapo". It is 1 where the generation is one micro-batch.
    """
    tokens = (inputs["completion_mask"] * inputs.get("tool_mask", 1)).sum()
    return tokens * (args.steps_per_generation * processes) / inputs["num_items_in_batch"].clamp(min=1)


def with_gradient_times(values: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """``values``, whose gradient is multiplied by ``factor``: what is logged of them stays what it is."""
    constant = values.detach()
    return constant + factor * (values - constant)


def _by_prompt(batches: list[dict]) -> list[dict]:
    whole = {name: _joined([batch[name] for batch in batches]) for name in batches[0]}
    prompts = whole["prompt_ids"].masked_fill(whole["prompt_mask"] == 0, -1)
    order = torch.argsort(distinct_rows(prompts)[1], stable=True)
    size = len(order) // len(batches)
    return [{name: _taken(value, rows) for name, value in whole.items()} for rows in order.split(size)]


def _joined(values: list):
    """One value of all batches: rows behind each other; what is no row is the same in all."""
    if isinstance(values[0], list):
        return [row for value in values for row in value]
    return torch.cat(values) if _has_rows(values[0]) else values[0]


def _taken(value, rows: torch.Tensor):
    if isinstance(value, list):
        return [value[row] for row in rows.tolist()]
    return value[rows.to(value.device)] if _has_rows(value) else value


def _has_rows(value) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0
