"""Drawing the next token on a CPU with one random number per row.

``torch.multinomial`` draws a random number for each row and each token of the vocabulary, which for tens of thousands
of tokens is a good part of a decoding step of a small policy. Where one number of a row falls among its cumulative
probabilities says the same: the distribution is that of ``softmax``, the tokens of a seed are others.
"""

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

# Tokens of a vocabulary from which on this is faster. Smaller ones keep the tokens that a seed always drew.
LEAST_VOCABULARY = 16_384
CHUNK = 256  # tokens whose probabilities are summed before a token among them is looked for


def draw(probabilities: Tensor) -> Tensor:
    """A token (B,) from each row of ``probabilities`` (B, V), float32, which need not sum to 1; never one of 0."""
    size, vocabulary = probabilities.shape
    chunks = torch.nn.functional.pad(probabilities, (0, -vocabulary % CHUNK)).view(size, -1, CHUNK)
    mass = chunks.sum(dim=2, dtype=torch.float64)  # (B, V / CHUNK)
    number = torch.rand(size, 1, dtype=torch.float64, device=probabilities.device)
    chunk, left = _place(mass, number)
    inside = chunks[torch.arange(size, device=chunk.device), chunk].double()  # (B, CHUNK)
    return chunk * CHUNK + _place(inside, left)[0]


def _place(mass: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Where ``number`` (B, 1) in [0, 1) falls among the parts (B, n) of a row's mass.

    Returns the part (B,), and how far into it, (B, 1) in [0, 1].
    """
    edges = mass.cumsum(dim=1)
    total = edges[:, -1:]
    wanted = torch.minimum(number * total, torch.nextafter(total, torch.zeros_like(total)))
    part = (edges <= wanted).sum(dim=1)
    chosen = part[:, None]
    size = mass.gather(1, chosen)
    return part, ((wanted - edges.gather(1, chosen)) / size + 1.0).clamp(0.0, 1.0)


class OneNumberDraw(LogitsProcessor):
    """The last processor of scores (B, V): leaves 1 for the token drawn from their softmax, 0 for the others."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        probabilities = scores.softmax(dim=-1)
        token = draw(probabilities)
        return probabilities.zero_().scatter_(1, token[:, None], 1.0)


def sample_by_one_number(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
    """The decoding loop of transformers, as its argument ``custom_generate``, with `draw` for ``torch.multinomial``."""
    if generation_config.do_sample:
        logits_processor = LogitsProcessorList([*logits_processor, OneNumberDraw()])
        generation_config.do_sample = False  # takes the largest score, which is the drawn token's
    return model._sample(input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs)
