"""The networks of random network distillation: on token ids (i-MENTOR's code) and on pooled hidden states (ours)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from intrinsic.parts.networks import cloned, load_optimizer_state, mlp, optimizer_state
from intrinsic.parts.states import StateScale

CLIP = 5.0  # deviations of a standardised hidden state
PROBE_ROWS = 16  # sequences on which the drift of the target is watched


def default_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """`nn.Linear` with PyTorch's default distribution of weights and biases, drawn from ``generator``."""
    layer = skip_init(nn.Linear, inputs, outputs)
    bound = 1.0 / math.sqrt(inputs)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


class TokenRND(nn.Module):
    """i-MENTOR's network (its code, ``RNDModel``): ids -> embedding -> flat -> batch norm -> two scalar networks.

    Embedding and batch norm are trained through the predictor and feed the target too, so the target drifts: that is
    the reference, not a defect of this copy.

    Args:
        vocab_size: number of token ids.
        length: tokens per sequence, prompt and response together.
        embedding_dim: width of an embedding.
        widths: hidden widths of target and predictor.
    """

    def __init__(
        self,
        vocab_size: int,
        length: int,
        generator: torch.Generator,
        embedding_dim: int = 16,
        widths: Sequence[int] = (16, 8),
    ):
        super().__init__()
        self.embedding = skip_init(nn.Embedding, vocab_size, embedding_dim)
        nn.init.normal_(self.embedding.weight, generator=generator)
        # Always normalises by the batch; running statistics would never be read.
        self.batch_norm = nn.BatchNorm1d(length * embedding_dim, track_running_stats=False)
        self.target = self._head((length * embedding_dim, *widths, 1), generator)
        self.predictor = self._head((length * embedding_dim, *widths, 1), generator)

    @staticmethod
    def _head(sizes: Sequence[int], generator: torch.Generator) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [default_linear(inputs, outputs, generator), nn.LeakyReLU()]
        return nn.Sequential(*layers[:-1], nn.Sigmoid())

    def encode(self, ids: Tensor) -> Tensor:
        """Normalised flat embeddings (B, length * embedding_dim) of ``ids`` (B, length); needs B of 2 or more."""
        return self.batch_norm(self.embedding(ids).flatten(start_dim=1))

    def forward(self, ids: Tensor) -> Tensor:
        """(target - predictor)^2 of each sequence, (B,)."""
        inputs = self.encode(ids)
        with torch.no_grad():
            target = self.target(inputs)
        return (target - self.predictor(inputs)).square().squeeze(1)


class TokenDistillation:
    """`TokenRND` with its optimiser: one AdamW step per batch on the mean error of all its sequences.

    Args:
        device: where the networks live.
        lr, weight_decay: of AdamW.
        seed: of the weights; draws from no other random state.
    """

    def __init__(self, vocab_size: int, length: int, device, lr: float, weight_decay: float, seed: int):
        self.vocab_size = vocab_size
        self.network = TokenRND(vocab_size, length, torch.Generator().manual_seed(seed)).to(device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=lr, weight_decay=weight_decay)
        self.probe: Tensor | None = None
        self.probe_target: Tensor | None = None

    @property
    def sizes(self) -> list[int]:
        """What it was built for, to build it again before loading."""
        return [self.vocab_size, self.network.batch_norm.num_features // self.network.embedding.embedding_dim]

    @property
    def device(self) -> torch.device:
        return self.network.embedding.weight.device

    @torch.no_grad()
    def errors(self, ids: Tensor) -> Tensor:
        """(B,) errors of ``ids`` (B, length); zeros for a batch of one, which batch norm cannot take."""
        return self.network(ids) if len(ids) > 1 else torch.zeros(len(ids), device=ids.device)

    def learn(self, ids: Tensor) -> dict[str, float]:
        """One step; returns "target_drift", the mean change of the target's output on the first sequences since the
        first batch, over its spread there."""
        if len(ids) < 2:
            return {}
        if self.probe is None:
            self.probe = ids[:PROBE_ROWS].clone()
            self.probe_target = self._probe_output()
        with torch.enable_grad():
            self.optimizer.zero_grad(set_to_none=True)
            self.network(ids).mean().backward()
            self.optimizer.step()
        change = (self._probe_output() - self.probe_target).abs().mean()
        spread = self.probe_target.std(correction=0)
        return {"target_drift": (change / spread).item()} if spread > 0 else {}

    @torch.no_grad()
    def _probe_output(self) -> Tensor:
        return self.network.target(self.network.encode(self.probe)).squeeze(1)

    def state_dict(self) -> dict[str, Any]:
        state = {"network": cloned(self.network.state_dict())}
        if self.probe is not None:
            state |= {"probe": self.probe.clone(), "probe_target": self.probe_target.clone()}
        return state | {"optimizer": optimizer_state(self.optimizer)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        if "probe" in state:
            self.probe, self.probe_target = state["probe"].to(self.device), state["probe_target"].to(self.device)


class HiddenDistillation:
    """Random network distillation (Burda et al., arXiv 1810.12894, section 2.2) on vectors in R^H.

    Target and predictor H -> width -> width on inputs standardised by the first batch and clipped to 5 deviations;
    the target and the standardisation stay as they are.
    """

    def __init__(self, size: int, device, width: int, lr: float, weight_decay: float, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.target = mlp((size, width, width), generator, zero_last=False).to(device).requires_grad_(False)
        self.predictor = mlp((size, width, width), generator, zero_last=False).to(device)
        self.optimizer = torch.optim.AdamW(self.predictor.parameters(), lr=lr, weight_decay=weight_decay)
        self.scale = StateScale(torch.zeros(size, device=device), torch.ones(size, device=device))
        self.is_fitted = False

    @property
    def sizes(self) -> list[int]:
        """What it was built for, to build it again before loading."""
        return [len(self.scale.mean)]

    @property
    def device(self) -> torch.device:
        return self.scale.mean.device

    def _errors(self, vectors: Tensor) -> Tensor:
        inputs = self.scale(vectors).clamp(-CLIP, CLIP)
        return (self.target(inputs) - self.predictor(inputs)).square().mean(dim=1)

    @torch.no_grad()
    def errors(self, vectors: Tensor) -> Tensor:
        """(n,) mean square errors of ``vectors`` (n, H)."""
        return self._errors(vectors)

    def learn(self, vectors: Tensor) -> dict[str, float]:
        """One AdamW step on the mean error of ``vectors`` (n, H); the first ones settle the standardisation."""
        if not self.is_fitted:
            present = torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device)
            self.scale, self.is_fitted = StateScale.fit(vectors[:, None], present), True
        with torch.enable_grad():
            self.optimizer.zero_grad(set_to_none=True)
            self._errors(vectors).mean().backward()
            self.optimizer.step()
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "target": cloned(self.target.state_dict()),
            "predictor": cloned(self.predictor.state_dict()),
            "optimizer": optimizer_state(self.optimizer),
            "scale": self.scale.state_dict(),
            "is_fitted": self.is_fitted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.device
        self.target.load_state_dict(state["target"])
        self.predictor.load_state_dict(state["predictor"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.scale = StateScale.from_state(state["scale"]).to(device)
        self.is_fitted = state["is_fitted"]
