"""The text encoder of benchmarks that meet the same texts again and again."""

import torch
from torch import Tensor

from intrinsic.parts.encoder import build_encoder


class CachedEncoder:
    """The encoder ``--encoder=name``: loaded with the first text, and each text is encoded once; as `build_encoder`."""

    def __init__(self, name: str):
        self.name = name
        self.encoder = None
        self.vectors: dict[str, Tensor] = {}

    def __call__(self, texts: list[str]) -> Tensor:
        self.encoder = self.encoder or build_encoder(self.name)
        new = [text for text in dict.fromkeys(texts) if text not in self.vectors]
        if new:
            self.vectors.update(zip(new, self.encoder(new).cpu(), strict=True))
        return torch.stack([self.vectors[text] for text in texts])
