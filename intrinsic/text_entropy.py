"""Memory-R's text entropy (arXiv 2504.02273; removed from the authors' program in May 2025): GRPO plus a reward for
spreading the characters of all that was written more evenly.

Plain GRPO compares the answers of one group only; here a response is judged by what it does to the character
distribution of the past responses. Differences from the authors' program (each on purpose): every response of a batch
is judged against the same past and stored afterwards; the min-max range is one per batch; the raw value is the change
of the entropy in bits, not its level, which drifts with the past and so hides a response's own part (``mode="total"``
brings it back); no separator is counted between texts; an empty response and an empty past pay 0.
"""

import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from common.errors import check_choice, check_number
from intrinsic.parts.past_texts import AgainstPastTexts
from intrinsic.rollout import Rollout

MODES = ("gain", "total")


def character_entropy(counts: Tensor) -> Tensor:
    """Shannon entropy (n,) in bits per character, float64, of character counts (n, A); 0 for a row of zeros."""
    shares = counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.special.entr(shares).sum(dim=1) / math.log(2)


class TextEntropy(AgainstPastTexts):
    """``--use_ir=entropy``: min-max normalised entropy that a response gives to the text of the past, in [0, 1].

    Args:
        mode: "gain", the change of H by the response times the characters of past and response, in bits: after a long
            past about what the response takes beyond the usual in the past's character code; or "total", H of past and
            response, in bits per character.
        texts: past responses that the past consists of.
        window: past raw values in the min-max range, besides the batch.

    Raises `UserError` for an unknown mode, or a size below 1.
    """

    name = "entropy"
    advantage_weight = 2.0

    def __init__(self, mode: str = "gain", texts: int = 1000, window: int = 1000):
        check_choice("entropy_mode", mode, MODES)
        for flag, value in (("entropy_texts", texts), ("entropy_window", window)):
            check_number(flag, value, least=1)
        super().__init__(window)
        self.mode = mode
        self.texts = texts
        self.past: deque[Counter] = deque()
        self.totals: Counter = Counter()

    @classmethod
    def from_options(cls, options) -> "TextEntropy":
        return cls(mode=options.entropy_mode, texts=options.entropy_texts, window=options.entropy_window)

    def raw(self, rollout: Rollout) -> Tensor:
        """Entropy, or what the response adds to it, (B,), float32; NaN for an empty response or without a past."""
        texts = rollout.reasonings
        if not self.past:
            return torch.full((len(texts),), math.nan)
        row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        alphabet = sorted(set(self.totals).union(*row_of))
        past = torch.tensor([[self.totals[character] for character in alphabet]])
        counts = [Counter(text) for text in row_of]
        added = torch.tensor([[count[character] for character in alphabet] for count in counts])
        entropy = character_entropy(past + added)
        if self.mode == "gain":
            # Without the factor the values would shrink as the past grows, and those of a short past set the range.
            entropy = (entropy - character_entropy(past)) * (past + added).sum(dim=1)
        empty = torch.tensor([not text for text in texts])
        return entropy[[row_of[text] for text in texts]].masked_fill(empty, math.nan).float()

    def update(self, rollout: Rollout) -> dict[str, float]:
        """As every bonus of its kind; also "text_entropy" of the past after the update, in bits per character."""
        metrics = super().update(rollout)
        # Sorted, so that a resumed run adds in the same order.
        totals = [self.totals[character] for character in sorted(self.totals)]
        level = character_entropy(torch.tensor([totals], dtype=torch.float64))
        return {"text_entropy": level.item(), **metrics}

    def store(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._store(Counter(text))

    def _store(self, counts: Counter) -> None:
        if len(self.past) == self.texts:
            self.totals -= self.past.popleft()
        self.past.append(counts)
        self.totals += counts

    def state_dict(self) -> dict[str, Any]:
        """Per past text, oldest first: how many distinct characters it has, their code points and counts, in a row."""
        pairs = [sorted(counts.items()) for counts in self.past]
        return {
            "distinct": torch.tensor([len(text) for text in pairs], dtype=torch.int64),
            "code_points": torch.tensor([ord(character) for text in pairs for character, _ in text], dtype=torch.int64),
            "counts": torch.tensor([count for text in pairs for _, count in text], dtype=torch.int64),
            **super().state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.past, self.totals = deque(), Counter()
        pairs = zip(map(chr, state["code_points"].tolist()), state["counts"].tolist(), strict=True)
        for distinct in state["distinct"].tolist():
            self._store(Counter(dict(next(pairs) for _ in range(distinct))))

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "entropy_mode": self.mode,
            "entropy_texts": self.texts,
            "entropy_window": self.window.window,
        }
