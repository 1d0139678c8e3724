"""The shared feature pass: one no-grad forward per generation batch serves every bonus, without (B, T, V) logits.

With h the final-norm output at the position that predicts token y, W the output embedding and T the sampling
temperature, ``logsumexp = h.W[y]/T - logp(y)`` and ``mean logit = h.mean(W)/T``, so self-certainty, the KL divergence
from the uniform distribution over the vocabulary, costs two dot products per token. A head with bias, soft-capping or
scaling takes a slower path through the logits of a few tokens at a time.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing

from common.sharding import final_states, most_passes, whole_head
from policy.buckets import buckets_of, completion_lengths
from policy.load import base_of
from policy.precision import compute_dtype
from policy.shared_prompts import Scores, score_shared, shared_passes, shares_prompts

MEAN_HIDDEN = "mean_hidden"  # the one feature of a completion as a whole, (B, H)
TOKEN_FEATURES = frozenset({"hidden", MEAN_HIDDEN, "logps", "self_certainty", "entropy"})
# Of the policy as it was before training -> the feature it is on that policy.
FROZEN_FEATURES = {
    "frozen_hidden": "hidden",
    f"frozen_{MEAN_HIDDEN}": MEAN_HIDDEN,
    "frozen_self_certainty": "self_certainty",
}
CHUNK_TOKENS = 256  # whose logits exist at once on the chunked path


def mean_state(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens in ``mask`` (B, T) of ``hidden`` (B, T, H), float32 (B, H); zeros where there is none."""
    total = (hidden.float() * mask[..., None]).sum(dim=1)  # (B, T, H) -> (B, H)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class Head:
    """What an output head does beside the projection: ``softcap * tanh(scale * (h.W + bias) / softcap)``."""

    scale: float
    softcap: float | None
    has_bias: bool

    @classmethod
    def of(cls, model) -> "Head":
        """The head of a causal language model, read from the config entries that TRL 1.16's fused head knows too."""
        config = model.config.get_text_config()
        names = ("logit_scale", "output_multiplier", "lm_head_multiplier")
        scale = next((getattr(config, name) for name in names if getattr(config, name, None) is not None), None)
        divisor = getattr(config, "logits_scaling", None)
        if scale is None and divisor is not None:
            scale = divisor if config.model_type == "hyperclovax" else 1 / divisor
        bias = getattr(model.get_output_embeddings(), "bias", None)
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(1.0 if scale is None else scale, softcap, bias is not None)

    @property
    def is_plain(self) -> bool:
        """Whether the head is a projection alone, for which self-certainty needs no logits."""
        return self == Head(1.0, None, False)

    def finish(self, projected: Tensor) -> Tensor:
        """Logits of what the projection and the bias give."""
        logits = projected.float() * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def logits_of(self, hidden: Tensor, tokens: Tensor, output_head) -> Tensor:
        """The logit (B, T) of each of ``tokens`` (B, T), from the hidden states (B, T, H) that predict them."""
        projected = (hidden * output_head.weight[tokens].float()).sum(dim=-1)
        return self.finish(projected + output_head.bias[tokens] if self.has_bias else projected)


class FeaturePass:
    """Final-norm hidden states, log-probs, entropy and self-certainty of sampled tokens.

    Args:
        model: the unwrapped policy, with TRL's fused head (`trl.trainer.utils.add_fused_lm_head`) on it.
        temperature: sampling temperature T; log-probs, entropy and self-certainty are those of softmax(logits / T).
        batch_size: completions per forward.
    """

    def __init__(self, model, temperature: float, batch_size: int):
        self.model = model
        self.temperature = temperature
        self.batch_size = batch_size
        self.head = Head.of(model)

    @torch.no_grad()
    def __call__(
        self,
        prompt_ids,
        prompt_mask,
        completion_ids,
        completion_mask,
        autocast,
        names: Collection[str] = TOKEN_FEATURES,
    ) -> dict[str, Tensor]:
        """The features of `TOKEN_FEATURES` in ``names``, float32, zero on padding: (B, T), or of states as follows.

        "hidden" is (B, T, H) in the type that the pass computes in (`compute_dtype`), "mean_hidden" (B, H) its mean
        over the completion's tokens, taken in float32 before anything is rounded or put together.

        ``prompt_ids`` (B, P) are left padded, ``completion_ids`` (B, T) right padded, masks are bool; ``autocast`` is
        the context manager factory under which the policy runs.
        """
        shared = shared_passes(prompt_ids, prompt_mask, self.batch_size) if shares_prompts(self.model) else None
        if shared:
            lengths = completion_lengths(completion_mask)
            buckets = [(rows, max(lengths[row] for row in rows)) for rows in shared]
        else:
            buckets = [
                (rows[start : start + self.batch_size], longest)
                for rows, longest in buckets_of(completion_mask, prompt_ids.size(1))
                for start in range(0, len(rows), self.batch_size)
            ]
        passes = most_passes(self.model, len(buckets), completion_ids.device)
        head = whole_head(self.model) if "self_certainty" in names else None
        found: dict[str, Tensor] = {}
        with disable_gradient_checkpointing(self.model, None):
            # Passes beyond its own a process makes for the others alone, over its shortest completions.
            for rows, longest in buckets + [buckets[0]] * (passes - len(buckets)):
                completions = completion_ids[rows, :longest], completion_mask[rows, :longest]
                tokens = prompt_ids[rows], prompt_mask[rows], *completions
                with autocast():
                    chunk = self._chunk(tokens, names, head, score_shared if shared else score_rows)
                for name in names:
                    _put(chunk[name], name, rows, completion_ids.shape, found)
        return found

    def _chunk(self, tokens: tuple[Tensor, ...], names, head, score) -> dict[str, Tensor]:
        """The features of one pass over ``tokens``, prompts and completions with their masks, by ``score``."""
        completion_ids, completion_mask = tokens[2:]
        needs_head = not set(names) <= {"hidden", MEAN_HIDDEN}
        needs_states = not set(names) <= {"logps", "entropy"}
        scores = score(self.model, *tokens, head=needs_head, states=needs_states)
        features = _of_states(scores.states, completion_mask, names)
        if not needs_head:  # which may be a third of the work
            return features
        mask, logps = completion_mask.float(), scores.logps.float()
        features["logps"] = logps * mask
        if "entropy" in names:
            features["entropy"] = scores.entropy.float() * mask
        if "self_certainty" in names:
            hidden = scores.states.float()
            features["self_certainty"] = self._self_certainty(hidden, logps, completion_ids, head) * mask
        return features

    def _self_certainty(self, hidden: Tensor, logps: Tensor, tokens: Tensor, output_head) -> Tensor:
        """Self-certainty (B, T) of ``hidden`` (B, T, H), outside autocast, which would round the mean logit."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self._self_certainty_of(hidden, logps, tokens, output_head)

    def _self_certainty_of(self, hidden: Tensor, logps: Tensor, tokens: Tensor, output_head) -> Tensor:
        if not self.head.is_plain:
            return torch.stack([self._from_logits(row, output_head) for row in hidden])
        target_logit = self.head.logits_of(hidden, tokens, output_head) / self.temperature
        mean_logit = hidden @ output_head.weight.mean(dim=0, dtype=torch.float32) / self.temperature
        return target_logit - logps - mean_logit - math.log(output_head.weight.size(0))

    def _from_logits(self, hidden: Tensor, output_head) -> Tensor:
        """Self-certainty (T,) of hidden states (T, H) through the logits of `CHUNK_TOKENS` tokens at a time."""
        parts = []
        for chunk in hidden.split(CHUNK_TOKENS):
            logits = self.head.finish(output_head(chunk.to(output_head.weight.dtype))) / self.temperature
            parts.append(logits.logsumexp(dim=-1) - logits.mean(dim=-1) - math.log(logits.size(-1)))
        return torch.cat(parts)


def score_rows(
    model, prompt_ids, prompt_mask, completion_ids, completion_mask, head: bool = True, states: bool = False
) -> Scores:
    """`policy.shared_prompts.score_shared` with a row for each completion, its prompt before it."""
    length = completion_ids.size(1)
    input_ids = torch.cat([prompt_ids, completion_ids], dim=1)
    attention_mask = torch.cat([prompt_mask, completion_mask], dim=1)
    backbone = base_of(model).base_model
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask.long(), "use_cache": False}
    if not head:
        return Scores(None, None, final_states(model, backbone, **inputs)[:, -length - 1 : -1])
    labels = input_ids.masked_fill(~attention_mask, -100)
    labels[:, :-length] = -100
    captured = []
    hook = backbone.register_forward_hook(lambda module, args, output: captured.append(output[0]))
    try:
        output = model(**inputs, labels=labels, fused_lm_head=True)
    finally:
        hook.remove()
    return Scores(
        logps=output.log_probs[:, -length:],
        entropy=None if output.entropy is None else output.entropy[:, -length:],
        states=captured[0][:, -length - 1 : -1] if states else None,
    )


def _of_states(states: Tensor | None, mask: Tensor, names: Collection[str]) -> dict[str, Tensor]:
    """Those of ``names`` that are made of ``states`` (b, t, H) alone, given the (b, t) mask."""
    found = {}
    if "hidden" in names:
        found["hidden"] = states.to(compute_dtype(states)).masked_fill(~mask[..., None], 0.0)
    if MEAN_HIDDEN in names:
        found[MEAN_HIDDEN] = mean_state(states, mask)
    return found


def _put(part: Tensor, name: str, rows: list[int], shape: torch.Size, found: dict[str, Tensor]) -> None:
    """Write ``part``, the feature ``name`` of ``rows``, into ``found[name]`` of a batch of ``shape`` (B, T).

    (b, t, ...) goes into (B, T, ...), "mean_hidden" (b, H) into (B, H): no second copy of a batch's states is made.
    """
    per_token = name != MEAN_HIDDEN
    if name not in found:
        found[name] = part.new_zeros(shape[0], *(shape[1:] if per_token else ()), *part.shape[1 + per_token :])
    if per_token:
        found[name][rows, : part.size(1)] = part
    else:
        found[name][rows] = part
