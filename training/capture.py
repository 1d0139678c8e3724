"""Token features at no extra forward pass: read off while the policy generates.

Every decoding step computes the final-norm output and the logits that the sampled token comes from. Two hooks reduce
them to four numbers per token, so (B, T, V) logits never exist, nor (B, T, H) states unless a bonus needs them.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from training.features import Head
from training.policy import base_of


class _Stage(NamedTuple):
    """What one call of ``generate`` gave: its rows of the batch, and for each of its tokens the statistics (b, ...)."""

    rows: list[int]
    steps: list[dict[str, Tensor]]


def _joined(stages: list[_Stage], size: int, length: int) -> dict[str, Tensor]:
    """Each statistic as (size, length, ...): one stage behind the other, 0 where there is nothing."""
    first = stages[0].steps[0]
    joined = {name: value.new_zeros(size, length, *value.shape[1:]) for name, value in first.items()}
    start = 0
    for rows, steps in stages:
        # Generation that ran on behind the longest completion leaves steps that belong to no token.
        steps = steps[: length - start]
        for name, whole in joined.items():
            whole[rows, start : start + len(steps)] = torch.stack([step[name] for step in steps], dim=1)
        start += len(steps)
    return joined


class GenerationCapture:
    """Features of the tokens that ``model.generate`` samples, for Hugging Face generation, one batch after the other.

    Args:
        model: the unwrapped policy, an adapter on it or not.
        temperature: sampling temperature T; the features are those of softmax(logits / T).
        keep_hidden: whether "hidden" is asked for; states (B, T, H) float32 are kept only then.
    """

    def __init__(self, model, temperature: float, keep_hidden: bool):
        self.model = base_of(model)
        self.temperature = temperature
        self.keep_hidden = keep_hidden
        self.head = Head.of(model)
        self._stages: list[_Stage] = []

    @contextmanager
    def capturing(self, rows: Sequence[int]) -> Iterator[None]:
        """While open, each forward of the policy adds the distribution of one next token of each of ``rows``.

        ``rows`` are numbers of completions in the batch. A further stage of the same batch goes on where the last one
        stopped.
        """
        self._stages.append(_Stage(list(rows), []))
        hooks = [
            self.model.base_model.register_forward_hook(self._keep_states),
            self.model.register_forward_hook(self._keep_statistics, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _keep_states(self, module, args, output) -> None:
        self._stages[-1].steps.append({"hidden": output[0][:, -1].float()})

    def _keep_statistics(self, module, args, inputs, output) -> None:
        steps = self._stages[-1].steps
        if len(steps) > 1:  # what is read now was drawn from the step before
            self._add_target_logit(steps[-2], inputs["input_ids"][:, -1])
        logits = output.logits[:, -1].float() / self.temperature
        logsumexp = logits.logsumexp(dim=-1)
        steps[-1] |= {
            "logsumexp": logsumexp,
            "mean": logits.mean(dim=-1),
            "entropy": logsumexp - (logits * (logits - logsumexp[:, None]).exp()).sum(dim=-1),
        }

    def _add_target_logit(self, step: dict[str, Tensor], tokens: Tensor) -> None:
        """Complete ``step`` with the logit (b,) of ``tokens`` (b,), for which alone it holds the states until then."""
        hidden = step["hidden"] if self.keep_hidden else step.pop("hidden")
        logits = self.head.logits_of(hidden[:, None], tokens[:, None], self.model.get_output_embeddings())
        step["target_logit"] = logits[:, 0] / self.temperature

    def features(self, completion_ids: Tensor, completion_mask: Tensor) -> dict[str, Tensor]:
        """`training.features.TOKEN_FEATURES` of the batch captured last, float32, zero on padding.

        ``completion_ids`` (B, T) are the sampled tokens, right padded, ``completion_mask`` (B, T) bool. Empties the
        capture. "hidden" is missing unless it was to be kept.
        """
        stages, self._stages = self._stages, []
        end = 0
        for rows, steps in stages:
            end += len(steps)
            self._add_target_logit(steps[-1], completion_ids[rows, min(end, completion_ids.size(1)) - 1])
        mask = completion_mask.float()
        stacked = _joined(stages, *completion_ids.shape)
        uniform = math.log(self.model.get_output_embeddings().weight.size(0))
        features = {
            "logps": (stacked["target_logit"] - stacked["logsumexp"]) * mask,
            "entropy": stacked["entropy"] * mask,
            "self_certainty": (stacked["logsumexp"] - stacked["mean"] - uniform) * mask,
        }
        if self.keep_hidden:
            features["hidden"] = stacked["hidden"] * mask[..., None]
        return features
