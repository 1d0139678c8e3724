"""Rarity among right answers (after Cue-GRPO, arXiv 2608.03467): GRPO that pays rare ways of being right better.

Plain GRPO gives all right answers of a group the same advantage A; here they are parted into approaches C, and the
credit moves from common approaches to rare ones, while its sum over the right answers, and every wrong answer, stay as
they are:

    s_i = |C_i|^-alpha       w_i = c s_i / sum s, clipped, scaled back to a mean of 1       A_i + max(A_i, 0) (w_i - 1)

with c right answers. Other rules on the same partition: UARL (arXiv 2601.08763), DARLING (arXiv 2509.02534), IPS-GRPO
(arXiv 2601.21669). The weights of UCPO (arXiv 2605.00365) need no partition but the likelihoods of the right answers.
"""

import math
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError, check_choice, check_number
from intrinsic.base import Bonus, Placement
from intrinsic.parts.approaches import NONE, bigram_distances, clusters, cosine_distances, numbered, partition_figures
from intrinsic.parts.groups import group_generator
from intrinsic.parts.likelihood import mean_feature
from intrinsic.rollout import Rollout

PARTITIONS = ("exact", "answer", "bigram", "embedding", "likelihood", "random")
RULES = ("redistribute", "uarl", "darling", "ips")
IN_REWARD = ("darling", "ips")  # rules that their papers pay in the reward
THRESHOLDS = {"bigram": 0.4, "embedding": 0.15}  # mean distances up to which two clusters are one
READS = {"exact": "approach", "random": "approach", "answer": "answer"}
NEEDS = {"embedding": "text_embedding", "likelihood": "logps"}
DARLING_FLOOR = 0.1  # least share of a right answer's reward that is left, in DARLING's program


def redistribution(sizes: Tensor, inside: Tensor, alpha: float, low: float, high: float) -> Tensor:
    """w of each right answer, (groups, n), mean 1 over the places ``inside`` (groups, n) bool; 1 at the others.

    ``sizes``: (groups, n), right answers of the group that share its approach. c s / sum s with s = size^-alpha is
    clipped to [``low``, ``high``] and rescaled, so that a weight may end outside these bounds.
    """
    rarity = torch.where(inside, sizes.clamp(min=1).float().pow(-alpha), 0.0)
    return _mean_one(_mean_one(rarity, inside).clamp(low, high), inside)


def likelihood_weights(logps: Tensor, inside: Tensor, tau: float) -> Tensor:
    """UCPO's weights (1 - tau) + tau c q^-1 / sum q^-1, (groups, n), mean 1 over ``inside``; 1 at the others.

    q is the softmax of the mean log-probabilities ``logps`` (groups, n) over ``inside``.
    """
    q = logps.masked_fill(~inside, -math.inf).softmax(dim=1)
    rarity = _mean_one(torch.where(inside, 1.0 / q, 0.0), inside)
    return torch.where(inside, (1.0 - tau) + tau * rarity, 1.0)


def _mean_one(values: Tensor, inside: Tensor) -> Tensor:
    known = torch.where(inside, values, 0.0)
    mean = known.sum(dim=1, keepdim=True) / inside.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(inside, known / mean.clamp(min=torch.finfo(known.dtype).tiny), 1.0)


class Rarity(Bonus):
    """``--use_ir=rarity``: advantages moved among right answers by how rare their approach is in the group.

    Args:
        partition: what an approach is. "exact": the task's normal form (`Rollout.approaches`); "answer": the final
            answer; "bigram": clusters of texts by their word pairs; "embedding": clusters by the text encoder;
            "likelihood": none, weights by how likely the policy finds each answer; "random": the labels of "exact",
            permuted among the right answers of the group.
        rule: "redistribute" (the formula above); "uarl": every advantage of a known approach is multiplied by
            |C|^-alpha; "darling": a right answer's reward by the share of the other right answers that are in other
            clusters, at least 0.1; "ips": by 1 over the share of the group that is right in the same way.
        alpha: power of the cluster size, 0 or more.
        tau: share of UCPO's weights that moves, in [0, 1].
        low, high: bounds of a weight before it is rescaled.
        threshold: mean distance up to which clusters are one; None for that of `THRESHOLDS`.
        seed: of the permutations of "random"; draws from no other random state.

    Raises `UserError` for an unknown word, a value out of range, or "likelihood" with a rule that needs clusters.
    """

    name = "rarity"
    placement: Placement = "advantage"
    needs_verdict = True
    measured = "clusters"
    clipped = False  # a clipped weight would not leave the sum as it is

    def __init__(
        self,
        partition: str = "exact",
        rule: str = "redistribute",
        alpha: float = 0.8,
        tau: float = 0.2,
        low: float = 0.3,
        high: float = 3.0,
        threshold: float | None = None,
        seed: int = 0,
    ):
        check_choice("rarity_partition", partition, PARTITIONS)
        check_choice("rarity_rule", rule, RULES)
        if partition == "likelihood" and rule != "redistribute":
            raise UserError(
                f"--rarity_rule={rule} needs clusters, and --rarity_partition=likelihood makes none; use redistribute, "
                "or another partition."
            )
        check_number("rarity_alpha", alpha, least=0)
        check_number("rarity_tau", tau, least=0, most=1)
        check_number("rarity_clip_low", low, above=0, most=1)
        check_number("rarity_clip_high", high, least=1)
        if threshold is not None:
            check_number("rarity_threshold", threshold, least=0)
        check_number("rarity_seed", seed, least=0)
        self.partition = partition
        self.rule = rule
        self.alpha = alpha
        self.tau = tau
        self.low, self.high = low, high
        self.threshold = THRESHOLDS.get(partition) if threshold is None else threshold
        self.seed = seed
        self.placement = "reward" if rule in IN_REWARD else "advantage"
        self.needs = frozenset({NEEDS[partition]}) if partition in NEEDS else frozenset()
        self.reads = frozenset({READS[partition]}) if partition in READS else frozenset()

    @classmethod
    def from_options(cls, options) -> "Rarity":
        return cls(
            partition=options.rarity_partition,
            rule=options.rarity_rule,
            alpha=options.rarity_alpha,
            tau=options.rarity_tau,
            low=options.rarity_clip_low,
            high=options.rarity_clip_high,
            threshold=options.rarity_threshold,
            seed=options.rarity_seed,
        )

    def check(self, num_generations: int, max_completion_length: int) -> None:
        """Raise `UserError` for groups too small to move anything: beside a wrong answer there have to be two right
        ones, and three for two approaches of different size."""
        least = 3 if self.partition == "likelihood" else 4
        if self.rule == "redistribute" and num_generations < least:
            raise UserError(
                f"--num_generations={num_generations}: rarity moves credit among the right answers of a group with a "
                f"wrong one, by --rarity_partition={self.partition}; use at least {least}."
            )

    def eligible(self, rollout: Rollout) -> Tensor:
        """(B,) bool: completions whose approach is known: right ones, and all for "uarl".

        For "redistribute", those in groups with at least two of them and a wrong answer.
        """
        known, right = self._known(rollout), rollout.correct > 0.5
        if self.rule == "uarl":
            return known
        inside = (known & right).view(-1, rollout.num_generations)
        if self.rule == "redistribute":
            mixed = ~right.view_as(inside).all(dim=1, keepdim=True)
            inside = inside & mixed & (inside.sum(dim=1, keepdim=True) > 1)
        return inside.flatten()

    def _known(self, rollout: Rollout) -> Tensor:
        """(B,) bool: completions that the partition can place."""
        if self.partition == "likelihood":
            return mean_feature(rollout, "logps")[1]
        return torch.tensor([key is not None for key in self._keys(rollout)], device=rollout.device)

    def _keys(self, rollout: Rollout) -> list[str | None]:
        """What the approach of each completion is read from: B texts, or None."""
        if self.partition in THRESHOLDS:
            return rollout.reasonings
        return rollout.answers if self.partition == "answer" else rollout.approaches

    def score(self, rollout: Rollout) -> Tensor:
        """What `combine` multiplies an advantage by, less 1, or what is added to a right answer's reward, (B,).

        0 where the completion is not eligible; NaN where its log-probabilities are and count, for the finite guard.
        """
        inside = self.eligible(rollout).view(-1, rollout.num_generations)
        if self.partition == "likelihood":
            logps, present = mean_feature(rollout, "logps")
            scores = likelihood_weights(logps.view_as(inside), inside, self.tau) - 1.0
            lost = rollout.completion_mask.any(dim=1) & (rollout.correct > 0.5) & ~present
            return scores.flatten().masked_fill(lost, torch.nan)
        return torch.where(inside, self._factors(self.labels(rollout), inside) - 1.0, 0.0).flatten()

    def _factors(self, labels: Tensor, inside: Tensor) -> Tensor:
        """What an eligible completion's advantage or reward is multiplied by, (groups, n)."""
        # (groups, n) -> (groups, n, n): which members of a group share an approach
        shared = (labels[:, :, None] == labels[:, None, :]) & (labels != NONE)[:, None, :]
        sizes = shared.sum(dim=2)
        if self.rule == "redistribute":
            return redistribution(sizes, inside, self.alpha, self.low, self.high)
        if self.rule == "uarl":
            return sizes.clamp(min=1).float().pow(-self.alpha)
        if self.rule == "ips":
            return labels.size(1) / sizes.clamp(min=1).float()
        count = inside.sum(dim=1, keepdim=True)
        # A right answer alone has no other to be like.
        others = torch.where(count > 1, (count - sizes) / (count - 1).clamp(min=1), 1.0)
        return others.clamp(min=DARLING_FLOOR)

    def labels(self, rollout: Rollout) -> Tensor:
        """The approach of each completion as a number within its group, (groups, n) long; `NONE` where none is known.

        Only right answers have one, but for "uarl", which parts all completions. Not for "likelihood".
        """
        chosen, keys = self._known(rollout), self._keys(rollout)
        if self.rule != "uarl":
            chosen = chosen & (rollout.correct > 0.5)
        labels = torch.full((len(rollout),), NONE, device=rollout.device)
        times: dict[str, int] = {}
        for start in range(0, len(rollout), rollout.num_generations):
            question = rollout.questions[start]
            times[question] = times.get(question, 0) + 1
            inside = chosen[start : start + rollout.num_generations].nonzero().squeeze(1) + start
            found = self._partitioned(rollout, [keys[row] for row in inside.tolist()])
            if self.partition == "random":
                key = (self.name, self.seed, rollout.step, question, times[question])
                found = _permuted(found, rollout.correct[inside].cpu() > 0.5, group_generator(*key))
            labels[inside] = found.to(labels.device)
        return labels.view(-1, rollout.num_generations)

    def _partitioned(self, rollout: Rollout, keys: list[str]) -> Tensor:
        """The approaches of completions of one group by their ``keys``, (m,) long on the CPU."""
        if self.partition == "bigram":
            found = clusters(bigram_distances(keys), self.threshold)
        elif self.partition == "embedding" and keys:
            found = clusters(cosine_distances(rollout.embed(keys)), self.threshold)
        else:
            found = numbered(keys)
        return torch.tensor(found, dtype=torch.long)

    def combine(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        """``advantages`` (B,) or (B, T), those above 0 multiplied by 1 + ``scores``, all of them for "uarl"; for rules
        that belong in the reward, plus ``scores``. No factor is below 0, whatever the weight."""
        return self._multiplied(advantages, scores, highest=math.inf)

    def combine_noise(self, advantages: Tensor, scores: Tensor, rollout: Rollout) -> Tensor:
        """As `combine`, with no factor above 2: as far from 1 as 0 is."""
        return self._multiplied(advantages, scores, highest=1.0)

    def _multiplied(self, advantages: Tensor, scores: Tensor, highest: float) -> Tensor:
        if self.rule in IN_REWARD:
            return advantages + scores
        paid = advantages if self.rule == "uarl" else advantages.clamp(min=0.0)
        return advantages + paid * scores.clamp(min=-1.0, max=highest)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Nothing to learn; figures of the batch, over groups with at least two right answers.

        Returns "clusters" (mean number of approaches by this partition) and "split" (share of these groups with more
        than one); where the task tells approaches, "approaches" (mean number of those), "alike" (share of the pairs of
        right answers that share one), "agreement" (share of the pairs on which this partition says the same) and
        "correlation" (Pearson's, of `score` and that of the exact partition, over answers that both can place). Each
        only where the batch holds what it is about; "likelihood" has no clusters and does not agree with anything.
        """
        n = rollout.num_generations
        right = (rollout.correct > 0.5).view(-1, n)
        told = [numbered(rollout.approaches[start : start + n]) for start in range(0, len(rollout), n)]
        exact = torch.tensor(told, device=rollout.device).masked_fill(~right, NONE)
        labels = None if self.partition == "likelihood" else self.labels(rollout).masked_fill(~right, NONE)
        return partition_figures(exact, labels) | self._correlation(rollout)

    def _correlation(self, rollout: Rollout) -> dict[str, float]:
        """Nothing where one of the two moves nothing, or the same for all."""
        exact, ours = Rarity("exact", self.rule, self.alpha, low=self.low, high=self.high), self.score(rollout)
        both = self.eligible(rollout) & exact.eligible(rollout) & ours.isfinite()
        # (2, answers that both can place)
        pairs = torch.stack([ours, exact.score(rollout)])[:, both].double()
        if pairs.size(1) < 2 or (pairs.std(dim=1) == 0).any():
            return {}
        return {"correlation": torch.corrcoef(pairs)[0, 1].item()}

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rarity_partition": self.partition,
            "rarity_rule": self.rule,
            "rarity_alpha": self.alpha,
            "rarity_tau": self.tau,
            "rarity_clip_low": self.low,
            "rarity_clip_high": self.high,
            "rarity_threshold": self.threshold,
            "rarity_seed": self.seed,
        }


def _permuted(labels: Tensor, right: Tensor, generator: torch.Generator) -> Tensor:
    """``labels`` (m,) permuted among right completions and, apart, among the others."""
    labels = labels.clone()
    for verdict in (True, False):
        places = (right == verdict).nonzero().squeeze(1)
        labels[places] = labels[places[torch.randperm(len(places), generator=generator)]]
    return labels
