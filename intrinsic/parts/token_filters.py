"""Which response tokens' uncertainty counts towards MERCI's bonus: the paper's three filters, in its order.

Percentile, spatial coherence, noise suppression (dd88s87/MERCI and its paper; the rules inside the last two are ours,
because the paper's are not established). All masks are (B, T) bool, true on tokens that stay or that are noise.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from intrinsic.rollout import Rollout

FILTERS = ("percentile", "coherence", "code", "characters", "repetition")
NGRAM = 8
ALLOWED_REPEATS = 2  # occurrences of an n-gram in one response that are not noise

_CODE_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
# Outside Latin, Greek, combining marks, punctuation, super- and subscripts, currency, letterlike symbols, number
# forms, arrows, mathematical and technical operators, geometric shapes (end of proof), mathematical letters.
_UNUSUAL = re.compile(
    "[^\t\n\r\x20-\x7e\u00a0-\u024f\u0300-\u03ff\u1e00-\u1fff\u2000-\u20cf\u2100-\u23ff\u25a0-\u25ff\u27c0-\u27ff"
    "\u2900-\u2bff\U0001d400-\U0001d7ff]"
)
_PARTIAL = "\ufffd"  # what decoders return for a token that is part of a character's bytes


def top_share(variance: Tensor, mask: Tensor, percent: float) -> Tensor:
    """The ``percent`` % of each response's tokens with the highest ``variance`` (B, T); all of those that tie."""
    values = variance.masked_fill(~mask | ~variance.isfinite(), float("nan"))
    return values >= values.nanquantile(1.0 - percent / 100.0, dim=1, keepdim=True)


def contiguous_runs(kept: Tensor, min_run: int) -> Tensor:
    """The tokens of ``kept`` that lie in a run of at least ``min_run`` of them."""
    if kept.size(1) < min_run:
        return torch.zeros_like(kept)
    starts = kept.unfold(1, min_run, 1).all(dim=-1)
    return torch.stack([functional.pad(starts, (shift, min_run - 1 - shift)) for shift in range(min_run)]).any(dim=0)


def repeated_ngrams(ids: Tensor, mask: Tensor) -> Tensor:
    """Tokens inside an n-gram of `NGRAM` ids that already occurred `ALLOWED_REPEATS` times in the same response."""
    if ids.size(1) < NGRAM + ALLOWED_REPEATS:
        return torch.zeros_like(mask)
    inside = mask.unfold(1, NGRAM, 1).all(dim=-1)
    # Equal n-grams share a 64-bit hash; a stable sort puts their occurrences side by side in order of position.
    factors = torch.randint(1, 2**62, (NGRAM,), generator=torch.Generator().manual_seed(NGRAM)) * 2 + 1
    hashes, order = (ids.unfold(1, NGRAM, 1) * factors.to(ids.device)).sum(dim=-1).sort(dim=1, stable=True)
    late = torch.zeros_like(inside)
    late[:, ALLOWED_REPEATS:] = hashes[:, ALLOWED_REPEATS:] == hashes[:, :-ALLOWED_REPEATS]
    late = torch.zeros_like(inside).scatter(1, order, late) & inside
    return torch.stack([functional.pad(late, (shift, NGRAM - 1 - shift)) for shift in range(NGRAM)]).any(dim=0)


def text_noise(rollout: Rollout, code: bool, characters: bool) -> Tensor:
    """Tokens in fenced code (``code``) or whose text holds a character unusual in mathematics (``characters``).

    Only responses whose text shows either are looked at token by token. Without ``rollout.decode`` no token has a text
    and the result is all false.
    """
    noise = torch.zeros_like(rollout.completion_mask)
    if rollout.decode is None:
        return noise
    for row, text in enumerate(rollout.completions):
        rules = [code and "```" in text, characters and _UNUSUAL.search(text) is not None]
        if any(rules):
            ids = rollout.completion_ids[row][rollout.completion_mask[row]].tolist()
            flags = torch.tensor(_noisy(_text_units(ids, rollout.decode), *rules), dtype=torch.bool)
            noise[row, : len(flags)] = flags.to(noise.device)
    return noise


def _text_units(ids: list[int], decode: Callable[[list[list[int]]], list[str]]) -> list[tuple[int, str]]:
    """(number of tokens, their text) along a response: single tokens, or the tokens that share characters."""
    units: list[tuple[int, str]] = []
    partial: list[int] = []
    for token, piece in zip(ids, decode([[token] for token in ids]), strict=True):
        if _PARTIAL in piece:
            partial.append(token)
            continue
        if partial:
            units.append((len(partial), decode([partial])[0]))
            partial = []
        units.append((1, piece))
    if partial:
        units.append((len(partial), decode([partial])[0]))
    return units


def _noisy(units: list[tuple[int, str]], code: bool, characters: bool) -> list[bool]:
    """One flag per token of ``units``."""
    fences = [match.span() for match in _CODE_FENCE.finditer("".join(text for _, text in units))] if code else []
    flags, start = [], 0
    for count, text in units:
        end = start + len(text)
        fenced = any(start < close and end > opening for opening, close in fences)
        unusual = characters and _UNUSUAL.search(text) is not None
        flags.extend([fenced or unusual] * count)
        start = end
    return flags
