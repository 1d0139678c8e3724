"""MERCI ("Count Counts: Motivating Exploration in LLM Reasoning with Count-based Intrinsic Rewards", ICLR 2026): GRPO
whose finished advantages rise, within bounds, for the responses of a group that pass through seldom visited states.

Plain GRPO pays right answers only; here a pseudo-count of the frozen initial model's hidden states along a response
tells the novel from the familiar. The authors' code was not available: what the paper's public descriptions leave open
is our choice, and marked so in docs/methods/cfn.md.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError, check_choice, check_number
from intrinsic.base import Bonus, Placement
from intrinsic.parts.coin_flip import CoinFlipCounts
from intrinsic.parts.elliptical import EllipticalCounts
from intrinsic.parts.fusion import clipped_advantage, positive_zscore, trajectory_uncertainty
from intrinsic.parts.states import StateScale, TokenStates
from intrinsic.parts.token_filters import FILTERS, contiguous_runs, repeated_ngrams, text_noise, top_share
from intrinsic.rollout import Rollout


@dataclass(frozen=True)
class MerciSettings:
    """The ``--cfn_...`` flags, see their help; raises `UserError` for a value out of range."""

    mode: str = "network"
    level: str = "trajectory"
    gamma: float = 0.5
    alpha: float = 0.5
    top_percent: float = 50.0
    min_run: int = 3
    filters: str = ",".join(FILTERS)
    length: str = "kept"
    dim: int = 20
    width: int = 512
    lr: float = 1e-3
    weight_decay: float = 1e-2
    batch_size: int = 1024
    passes: int = 1
    replay: int = 16_384
    ridge: float = 1.0
    warmup: int = 20
    pretrain: int = 0
    seed: int = 0

    CHOICES = {"mode": ("network", "linear"), "level": ("trajectory", "token"), "length": ("kept", "response")}

    def __post_init__(self):
        for flag, allowed in self.CHOICES.items():
            check_choice(f"cfn_{flag}", getattr(self, flag), allowed)
        for flag in ("dim", "width", "batch_size", "passes", "min_run"):
            check_number(f"cfn_{flag}", getattr(self, flag), least=1)
        for flag in ("replay", "warmup", "pretrain", "seed", "gamma", "weight_decay"):
            check_number(f"cfn_{flag}", getattr(self, flag), least=0)
        for flag in ("lr", "ridge"):
            check_number(f"cfn_{flag}", getattr(self, flag), above=0)
        check_number("cfn_alpha", self.alpha, above=0, below=1)
        check_number("cfn_top_percent", self.top_percent, above=0, most=100)
        if not self.filter_names <= set(FILTERS):
            raise UserError(
                f"--cfn_filters={self.filters} must be none, or names of {', '.join(FILTERS)} separated by commas."
            )

    @property
    def filter_names(self) -> frozenset[str]:
        """The filters that are on."""
        return frozenset() if self.filters == "none" else frozenset(name.strip() for name in self.filters.split(","))


class Merci(Bonus):
    """``--use_ir=cfn``: positive group z-score of the uncertainty along a response, from coin-flip pseudo-counts.

    At level "trajectory" (the paper) the score is (B,), at level "token" it is (B, T): the z-score of each kept token's
    sqrt(v) among all response tokens of its group. Both are 0 until the counts have learnt from ``pretrain`` (if any,
    else ``warmup``) generation batches.
    """

    name = "cfn"
    placement: Placement = "advantage"
    measured = "uncertainty"
    per_token_flags = {"cfn_level": "token"}
    needs = frozenset({"frozen_hidden"})

    def __init__(self, settings: MerciSettings | None = None):
        self.settings = settings or MerciSettings()
        self.placement = "token" if self.settings.level == "token" else "advantage"
        self.batches = 0
        self.visits = 0
        self.scale: StateScale | None = None
        self.counts: CoinFlipCounts | EllipticalCounts | None = None

    @classmethod
    def from_options(cls, options) -> "Merci":
        names = [field.name for field in fields(MerciSettings)]
        return cls(MerciSettings(**{name: getattr(options, f"cfn_{name}") for name in names}))

    @property
    def batches_before_bonus(self) -> int:
        """Generation batches to learn from before the bonus pays; one at least, as all is equally new before it."""
        return max(1, self.settings.pretrain or self.settings.warmup)

    @property
    def pretrain_batches(self) -> int:
        """Generation batches of the untrained policy that are still to be given to `update` before training begins."""
        return max(0, self.settings.pretrain - self.batches)

    @property
    def depends_on_length(self) -> bool:
        return True

    def gamma(self, rollout: Rollout) -> float:
        """gamma_0 (1 + cos(pi t / T)) / 2 at optimiser step t of T."""
        progress = min(1.0, rollout.step / max(1, rollout.max_steps))
        return self.settings.gamma * 0.5 * (1.0 + math.cos(math.pi * progress))

    def score(self, rollout: Rollout) -> Tensor:
        """The score described by the class, float32; NaN for a response (or token) whose states are not finite.

        Raises `UserError` for a rollout without hidden states of the frozen model.
        """
        mask = self._hidden_and_mask(rollout)[1]
        if self.batches < self.batches_before_bonus:
            return torch.zeros(mask.shape if self.placement == "token" else len(mask), device=mask.device)
        variance = self.token_variance(rollout)
        broken = mask & ~variance.isfinite()
        kept = self.kept_tokens(variance, rollout)
        if self.placement == "token":
            groups = (-1, rollout.num_generations * mask.size(1))
            present = (mask & ~broken).view(groups)
            score = positive_zscore(variance.sqrt().view(groups), present).view_as(variance).where(kept, 0.0)
            return score.masked_fill(broken, math.nan)
        bonus, finite = self._uncertainty(variance, kept, mask), ~broken.any(dim=1)
        groups = (-1, rollout.num_generations)
        return positive_zscore(bonus.view(groups), finite.view(groups)).flatten().where(finite, math.nan)

    @torch.no_grad()
    def token_variance(self, rollout: Rollout) -> Tensor:
        """v (B, T) in [0, 1], about 1 / number of visits of the state that each response token is sampled from.

        1 on all tokens before anything was counted; NaN where the state is not finite; 0 on padding.
        """
        hidden, mask = self._hidden_and_mask(rollout)
        variance = mask.float()
        if self.counts is None:
            return variance
        finite = _finite(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            states = TokenStates(hidden, mask & finite, self.scale.to(hidden.device))
            if len(states):
                variance[mask & finite] = self._counts_on(hidden.device).variance(states)
        return variance.masked_fill(mask & ~finite, math.nan)

    def kept_tokens(self, variance: Tensor, rollout: Rollout) -> Tensor:
        """(B, T) bool: the response tokens that pass the filters in the paper's order."""
        return self._filtered(variance, rollout) & ~self._noise(rollout)

    def _filtered(self, variance: Tensor, rollout: Rollout) -> Tensor:
        """Percentile and coherence."""
        filters, kept = self.settings.filter_names, rollout.completion_mask & variance.isfinite()
        if "percentile" in filters:
            kept = kept & top_share(variance, rollout.completion_mask, self.settings.top_percent)
        return contiguous_runs(kept, self.settings.min_run) if "coherence" in filters else kept

    def _noise(self, rollout: Rollout) -> Tensor:
        filters = self.settings.filter_names
        noise = text_noise(rollout, code="code" in filters, characters="characters" in filters)
        if "repetition" in filters:
            noise = noise | repeated_ngrams(rollout.completion_ids, rollout.completion_mask)
        return noise

    def _uncertainty(self, variance: Tensor, kept: Tensor, mask: Tensor) -> Tensor:
        return trajectory_uncertainty(variance, kept, mask if self.settings.length == "response" else None)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Count one visit of every response token's state; a rollout without a finite state changes nothing.

        Returns visits so far ("visits"), "gamma", 1 once the bonus pays ("pays"), and of this batch as the counts knew
        it just before: mean v ("variance"), mean B ("uncertainty"), shares of tokens kept by all filters
        ("kept_share") and called noise ("noise_share"), and, of the network, the mean "loss".
        """
        hidden, mask = self._hidden_and_mask(rollout)
        present = mask & _finite(hidden)
        metrics = {"gamma": self.gamma(rollout), "pays": float(self.batches >= self.batches_before_bonus)}
        if present.any():
            with torch.autocast(hidden.device.type, enabled=False):
                metrics |= self._learn(hidden, present, rollout)
        return metrics | {"visits": float(self.visits)}

    def _learn(self, hidden: Tensor, present: Tensor, rollout: Rollout) -> dict[str, float]:
        if self.counts is None:
            self.scale = StateScale.fit(hidden, present)
            self.counts = self._new_counts(hidden.size(-1), hidden.device)
        states = TokenStates(hidden, present, self.scale.to(hidden.device))
        before, metrics = self._counts_on(hidden.device).learn(states)
        self.batches += 1
        self.visits += len(states)
        variance = torch.zeros(present.shape, device=hidden.device)
        variance[present] = before
        noise = self._noise(rollout)
        kept = self._filtered(variance, rollout) & ~noise
        return metrics | {
            "variance": before.mean().item(),
            "uncertainty": self._uncertainty(variance, kept, rollout.completion_mask).mean().item(),
            "kept_share": (kept.sum() / len(states)).item(),
            "noise_share": (noise.sum() / len(states)).item(),
        }

    def combine(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        """The clipped fusion of the paper with gamma_t times ``scores``, both (B,) or (B, T), for any weight."""
        return clipped_advantage(advantages, self.gamma(rollout) * scores, self.settings.alpha)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"batches": self.batches, "visits": self.visits}
        if self.counts is not None:
            state |= {"scale": self.scale.state_dict(), "counts": self.counts.state_dict()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches, self.visits = state["batches"], state["visits"]
        self.scale = self.counts = None
        if "counts" in state:
            self.scale = StateScale.from_state(state["scale"])
            self.counts = self._new_counts(len(self.scale.mean), self.scale.mean.device)
            self.counts.load_state_dict(state["counts"])

    def identity(self) -> dict[str, Any]:
        return {"name": self.name} | asdict(self.settings)

    def _hidden_and_mask(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        hidden = rollout.features.get("frozen_hidden")
        if hidden is None or rollout.completion_mask is None:
            raise UserError(
                "--use_ir=cfn needs hidden states of the initial policy at every response token ('frozen_hidden'), "
                f"and this run offers {sorted(rollout.features) or 'none'}; take cfn out of --use_ir."
            )
        return hidden, rollout.completion_mask

    def _new_counts(self, size: int, device) -> CoinFlipCounts | EllipticalCounts:
        s = self.settings
        if s.mode == "linear":
            # A standardised state has a squared norm of about H, so that an unseen one has v of about 1 / ridge.
            return EllipticalCounts(size, device, s.ridge * size)
        return CoinFlipCounts(
            size, device, s.dim, (s.width,), s.lr, s.weight_decay, s.batch_size, s.passes, s.replay, s.seed
        )

    def _counts_on(self, device: torch.device) -> CoinFlipCounts | EllipticalCounts:
        """The counts, moved to ``device`` if a checkpoint put them elsewhere."""
        if self.counts.device != device:
            state = self.counts.state_dict()
            self.counts = self._new_counts(len(self.scale.mean), device)
            self.counts.load_state_dict(state)
        return self.counts


def _finite(hidden: Tensor) -> Tensor:
    """(B, T) bool of states (B, T, H) without NaN or infinity; a row at a time, as float32 copies of all are large."""
    return torch.stack([row.float().sum(dim=-1) for row in hidden]).isfinite()
