"""The shared feature pass: one no-grad forward per generation batch serves every bonus, without (B, T, V) logits.

With h the final-norm output at the position that predicts token y, W the output embedding and T the sampling
temperature, ``logsumexp = h.W[y]/T - logp(y)`` and ``mean logit = h.mean(W)/T``, so self-certainty, the KL divergence
from the uniform distribution over the vocabulary, costs two dot products per token.
"""

import math

import torch
from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import pad

from training.errors import UserError

TOKEN_FEATURES = frozenset({"hidden", "logps", "self_certainty", "entropy"})
_HEAD_TRANSFORMS = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)


def pad_tokens(sequences: list[list[int]], side: str, padding_value: int, device) -> tuple[Tensor, Tensor]:
    """Token lists to (B, L) ids and bool mask, padded on ``side``."""
    ids = pad([torch.tensor(s, dtype=torch.long) for s in sequences], padding_value=padding_value, padding_side=side)
    mask = pad([torch.ones(len(s), dtype=torch.bool) for s in sequences], padding_value=0, padding_side=side)
    return ids.to(device), mask.to(device)


def check_head(model) -> None:
    """Raise `UserError` when the output head is not a plain projection, on which the identity above rests."""
    config = model.config.get_text_config()
    found = [name for name in _HEAD_TRANSFORMS if getattr(config, name, None) not in (None, 1.0)]
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        found.append("head bias")
    if found:
        raise UserError(
            f"self-certainty needs a plain output head, but this model has {', '.join(found)}; use another "
            "--model_name or a bonus that does not need it."
        )


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

    @torch.no_grad()
    def __call__(self, prompt_ids, prompt_mask, completion_ids, completion_mask, autocast) -> dict[str, Tensor]:
        """All of `TOKEN_FEATURES`, float32, zero on padding: (B, T), and (B, T, H) for "hidden".

        ``prompt_ids`` (B, P) are left padded, ``completion_ids`` (B, T) right padded, masks are bool; ``autocast`` is
        the context manager factory under which the policy runs.
        """
        chunks = []
        with disable_gradient_checkpointing(self.model, None):
            for start in range(0, len(prompt_ids), self.batch_size):
                rows = slice(start, start + self.batch_size)
                with autocast():
                    chunks.append(
                        self._chunk(prompt_ids[rows], prompt_mask[rows], completion_ids[rows], completion_mask[rows])
                    )
        return {name: torch.cat([chunk[name] for chunk in chunks]) for name in TOKEN_FEATURES}

    def _chunk(self, prompt_ids, prompt_mask, completion_ids, completion_mask) -> dict[str, Tensor]:
        length = completion_ids.size(1)
        input_ids = torch.cat([prompt_ids, completion_ids], dim=1)
        attention_mask = torch.cat([prompt_mask, completion_mask], dim=1)
        labels = input_ids.masked_fill(~attention_mask, -100)
        labels[:, :-length] = -100
        captured = []
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        hook = base.base_model.register_forward_hook(lambda module, args, output: captured.append(output[0]))
        try:
            output = self.model(
                input_ids=input_ids, attention_mask=attention_mask.long(), labels=labels, fused_lm_head=True
            )
        finally:
            hook.remove()
        hidden = captured[0][:, -length - 1 : -1].float()
        logps = output.log_probs[:, -length:].float()
        mask = completion_mask.float()
        return {
            "hidden": hidden * mask[..., None],
            "logps": logps * mask,
            "entropy": output.entropy[:, -length:].float() * mask,
            "self_certainty": self._self_certainty(hidden, logps, completion_ids) * mask,
        }

    def _self_certainty(self, hidden: Tensor, logps: Tensor, tokens: Tensor) -> Tensor:
        weight = self.model.get_output_embeddings().weight.float()
        target_logit = (hidden * weight[tokens]).sum(dim=-1) / self.temperature
        mean_logit = hidden @ weight.mean(dim=0) / self.temperature
        return target_logit - logps - mean_logit - math.log(weight.size(0))
