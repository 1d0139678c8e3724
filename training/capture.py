"""Token features at no extra forward pass: read off while the policy generates.

Every decoding step computes the final-norm output and the logits that the sampled token comes from. Two hooks keep the
first and reduce the second to three numbers per token, so (B, T, V) logits never exist.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from training.features import Head


class GenerationCapture:
    """Features of the tokens that ``model.generate`` samples, for Hugging Face generation of one batch at a time.

    Args:
        model: the unwrapped policy, an adapter on it or not.
        temperature: sampling temperature T; the features are those of softmax(logits / T).
        keep_hidden: whether "hidden" is asked for; (B, T, H) float32 is kept only then.
    """

    def __init__(self, model, temperature: float, keep_hidden: bool):
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.temperature = temperature
        self.keep_hidden = keep_hidden
        self.head = Head.of(model)
        self._steps: list[dict[str, Tensor]] = []

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """While open, each forward of the policy adds the distribution of one next token per sequence."""
        self._steps = []
        hooks = [
            self.model.base_model.register_forward_hook(self._keep_states),
            self.model.register_forward_hook(self._keep_statistics),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _keep_states(self, module, args, output) -> None:
        self._steps.append({"hidden": output[0][:, -1].float()})

    def _keep_statistics(self, module, args, output) -> None:
        logits = output.logits[:, -1].float() / self.temperature
        logsumexp = logits.logsumexp(dim=-1)
        self._steps[-1] |= {
            "logsumexp": logsumexp,
            "mean": logits.mean(dim=-1),
            "entropy": logsumexp - (logits * (logits - logsumexp[:, None]).exp()).sum(dim=-1),
        }

    def features(self, completion_ids: Tensor, completion_mask: Tensor) -> dict[str, Tensor]:
        """`training.features.TOKEN_FEATURES` of the batch captured last, float32, zero on padding.

        ``completion_ids`` (B, T) are the sampled tokens, right padded, ``completion_mask`` (B, T) bool. Empties the
        capture. "hidden" is missing unless it was to be kept.
        """
        length = completion_ids.size(1)
        steps, self._steps = self._steps[:length], []
        mask = completion_mask.float()
        stacked = {name: torch.stack([step[name] for step in steps], dim=1) for name in steps[0]}
        output_head = self.model.get_output_embeddings()
        target_logit = self.head.logits_of(stacked["hidden"], completion_ids, output_head) / self.temperature
        uniform = math.log(output_head.weight.size(0))
        features = {
            "logps": (target_logit - stacked["logsumexp"]) * mask,
            "entropy": stacked["entropy"] * mask,
            "self_certainty": (stacked["logsumexp"] - stacked["mean"] - uniform) * mask,
        }
        if self.keep_hidden:
            features["hidden"] = stacked["hidden"] * mask[..., None]
        return features
