"""The interface every intrinsic bonus implements, and what all bonuses share: schedule, clip, finite guard."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from common.errors import RunError
from intrinsic.rollout import Rollout

Placement = Literal["reward", "advantage", "token"]
LEVELS = ("advantage", "reward")  # of a bonus whose paper pays it in the reward
SHUFFLE_WITHIN = ("verdict", "batch")  # among which completions the control shuffle:NAME permutes
FEATURES = frozenset(
    {
        *("text_embedding", "hidden", "mean_hidden", "logps", "self_certainty", "entropy"),
        *("frozen_hidden", "frozen_mean_hidden", "frozen_self_certainty"),
    }
)


COLUMNS = frozenset({"answer", "approach"})  # that reward functions log and a rollout has


class Bonus:
    """An intrinsic bonus: reads the past in `score`, learns or stores the present in `update`.

    Class attributes:
        name: the value of ``--use_ir`` that selects it.
        placement: "reward" joins before TRL's group normalisation, "advantage" and "token" after it.
        needs: subset of `FEATURES` that the trainer has to put into the rollout.
        reads: subset of `COLUMNS` that the reward functions have to log for it.
        pretrain_batches: generation batches of the untrained policy that it still wants to `update` on before training.
        batches_before_bonus: generation batches, those included, that it learns from before it pays anything.
        from_second_visit: whether it pays nothing for a question that the policy meets for the first time.
        part_names: names of the separately logged parts of the score; empty for a bonus in one piece.
        replaces: whether `combine` puts its own advantage in place of the group's instead of adding to it; the pipeline
            then mixes the two by the weight, 0 to 1.
        multiplies: whether `combine` multiplies the group's advantages by one factor instead of adding to them.
        centred: whether the pipeline subtracts the group's mean before it joins; set by `at_level`.
        clipped: whether the pipeline clips its scores; not where their size is the method's own.
        advantage_weight: default weight at the level "advantage" of a bonus that its paper pays in the reward.
        needs_verdict: whether it has to know which completions are right.
        label_free: whether it can stand in for the verdict; its runs then have the stop rule unless told otherwise.
        measured: the metric ``ir/<name>/<measured>`` of what it measures. Another than "raw" where raw is standardised
            in the group, and so always 0 on average, or is one of right answers alone, and so moves with their number.
        per_token_flags: flags with which it has one value per token, for a bonus that also has one per completion.
    """

    name: str
    placement: Placement
    needs: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    part_names: tuple[str, ...] = ()
    pretrain_batches: int = 0
    batches_before_bonus: int = 0
    from_second_visit: bool = False
    replaces: bool = False
    multiplies: bool = False
    centred: bool = False
    clipped: bool = True
    advantage_weight: float = 1.0
    needs_verdict: bool = False
    label_free: bool = False
    measured: str = "raw"
    per_token_flags: ClassVar[Mapping[str, Any]] = {}

    def at_level(self, level: str) -> "Bonus":
        """This bonus, placed at ``level`` if its paper pays it in the reward; others keep their place.

        "reward" joins before the group normalisation, which brings any spread to unit size in a group of equal
        verdicts, whatever the weight. "advantage" subtracts the mean over the group's completions that have a score
        (`present_rows`) and adds the rest after the normalisation, so that the weight means the same in every group.
        """
        if self.placement == "reward" and level == "advantage":
            self.placement, self.centred = "advantage", True
        return self

    @classmethod
    def from_options(cls, options) -> "Bonus":
        """Build the bonus from an `IntrinsicOptions`."""
        return cls()

    def check(self, num_generations: int, max_completion_length: int) -> None:
        """Raise `UserError` if the bonus cannot work with groups of ``num_generations`` or completions that long."""

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: the completions that this bonus may pay, whatever it finds in them; all unless it says so."""
        return torch.ones(len(rollout), dtype=torch.bool, device=rollout.device)

    def score(self, rollout: Rollout) -> Tensor:
        """Raw bonus of each completion, (B,) or, for placement "token", (B, T); float32; must not change state."""
        return torch.stack(list(self.score_parts(rollout).values())).sum(dim=0)

    def score_parts(self, rollout: Rollout) -> dict[str, Tensor]:
        """The parts of the score by name of `part_names`; only bonuses made of several parts implement it."""
        return {self.name: self.score(rollout)}

    def present_parts(self, rollout: Rollout) -> dict[str, Tensor]:
        """By name of a part, (B,) bool: the eligible completions that it says anything of; a part left out: of all.

        For a bonus with nothing to compare some completions with: the 0 that `score_parts` gives them is no score.
        """
        return {}

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learn from or store the rollout, once per generation batch; returns scalars to log."""
        return {}

    def combine(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        """Join scaled scores with the advantages, both (B,) or (B, T); only for placements after normalisation."""
        return advantages + scores

    def combine_noise(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        """Join noise of this bonus's strength: as `combine` does, with each bound of it on both sides, so that noise of
        mean 0 changes no advantage on average."""
        return self.combine(advantages, scores, rollout)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `score` depends on, as tensors and plain JSON types, nested dicts allowed."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def capacity_bytes(self, embedding_width: int) -> int:
        """Bytes of main memory that a memory of text embeddings takes when full; 0 for a bonus without one."""
        return 0

    @property
    def uncontrolled(self) -> str:
        """What it gives, where neither a permutation nor noise within groups can stand for it; else empty."""
        if self.placement == "token":
            return "one value per token"
        if self.replaces:
            return "an advantage in place of GRPO's"
        return "one factor for a whole group" if self.multiplies else ""

    @property
    def depends_on_length(self) -> bool:
        """Whether `score` or `combine` at a step depend on how many steps the run has (``rollout.max_steps``)."""
        return False

    def identity(self) -> dict[str, Any]:
        """The settings that a resumed run must share with the run that saved the state."""
        return {"name": self.name}


def present_rows(bonus: Bonus, parts: Mapping[str, Tensor], rollout: Rollout) -> dict[str, Tensor]:
    """By name of a part, (B,) bool: the completions that have a score of it.

    These are eligible, the part says something of them, and what `score_parts` gave, ``parts``, is finite.
    """
    eligible, told = bonus.eligible(rollout), bonus.present_parts(rollout)
    finite = {part: scores.isfinite() for part, scores in parts.items()}  # (B,) or (B, T)
    return {
        part: eligible & told.get(part, eligible) & (known if known.dim() == 1 else known.all(dim=1))
        for part, known in finite.items()
    }


@dataclass(frozen=True)
class WeightSchedule:
    """Weight of a bonus by optimiser step: a linear ramp over ``warmup_steps``, then ``shape`` to the end.

    ``shape``: "constant", "linear" (to 0) or "cosine" (half a period, to 0). Both are 0 at the step ``max_steps``, one
    after the last, which is ``max_steps - 1``, as transformers' learning rates are.
    """

    weight: float = 1.0
    shape: str = "constant"
    warmup_steps: int = 0

    SHAPES = ("constant", "linear", "cosine")

    def __call__(self, step: int, max_steps: int) -> float:
        if step < self.warmup_steps:
            return self.weight * step / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, max_steps - self.warmup_steps))
        decay = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}
        return self.weight * decay[self.shape]


class FiniteGuard:
    """Replaces NaN and infinity by 0 and stops a run whose bonus keeps producing them.

    Raises `RunError` when more than half of a batch, or any value in three consecutive batches, is not finite.
    """

    MAX_SHARE = 0.5
    MAX_STREAK = 3

    def __init__(self, name: str):
        self.name = name
        self.streak = 0

    def __call__(self, scores: Tensor, rollout: Rollout) -> tuple[Tensor, int]:
        """Finite copy of ``scores`` (B,) or (B, T), and how many values were replaced."""
        bad = ~torch.isfinite(scores)
        count = int(bad.sum())
        self.streak = self.streak + 1 if count else 0
        if count > self.MAX_SHARE * scores.numel() or self.streak >= self.MAX_STREAK:
            row = int(bad.reshape(len(rollout), -1).any(dim=1).nonzero()[0])
            raise RunError(
                f"bonus '{self.name}' returned {count} non-finite values of {scores.numel()} "
                f"(batches in a row: {self.streak}); first offending completion: {rollout.completions[row][:200]!r}"
            )
        return torch.where(bad, torch.zeros_like(scores), scores), count
