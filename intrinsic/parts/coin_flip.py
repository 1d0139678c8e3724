"""The coin-flip network (Lobel, Bagaria, Konidaris 2023, "Flipping Coins to Estimate Pseudocounts for Exploration").

Every visit of a state draws d fresh random signs. A network that regresses them learns, at a state seen n times, the
mean of n sign vectors, whose squares average 1/n: a count without a table. Plain GRPO has nothing of the kind.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from intrinsic.parts.networks import cloned, load_optimizer_state, mlp, optimizer_state
from intrinsic.parts.states import TokenStates, chunks

MOMENTS_VARIANCE = 0.002  # of the prior before any visit (reference code)
MOMENTS_EPS = 1e-4
PRIORITY_SHARE = 0.5  # a of the reference: weight of "seldom drawn" against "uncertain"
BATCHES_IN_REPLAY = 8  # a batch may fill at most this fraction, so that the replay reaches back this far


def rademacher(visits: int, coins: int, generator: torch.Generator) -> Tensor:
    """Independent random signs (visits, coins), float32, from the CPU ``generator``."""
    return torch.randint(0, 2, (visits, coins), generator=generator, dtype=torch.int8).float() * 2.0 - 1.0


def coin_variance(outputs: Tensor) -> Tensor:
    """Mean square (N,) over the d coins of ``outputs`` (N, d): an estimate of 1 / number of visits."""
    return outputs.square().mean(dim=-1)


def replay_priority(draws: Tensor, variance: Tensor) -> Tensor:
    """Priority (n,) of visits drawn ``draws`` times: a / (draws + 1) + (1 - a) variance, with a = 0.5."""
    return PRIORITY_SHARE / (draws + 1.0) + (1.0 - PRIORITY_SHARE) * variance


class RunningMoments:
    """Mean and variance (d,) over all visits, as if begun with one visit of mean 0 and variance `MOMENTS_VARIANCE`."""

    def __init__(self, coins: int, device):
        self.count = 1
        self.mean = torch.zeros(coins, device=device)
        self.variance = torch.full((coins,), MOMENTS_VARIANCE, device=device)

    def update(self, values: Tensor) -> None:
        """Take in ``values`` (N, d), N visits; the result does not depend on how visits are split into batches."""
        new = len(values)
        total = self.count + new
        delta = values.mean(dim=0) - self.mean
        within = (self.variance * self.count + values.var(dim=0, correction=0) * new) / total
        self.variance = within + delta.square() * (self.count / total) * (new / total)
        self.mean = self.mean + delta * (new / total)
        self.count = total

    def normalize(self, values: Tensor) -> Tensor:
        """``values`` (n, d) in deviations from the mean."""
        return (values - self.mean) / (self.variance + MOMENTS_EPS).sqrt()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean.clone(), "variance": self.variance.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self.mean = state["mean"].to(self.mean.device, copy=True)
        self.variance = state["variance"].to(self.variance.device, copy=True)


class VisitReplay:
    """The last ``capacity`` stored visits, first in first out, drawn in proportion to their priority.

    A visit keeps its state, its own coins, and the frozen prior's raw output, so that replay never redraws a label.
    """

    FIELDS = ("states", "coins", "priors", "draws", "priority")

    def __init__(self, capacity: int, size: int, coins: int, device):
        self.stored = 0  # visits ever; the next one goes to stored % capacity
        self.states = torch.zeros(capacity, size, device=device)
        self.coins = torch.zeros(capacity, coins, device=device)
        self.priors = torch.zeros(capacity, coins, device=device)
        self.draws = torch.zeros(capacity, device=device)
        self.priority = torch.zeros(capacity, device=device)

    @property
    def capacity(self) -> int:
        return len(self.states)

    def __len__(self) -> int:
        return min(self.stored, self.capacity)

    def draw(self, number: int, generator: torch.Generator) -> Tensor:
        """Indices of at most ``number`` distinct visits."""
        number = min(number, len(self))
        if number == 0:
            return torch.empty(0, dtype=torch.long, device=self.priority.device)
        return torch.multinomial(self.priority[: len(self)].cpu(), number, generator=generator).to(self.priority.device)

    def insert(self, states: Tensor, coins: Tensor, priors: Tensor) -> None:
        """Store visits (at most ``capacity``) over the oldest ones, with priority 1, as drawn once."""
        slots = (self.stored + torch.arange(len(states), device=states.device)) % self.capacity
        self.states[slots], self.coins[slots], self.priors[slots] = states, coins, priors
        self.draws[slots], self.priority[slots] = 1.0, 1.0
        self.stored += len(states)

    def mark_used(self, indices: Tensor, variance: Tensor) -> None:
        """Renew the priority of visits that a step learnt from, given their variance (n,)."""
        self.priority[indices] = replay_priority(self.draws[indices], variance)
        self.draws[indices] += 1.0

    def state_dict(self) -> dict[str, Any]:
        return {"stored": self.stored} | {name: getattr(self, name)[: len(self)].clone() for name in self.FIELDS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stored = state["stored"]
        for name in self.FIELDS:
            getattr(self, name)[: len(self)] = state[name].to(self.states.device)


class CoinFlipCounts:
    """Pseudo-counts of hidden states from a coin-flip network f(s) = head(s) + normalised frozen prior(s).

    The prior gives unseen states a variance near 1; without it they get the lowest of all, as if seen most often.

    Args:
        size: H, width of the states.
        device: where network and replay live.
        dim: d, coins per visit.
        widths: hidden widths of head and prior.
        lr, weight_decay: of AdamW.
        batch_size: visits per gradient step.
        passes: passes over each new batch and as many replayed visits.
        replay: visits kept; 0 for none.
        seed: of weights, coins and order; draws from no other random state.
    """

    def __init__(
        self,
        size: int,
        device,
        dim: int = 20,
        widths: Sequence[int] = (512,),
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 1024,
        passes: int = 1,
        replay: int = 16_384,
        seed: int = 0,
    ):
        self.generator = torch.Generator().manual_seed(seed)
        sizes = (size, *widths, dim)
        self.head = mlp(sizes, self.generator, zero_last=True).to(device)
        self.prior = mlp(sizes, self.generator, zero_last=False).to(device).requires_grad_(False)
        self.moments = RunningMoments(dim, device)
        self.replay = VisitReplay(replay, size, dim, device)
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=lr, weight_decay=weight_decay)
        self.dim, self.batch_size, self.passes = dim, batch_size, passes

    @property
    def device(self) -> torch.device:
        return self.moments.mean.device

    def outputs(self, states: Tensor, priors: Tensor | None = None) -> Tensor:
        """f (n, d) of ``states`` (n, H); ``priors`` (n, d) are the prior's raw outputs where they are known."""
        raw = self.prior(states) if priors is None else priors
        return self.head(states) + self.moments.normalize(raw)

    @torch.no_grad()
    def variance(self, states: Tensor | TokenStates) -> Tensor:
        """v (N,) in [0, 1] of ``states`` (N, H)."""
        return torch.cat([coin_variance(self.outputs(piece)) for piece in chunks(states)]).clamp(0.0, 1.0)

    def learn(self, states: Tensor | TokenStates) -> tuple[Tensor, dict[str, float]]:
        """Learn one visit of each of ``states`` (N, H), and as many replayed ones, then store a sample of the new.

        Returns v (N,) of the new states before any of them was learnt, and the mean "loss" of the last pass.
        """
        coins = rademacher(len(states), self.dim, self.generator).to(states.device)
        before, priors = self._before_learning(states)
        self.moments.update(priors)
        replayed = self.replay.draw(len(states), self.generator)
        with torch.enable_grad():
            losses = [self._one_pass(states, coins, priors, replayed) for _ in range(self.passes)]
        self._store(states, coins, priors)
        return before, {"loss": losses[-1]}

    @torch.no_grad()
    def _before_learning(self, states: Tensor | TokenStates) -> tuple[Tensor, Tensor]:
        """v (N,) of ``states`` as `variance` has it, and the prior's raw outputs (N, d)."""
        before, priors = [], []
        for piece in chunks(states):
            priors.append(self.prior(piece))
            before.append(coin_variance(self.outputs(piece, priors[-1])))
        return torch.cat(before).clamp(0.0, 1.0), torch.cat(priors)

    def _one_pass(self, states: Tensor | TokenStates, coins: Tensor, priors: Tensor, replayed: Tensor) -> float:
        """One shuffled pass over new and ``replayed`` visits; returns the mean loss."""
        loss = torch.zeros((), device=states.device)
        order = torch.randperm(len(states) + len(replayed), generator=self.generator).to(states.device)
        for batch in order.split(self.batch_size):
            new, old = batch[batch < len(states)], replayed[batch[batch >= len(states)] - len(states)]
            inputs = torch.cat([states[new], self.replay.states[old]])
            targets = torch.cat([coins[new], self.replay.coins[old]])
            outputs = self.outputs(inputs, torch.cat([priors[new], self.replay.priors[old]]))
            error = (targets - outputs).square().mean()
            self.optimizer.zero_grad(set_to_none=True)
            error.backward()
            self.optimizer.step()
            self.replay.mark_used(old, coin_variance(outputs.detach()[len(new) :]).clamp(max=1.0))
            loss += error.detach() * len(batch) / len(order)
        return loss.item()

    def _store(self, states: Tensor | TokenStates, coins: Tensor, priors: Tensor) -> None:
        """A random sample of the batch enters the replay."""
        number = min(len(states), -(-self.replay.capacity // BATCHES_IN_REPLAY))
        if number:
            chosen = torch.randperm(len(states), generator=self.generator)[:number].to(states.device)
            self.replay.insert(states[chosen], coins[chosen], priors[chosen])

    def state_dict(self) -> dict[str, Any]:
        return {
            "head": cloned(self.head.state_dict()),
            "prior": cloned(self.prior.state_dict()),
            "moments": self.moments.state_dict(),
            "replay": self.replay.state_dict(),
            "optimizer": optimizer_state(self.optimizer),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.head.load_state_dict(state["head"])
        self.prior.load_state_dict(state["prior"])
        self.moments.load_state_dict(state["moments"])
        self.replay.load_state_dict(state["replay"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
