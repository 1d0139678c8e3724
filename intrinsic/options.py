"""Flags shared by the entry scripts; each field's help is the sentence printed by ``--help``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from common.errors import UserError, check_choice
from common.flags import check_least, flag
from intrinsic import NOISE, SHUFFLE, bonus_class, default_weight, known_names, label_free_names, parse_names
from intrinsic.base import LEVELS, SHUFFLE_WITHIN, WeightSchedule
from intrinsic.flags.objective import ObjectiveFlags
from intrinsic.flags.outcome import OutcomeFlags
from intrinsic.flags.papers import MemoryFlags, MerciFlags, RndFlags, SelfCertaintyFlags
from intrinsic.flags.policy import EntropyAdvantageFlags, PerplexityFlags, RepExpFlags
from intrinsic.flags.rarity import APPROACH_TASKS, BY_APPROACH, SEVERAL_ANSWERS, RarityFlags, SmoothFlags, UnlikelyFlags
from intrinsic.flags.text import LexicalNoveltyFlags, SentenceMemoryFlags, TextEntropyFlags


@dataclass
class BonusFlags(
    UnlikelyFlags,
    SmoothFlags,
    RarityFlags,
    ObjectiveFlags,
    OutcomeFlags,
    RepExpFlags,
    EntropyAdvantageFlags,
    PerplexityFlags,
    LexicalNoveltyFlags,
    TextEntropyFlags,
    SentenceMemoryFlags,
    RndFlags,
    MerciFlags,
    SelfCertaintyFlags,
    MemoryFlags,
):
    """The flags of every bonus; those of the last base come first."""


@dataclass
class IntrinsicOptions(BonusFlags):
    """Which intrinsic bonuses to pay, and how.

    Attributes:
        bonus_names: bonuses of the registry that ``use_ir`` names, in order; ``weights`` and ``levels`` have one
            entry for each.
        reward_weights: name in ``use_ir`` that is one of `REWARDS`, extrinsic rewards of the script -> its weight.
    """

    REWARDS: ClassVar[tuple[str, ...]] = ()

    use_ir: str = flag("no", f"Bonus, or bonuses separated by commas: {known_names()}.")
    ir_weight: str = flag(
        "",
        "Weight of each bonus, one number or one per bonus separated by commas; unset: 1, and at level advantage the "
        "bonus's own (see its card). That of passk, maxrl, nsr and risk is the share of plain GRPO's advantage that "
        "they replace, 0 to 1.",
    )
    ir_level: str = flag(
        LEVELS[0],
        "Where bonuses join that their papers pay in the reward (knn, knn+, knn-sent, entropy, ltree, ppl, repexp, "
        "unlikely, rarity by darling or ips), one level or one per bonus separated by commas: advantage (less its mean "
        "in the group, added after the group normalisation: the weight means the same in every group; ours) or reward "
        "(before it: the papers).",
    )
    ir_schedule: str = flag(
        "constant",
        "Shape of the weight over training: constant, linear or cosine. Both fall to 0, which is plain GRPO and would "
        "come after the last update: of the T updates after the warm-up the last has 1/T of the weight under linear.",
    )
    ir_warmup_steps: int = flag(
        0, "Optimiser steps over which the weight rises linearly from 0, which is plain GRPO; 0 or more."
    )
    ir_clip: float = flag(
        5.0,
        "Raw bonus values are clipped to [-ir_clip, ir_clip]; not those of passk, maxrl, nsr, risk, rarity, sc, "
        "certain and majority.",
    )
    ir_min_std: float = flag(
        0.0, "A group whose scaled bonus has a standard deviation below this gets no bonus from it (reward placement)."
    )
    match_mass: bool = flag(
        False,
        "Scale the advantages of each generation batch, bonuses included, so that their absolute values have the sum "
        "that plain GRPO's have on it: true or false.",
    )

    def __post_init__(self):
        names = parse_names(self.use_ir, self.REWARDS)
        levels = self._parse_levels(names)
        weights = self._parse_weights(names, levels)
        self.bonus_names = [name for name in names if name not in self.REWARDS]
        self.levels = [level for name, level in zip(names, levels, strict=True) if name not in self.REWARDS]
        self.weights = [weight for name, weight in zip(names, weights, strict=True) if name not in self.REWARDS]
        self.reward_weights = {
            name: weight for name, weight in zip(names, weights, strict=True) if name in self.REWARDS
        }
        check_choice("ir_schedule", self.ir_schedule, WeightSchedule.SHAPES)
        if not self.encoder.strip():
            raise UserError("--encoder='' names no text encoder; leave it out for the default, or name one.")
        check_least(
            self, k=1, memory_questions=1, memory_responses=1, memory_window=1, ir_warmup_steps=0, shuffle_seed=0
        )
        check_choice("shuffle_within", self.shuffle_within, SHUFFLE_WITHIN)
        if self.sc_alone and (len(self.bonus_names) != 1 or not bonus_class(self.bonus_names[0]).label_free):
            raise UserError(
                f"--sc_alone goes with one of {', '.join(label_free_names())} by itself, not with "
                f"--use_ir={self.use_ir!r}."
            )
        if self.sc_alone and self.match_mass:
            raise UserError(
                "--match_mass needs plain GRPO's advantages to match, and with --sc_alone no reward makes any; leave "
                "one of them out."
            )
        if not self.ir_clip > 0:  # inf clips nothing
            raise UserError(f"--ir_clip={self.ir_clip} must be above 0.")
        self._check_rule_has_weight()

    def check_task(self, task: str) -> None:
        """Raise `UserError` for a setting that needs what the rewards of ``task`` do not tell."""
        uses_rarity = "rarity" in (name.removeprefix(SHUFFLE) for name in self.bonus_names)
        if uses_rarity and self.rarity_partition in BY_APPROACH and task not in APPROACH_TASKS:
            raise UserError(
                f"--rarity_partition={self.rarity_partition} needs a normal form of approaches, which {task} does not "
                f"have ({' and '.join(APPROACH_TASKS)} do); use bigram, embedding or likelihood."
            )
        moves = self.rarity_partition != "answer" or self.rarity_rule != "redistribute" or task in SEVERAL_ANSWERS
        if uses_rarity and not moves:
            raise UserError(
                f"--rarity_partition=answer: all right answers to a problem of {task} are one answer, so no credit can "
                f"move; use {'exact, ' * (task in APPROACH_TASKS)}bigram, embedding or likelihood."
            )

    def _check_rule_has_weight(self) -> None:
        """Raise `UserError` for rarity by ips at level advantage without a weight: no default fits all groups."""
        placed = zip(self.bonus_names, self.levels, strict=True)
        added = any(name.removeprefix(SHUFFLE) == "rarity" and level == LEVELS[0] for name, level in placed)
        if added and self.rarity_rule == "ips" and not self.ir_weight.strip():
            raise UserError(
                "--rarity_rule=ips at --ir_level advantage adds up to --num_generations - 1 to advantages of about 1, "
                "and has no default weight there; use --ir_level reward, the paper's, or give --ir_weight."
            )

    def _parse_levels(self, names: list[str]) -> list[str]:
        levels = [level.strip() for level in self.ir_level.split(",")]
        for level in levels:
            if level not in LEVELS:
                raise UserError(f"--ir_level={self.ir_level!r}: {level!r} is unknown; use {' or '.join(LEVELS)}.")
        return _one_each("ir_level", self.ir_level, levels, names, "levels")

    def _parse_weights(self, names: list[str], levels: list[str]) -> list[float]:
        if not self.ir_weight.strip():
            level_of = dict(zip(names, levels, strict=True))
            return [self._default_weight(name, level_of) for name in names]
        try:
            weights = [float(weight) for weight in self.ir_weight.split(",")]
        except ValueError:
            raise UserError(f"--ir_weight={self.ir_weight!r} must be numbers separated by commas.") from None
        if not all(map(math.isfinite, weights)):
            raise UserError(f"--ir_weight={self.ir_weight!r} must be finite numbers.")
        return _one_each("ir_weight", self.ir_weight, weights, names, "weights")

    def _default_weight(self, name: str, level_of: Mapping[str, str]) -> float:
        if name in self.REWARDS:
            return 1.0
        # Noise is as strong as the bonus it stands beside, weight included, and stands where that does.
        beside = [other for other in level_of if other != NOISE and other not in self.REWARDS]
        source = beside[0] if name == NOISE and beside else name
        return default_weight(source, level_of[source])

    def schedules(self) -> list[WeightSchedule]:
        """One weight schedule per bonus of ``use_ir``."""
        return [WeightSchedule(weight, self.ir_schedule, self.ir_warmup_steps) for weight in self.weights]


def _one_each(flag_name: str, given: str, values: list, names: list[str], what: str) -> list:
    """``values`` of a flag, which are ``what``, one for each of ``names``; a single one is that of all."""
    if len(values) == 1:
        return values * len(names)
    if len(values) != len(names):
        raise UserError(
            f"--{flag_name}={given!r} has {len(values)} {what} for {len(names)} bonuses "
            f"({', '.join(names) or 'none'}); give one, or one per bonus."
        )
    return values


@dataclass
class MathIntrinsicOptions(IntrinsicOptions):
    """`IntrinsicOptions` with ``cosine``, the length-aware correctness reward that Memory-R compares with."""

    REWARDS: ClassVar[tuple[str, ...]] = ("cosine",)

    use_ir: str = flag("no", f"Bonus, or bonuses separated by commas: {known_names(REWARDS)}.")
