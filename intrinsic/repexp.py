"""Representation-based exploration (RepExp, arXiv 2510.11686): GRPO that pays a response for differing from its group.

Plain GRPO compares verdicts; here each response is also paid for how little the other responses of its group span its
hidden state h (mean over the response's tokens, projected at random), the leverage of linear bandits:

    r_i + beta h_i' S^-1 h_i                         S = lambda I + sum over the group of h_j h_j', in [0, 1)

With a memory, S holds the responses of all past batches as well, which the paper names as what it lacks. Differences
from the authors' program are the defaults of `RepExp` marked so, and the algebra: one n by n system per group.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from common.errors import RunError, check_choice, check_number
from intrinsic.base import Bonus
from intrinsic.parts.groups import group_generator
from intrinsic.rollout import Rollout

FEATURES = ("unit", "centered")
MODELS = {"current": "mean_hidden", "initial": "frozen_mean_hidden"}  # whose states -> the feature that holds them
PAID = ("solved", "all")


def sparse_projection(width: int, size: int, generator: torch.Generator) -> Tensor:
    """Random (width, size) float32 matrix that keeps squared lengths in expectation: a share 1 / sqrt(width) of the
    entries is +-sqrt(sqrt(width) / size), the others are 0 (Li, Hastie and Church 2006)."""
    density = width**-0.5
    kept = torch.rand(width, size, generator=generator) < density
    signs = torch.randint(0, 2, (width, size), generator=generator, dtype=torch.float32) * 2 - 1
    return signs * kept * (density * size) ** -0.5


def leverage(kernel: Tensor) -> Tensor:
    """h_i' (P^-1 + sum_j h_j h_j')^-1 h_i of each response of a group, (..., n), in [0, 1).

    ``kernel`` (..., n, n) is K_ij = h_i' P h_j with P positive definite; by Woodbury's identity the result is the
    diagonal of K (I + K)^-1, an n by n system whatever the dimension of h.
    """
    identity = torch.eye(kernel.size(-1), dtype=kernel.dtype)
    return torch.linalg.solve(kernel + identity, kernel).diagonal(dim1=-2, dim2=-1)


class EllipticalMemory:
    """S = lambda I + sum of decayed past h h' and its inverse P, kept by rank-one updates in float64.

    The inverse is taken anew every `REFRESH` batches, so that rounding does not add up, and at every batch when
    ``decay`` is below 1, since what then grows back, (1 - decay) lambda I, is not of rank one.

    Args:
        size: d, dimensions of a feature.
        ridge: lambda.
        decay: factor of the past at each batch.

    Raises `RunError` when rounding has made S singular, as a ridge far too small for its features does.
    """

    REFRESH = 64

    def __init__(self, size: int, ridge: float, decay: float = 1.0):
        self.ridge = ridge
        self.decay = decay
        self.batches = 0
        self.matrix = ridge * torch.eye(size, dtype=torch.float64)
        self.inverse = torch.eye(size, dtype=torch.float64) / ridge

    def novelty(self, rows: Tensor) -> Tensor:
        """h' P h of each of ``rows`` (n, d) against the past alone, (n,), in [0, |h|^2 / lambda]."""
        return ((rows @ self.inverse) * rows).sum(dim=1)

    def learn(self, rows: Tensor) -> None:
        """Decay the past by one batch and add ``rows`` (n, d)."""
        self.batches += 1
        identity = torch.eye(len(self.matrix), dtype=torch.float64)
        self.matrix = self.decay * self.matrix + (1.0 - self.decay) * self.ridge * identity + rows.mT @ rows
        if self.decay < 1.0 or self.batches % self.REFRESH == 0:
            self.inverse = self._inverted()
            return
        inverse = self.inverse.clone()
        for row in rows:
            direction = inverse @ row
            inverse.addr_(direction, direction, alpha=-1.0 / (1.0 + float(row @ direction)))
        self.inverse = inverse

    def _inverted(self) -> Tensor:
        try:
            return torch.cholesky_inverse(torch.linalg.cholesky(self.matrix))
        except torch.linalg.LinAlgError:
            raise RunError(
                f"the memory of repexp cannot be inverted with --repexp_lambda={self.ridge}; raise it."
            ) from None

    def state_dict(self) -> dict[str, Any]:
        """The matrix, its inverse as it is, and the number of batches; `learn` replaces both and edits neither."""
        return {"matrix": self.matrix, "inverse": self.inverse, "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.matrix = state["matrix"].to("cpu", torch.float64, copy=True)
        self.inverse = state["inverse"].to("cpu", torch.float64, copy=True)
        self.batches = state["batches"]


class RepExp(Bonus):
    """``--use_ir=repexp``: leverage of each response in its group, or in its group and all past batches.

    Args:
        beta: weight of the bonus (0.01 in the authors' runs).
        ridge: lambda, in the units of a squared feature.
        dim: features wider than this are projected to it, by a new projection each step, or by one for all of them
            with a memory; 0 for no projection.
        features: "unit", of length 1, or "centered", less the mean of the group (the authors' program).
        model: whose hidden states: "current", the policy as it samples (the paper's formula), or "initial", the
            policy before training (the authors' program).
        paid: "solved", only groups with a right answer (the authors' program), or "all".
        use_memory: keep S across batches.
        memory_decay: factor of the past at each batch.
        seed: of the projections; draws from no other random state.

    Raises `UserError` for a value out of range.
    """

    name = "repexp"
    placement = "reward"
    advantage_weight = 100.0

    def __init__(
        self,
        beta: float = 0.01,
        ridge: float = 0.01,
        dim: int = 512,
        features: str = "unit",
        model: str = "current",
        paid: str = "solved",
        use_memory: bool = False,
        memory_decay: float = 1.0,
        seed: int = 0,
    ):
        check_choice("repexp_features", features, FEATURES)
        check_choice("repexp_model", model, MODELS)
        check_choice("repexp_pay", paid, PAID)
        check_number("repexp_beta", beta, least=0)
        check_number("repexp_lambda", ridge, above=0)
        check_number("repexp_memory_decay", memory_decay, above=0, most=1)
        for flag, count in (("repexp_dim", dim), ("repexp_seed", seed)):
            check_number(flag, count, least=0)
        self.beta = beta
        self.ridge = ridge
        self.dim = dim
        self.features = features
        self.model = model
        self.paid = paid
        self.needs_verdict = paid != "all"
        self.use_memory = use_memory
        self.memory_decay = memory_decay
        self.seed = seed
        self.memory: EllipticalMemory | None = None
        self.needs = frozenset({MODELS[model]})

    @classmethod
    def from_options(cls, options) -> "RepExp":
        return cls(
            beta=options.repexp_beta,
            ridge=options.repexp_lambda,
            dim=options.repexp_dim,
            features=options.repexp_features,
            model=options.repexp_model,
            paid=options.repexp_pay,
            use_memory=options.repexp_memory,
            memory_decay=options.repexp_memory_decay,
            seed=options.repexp_seed,
        )

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: completions with tokens, in groups with a right answer unless all are paid."""
        present = rollout.completion_mask.any(dim=1)
        if self.paid == "all":
            return present
        solved = (rollout.correct > 0.5).view(-1, rollout.num_generations).any(dim=1)
        return present & solved.repeat_interleave(rollout.num_generations)

    def represent(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Features (groups, n, d) in float64 on the CPU, 0 in the rows that are not in (groups, n) bool: those
        without tokens or with a state that is not finite."""
        states = rollout.features[MODELS[self.model]].detach().float()
        if self.dim and states.size(1) > self.dim:
            states = states @ self._projection(states.size(1), rollout.step).to(states)
        groups = states.to("cpu", torch.float64).view(-1, rollout.num_generations, states.size(1))
        present = rollout.completion_mask.any(dim=1).cpu().view(groups.shape[:2]) & groups.isfinite().all(dim=2)
        groups = torch.where(present[..., None], groups, 0.0)
        if self.features == "unit":
            return functional.normalize(groups, dim=2), present
        mean = groups.sum(dim=1, keepdim=True) / present.sum(dim=1).clamp(min=1)[:, None, None]
        return torch.where(present[..., None], groups - mean, 0.0), present

    def _projection(self, width: int, step: int) -> Tensor:
        # What a memory holds can only be compared with features in the same coordinates.
        key = (self.name, self.seed) if self.use_memory else (self.name, self.seed, step)
        return sparse_projection(width, self.dim, group_generator(*key))

    def _leverage(self, features: Tensor, memory: EllipticalMemory | None) -> Tensor:
        past = features / self.ridge if memory is None else features @ memory.inverse
        return leverage(past @ features.mT)

    def score(self, rollout: Rollout) -> Tensor:
        """beta times the leverage of each response, (B,); 0 where the completion is not eligible, and NaN where its
        hidden state is not finite, for the guard."""
        features, present = self.represent(rollout)
        scores = (self.beta * self._leverage(features, self.memory)).flatten().to(rollout.device, torch.float32)
        lost = rollout.completion_mask.any(dim=1) & ~present.flatten().to(rollout.device)
        return torch.where(self.eligible(rollout), scores, 0.0).masked_fill(lost, torch.nan)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Add the batch to the memory, if there is one.

        Returns "directions" (mean over the groups of the sum of leverages against the group alone: how many different
        responses it holds, below n) and "paid" (share of completions that are eligible); with a memory
        "past_novelty" (mean of lambda h' P h before the batch is added, 1 for directions never met and features of
        length 1) and "memory_directions" (how many dimensions the memory has filled, after it).
        """
        features, present = self.represent(rollout)
        metrics = {
            "directions": self._leverage(features, None).sum(dim=1).mean().item(),
            "paid": self.eligible(rollout).float().mean().item(),
        }
        if not self.use_memory:
            return metrics
        size = features.size(2)
        if self.memory is None:
            self.memory = EllipticalMemory(size, self.ridge, self.memory_decay)
        rows = features[present]
        if len(rows):
            metrics["past_novelty"] = self.ridge * self.memory.novelty(rows).mean().item()
        self.memory.learn(rows)
        metrics["memory_directions"] = size - self.ridge * self.memory.inverse.trace().item()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {} if self.memory is None else {"memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory = None
        if "memory" in state:
            self.memory = EllipticalMemory(len(state["memory"]["matrix"]), self.ridge, self.memory_decay)
            self.memory.load_state_dict(state["memory"])

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "repexp_beta": self.beta,
            "repexp_lambda": self.ridge,
            "repexp_dim": self.dim,
            "repexp_features": self.features,
            "repexp_model": self.model,
            "repexp_pay": self.paid,
            "repexp_memory": self.use_memory,
            "repexp_memory_decay": self.memory_decay,
            "repexp_seed": self.seed,
        }
