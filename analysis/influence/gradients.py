"""Gradients of completions' log-probabilities on named parameters, one backward per query, sketched where asked.

The per-step influence of BRIDGE (its project page; see docs/influence.md) rests on D_q, the mean gradient of log pi
over a query's right completions minus that over its wrong ones. GRPO never needs D_q apart from the update itself;
here it is kept for each query, so that queries can be compared.
"""

import math
import re
from collections.abc import Iterable, Sequence

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from common.errors import UserError
from policy.load import architecture_of

NUM_LAYERS = 2
SHOWN_NAMES = 4
CHUNK = 1 << 20  # values of all queries that exist in float64 at once


def outline(model_name: str) -> tuple[int, dict[str, int]]:
    """(number of layers, parameter name -> number of values) of a policy, without reading its weights.

    An adapter counts as the base that it will be merged into.
    """
    config = architecture_of(model_name)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return config.get_text_config().num_hidden_layers, sizes


def last_layers_pattern(num_layers: int) -> str:
    """Regex of what writes into the residual stream in the last two layers: attention output and MLP down projection.

    They hold the names of Llama, Qwen, Mistral and Gemma; other architectures need a regex of their own.
    """
    last = "|".join(str(layer) for layer in range(max(0, num_layers - NUM_LAYERS), num_layers))
    return rf"\.layers\.({last})\.(self_attn\.o_proj|mlp\.down_proj)\.weight$"


def select_names(names: Iterable[str], pattern: str) -> list[str]:
    """The parameter names in which ``pattern`` is found, in their order; raises `UserError` when there is none."""
    names = list(names)
    found = [name for name in names if re.search(pattern, name)]
    if not found:
        shown = ", ".join(names[-SHOWN_NAMES:])
        raise UserError(f"--parameters={pattern!r} matches none of the {len(names)} parameters; they end with {shown}.")
    return found


def contrast(correct: Sequence[bool]) -> Tensor:
    """Coefficients (N,) float32 whose weighted sum is mean over right minus mean over wrong completions.

    1 / n for each of the n right ones, -1 / (N - n) for the wrong ones; exactly 0 everywhere when n is 0 or N, where
    GRPO's group advantage is 0 too.
    """
    right = torch.as_tensor(correct, dtype=torch.bool)
    count, wrong = int(right.sum()), int((~right).sum())
    if not count or not wrong:
        return torch.zeros(len(right))
    return torch.where(right, 1.0 / count, -1.0 / wrong)


class CountSketch:
    """A fixed random projection to few dimensions that keeps inner products right on average.

    Each coordinate goes, with a random sign, into one random bucket (Charikar, Chen and Farach-Colton 2002, section 3;
    as feature hashing Weinberger et al. 2009, arXiv:0902.2206, lemma 2): E<Sx, Sy> = <x, y>, with variance
    (|x|^2 |y|^2 + <x, y>^2 - 2 sum_i x_i^2 y_i^2) / dims. It costs O(size) where a Gaussian matrix costs size x dims.

    Args:
        size: length of the vectors.
        dims: number of buckets, 1 or more.
        seed: of buckets and signs; the same seed gives the same projection on every device.
    """

    def __init__(self, size: int, dims: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.dims = dims
        self._buckets = torch.randint(dims, (size,), generator=generator, dtype=torch.int32)
        self._signs = torch.randint(2, (size,), generator=generator, dtype=torch.int8) * 2 - 1

    def __call__(self, vector: Tensor) -> Tensor:
        """(size,) -> (dims,), float32, on the CPU."""
        vector = vector.cpu()
        return torch.zeros(self.dims).index_add_(0, self._buckets, vector.float() * self._signs)


class CompletionGradient:
    """Gradient of a weighted sum of completions' log-probabilities with respect to the named parameters.

    Freezes all other parameters of ``policy``, so that the backward ends at the lowest named layer, and puts it into
    evaluation mode.

    Args:
        policy: the policy; gets TRL's fused output head, so that (B, T, V) logits never exist.
        names: of the parameters, in this order in the gradient.
        temperature: T; log-probabilities are those of softmax(logits / T), from which the completions were sampled.
        batch_size: completions per backward; one backward serves a query with up to this many.
        length_normalized: mean log-probability per token, as in GRPO's loss, instead of their sum, log pi(o|q).
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        names: Sequence[str],
        temperature: float = 1.0,
        batch_size: int = 16,
        length_normalized: bool = True,
    ):
        self.policy = policy.eval().requires_grad_(False)
        parameters = dict(policy.named_parameters())
        self.parameters = [parameters[name].requires_grad_(True) for name in names]
        self.batch_size, self.length_normalized = batch_size, length_normalized
        add_fused_lm_head(policy, temperature=temperature)

    @property
    def size(self) -> int:
        """Number of values in a gradient."""
        return sum(parameter.numel() for parameter in self.parameters)

    def __call__(self, tokens: dict[str, Tensor], coefficients: Tensor) -> Tensor:
        """The gradient (size,), float32, on the policy's device.

        Args:
            tokens: prompt_ids, prompt_mask (B, P) left padded, completion_ids, completion_mask (B, T) right padded.
            coefficients: (B,) weight of each completion; without any weight the gradient is exactly 0, at no cost.
        """
        total = torch.zeros(self.size, device=self.policy.device)
        if not coefficients.any():
            return total
        coefficients = coefficients.to(self.policy.device)
        for start in range(0, len(coefficients), self.batch_size):
            rows = slice(start, start + self.batch_size)
            part = {name: values[rows] for name, values in tokens.items()}
            loss = (coefficients[rows] * self.log_probabilities(**part)).sum()
            gradients = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
            total += torch.cat([gradient.float().flatten() for gradient in gradients])
        return total

    def log_probabilities(self, prompt_ids, prompt_mask, completion_ids, completion_mask) -> Tensor:
        """Log-probability of each completion (B,), or its mean per token where ``length_normalized``."""
        input_ids = torch.cat([prompt_ids, completion_ids], dim=1)
        attention_mask = torch.cat([prompt_mask, completion_mask], dim=1)
        labels = input_ids.masked_fill(~attention_mask, -100)
        labels[:, : prompt_ids.size(1)] = -100
        output = self.policy(
            input_ids=input_ids, attention_mask=attention_mask.long(), labels=labels, fused_lm_head=True
        )
        sums = output.log_probs.float().sum(dim=1)  # zero where the label is -100
        return sums / completion_mask.sum(dim=1).clamp(min=1) if self.length_normalized else sums


def inner_products(rows: Tensor) -> Tensor:
    """(m, P) float32 -> (m, m) float64; sums in float64 over `CHUNK` values at a time, without a copy of ``rows``."""
    products = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in rows.split(math.ceil(CHUNK / len(rows)), dim=1):
        wide = part.double()
        products += wide @ wide.T
    return products
