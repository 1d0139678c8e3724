"""Does a bonus explore? Every bonus on a Countdown of which all is known: see docs/known_truth.md.

python -m benchmarks.known_truth --output benchmarks/results/known_truth

Every problem has a common and a rare right strategy; plain GRPO is expected to end with the common one alone. The
bonuses, their pipeline, the text encoder and the grader are those of training; policy and measures are exact.

Every trial leaves a record under --records, and one that has a record is not run again: the same command goes on after
an interruption, and started twice it shares the seeds between two processes.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.cached_encoder import CachedEncoder
from benchmarks.known_truth_env import LENGTH, TOKENS, Policy, World, fitted_policy
from benchmarks.known_truth_records import Records, Row, curves_by_row, rows_of
from benchmarks.known_truth_report import plot, report
from benchmarks.machine import publish_report
from common.errors import UserError, check_number, run_cli
from common.flags import OutputFolder, OutputStem, check_least, flag, parse_command
from intrinsic import REGISTRY, build_bonuses
from intrinsic.base import LEVELS
from intrinsic.match_mass import match_mass, plain_advantages, trained_tokens
from intrinsic.options import IntrinsicOptions
from intrinsic.pipeline import BonusPipeline, ScoredBonus, reward_advantages
from intrinsic.rollout import Rollout
from policy.features import mean_state

SHUFFLED = ("rnd", "repexp", "outcome", "knn+")
MOST_PROBLEMS = 60
EVERY = 10  # steps between two exact measurements
# Methods that wait for a number of batches wait here for a tenth of the run, and the shortest run that coherence asks
# for is one token, as a whole text has five. Everything else is as --help says.
SETTINGS = {"cfn_warmup": 10, "cfn_min_run": 1}
ROW_FLAGS = {"use_ir": "bonuses", "ir_level": "levels"}  # flags of training that the rows set -> the flag for it here


@dataclass
class Options:
    """What is run, and where it is kept."""

    bonuses: str = flag(
        ",".join([*REGISTRY, *(f"shuffle:{name}" for name in SHUFFLED)]),
        "Bonuses and controls, separated by commas; no is run in any case.",
    )
    levels: str = flag(
        ",".join(LEVELS), "Levels of bonuses that --ir_level moves, one row each: advantage, reward or both."
    )
    seeds: int = flag(20, "Seeds of policy and sampling, 2 or more.")
    steps: int = flag(100, "Updates, 1 or more.")
    problems: int = flag(8, f"Problems, 1 to {MOST_PROBLEMS}; all are in every batch.")
    num_generations: int = flag(8, "Completions per problem and batch, 2 or more.")
    learning_rate: float = flag(3e-3, "Of Adam, above 0; chosen with no bonus, see the document.")
    looks: int = flag(1, "How often the report was read while seeds were added, this time included; p is multiplied.")
    records: OutputFolder = flag("outputs/known_truth", "Folder of the records, one file per trial, of one setting.")
    output: OutputStem = flag("outputs/known_truth", "Report of all records there: files without .md, .png.")

    def __post_init__(self):
        check_least(self, seeds=2, steps=1, num_generations=2, looks=1)
        check_number("problems", self.problems, least=1, most=MOST_PROBLEMS)
        check_number("learning_rate", self.learning_rate, above=0)
        levels = list(dict.fromkeys(self.levels.split(",")))
        unknown = [level for level in levels if level not in LEVELS]
        if unknown:
            raise UserError(f"--levels={self.levels!r}: {unknown[0]!r} is unknown; use {' or '.join(LEVELS)}, or both.")
        self.rows = rows_of(self.bonuses.split(","), levels)

    def settings(self, intrinsic: IntrinsicOptions) -> dict:
        """Flag -> value of everything that makes a trial what it is, beside its row and seed."""
        shared = {name: getattr(self, name) for name in ("steps", "problems", "num_generations", "learning_rate")}
        flags = {name: value for name, value in asdict(intrinsic).items() if name not in ROW_FLAGS}
        return shared | flags


class Step(NamedTuple):
    """What one update was made of: the batch, what each bonus paid for it, and the scalars that they would log."""

    rollout: Rollout
    scored: list[ScoredBonus]
    learnt: dict[str, float]


class Trial:
    """One policy trained with one choice of bonuses; measured every `every` steps.

    Args:
        policy: where it starts; not changed.
        bonuses: pipeline with fresh bonuses.
        seed: of the sampling.
        match_mass: as --match_mass.
        sc_alone: as --sc_alone.
    """

    every = EVERY

    def __init__(
        self,
        world: World,
        policy: Policy,
        bonuses: BonusPipeline,
        options: Options,
        seed: int,
        encode: Callable,
        match_mass: bool = False,
        sc_alone: bool = False,
    ):
        self.world, self.options, self.bonuses, self.encode = world, options, bonuses, encode
        self.matches_mass, self.verdict_weight = match_mass, 0.0 if sc_alone else 1.0
        self.frozen, self.policy = policy, copy.deepcopy(policy)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=options.learning_rate)
        self.generator = torch.Generator().manual_seed(seed)
        self.problems = torch.arange(options.problems).repeat_interleave(options.num_generations)
        self.seen = torch.zeros_like(world.right)
        for bonus in bonuses.bonuses:
            bonus.check(options.num_generations, LENGTH)

    def run(self) -> list[dict[str, float]]:
        """Measurements before training and after every `every` steps."""
        curve = [self.measure(0)]
        for step in range(self.options.steps):
            self.train_step(step)
            if (step + 1) % self.every == 0 or step + 1 == self.options.steps:
                curve.append(self.measure(step + 1))
        return curve

    def train_step(self, step: int) -> Step:
        """Sample, score, let the bonuses learn, and one GRPO update on the batch."""
        sequences = self.policy.sample(self.problems, self.generator)
        rollout = self._rollout(sequences, step)
        scored = self.bonuses.score(rollout)
        columns = [rollout.rewards, *self.bonuses.reward_values(scored, self.options.num_generations)]
        rewards = torch.stack(columns, dim=1)
        weights = torch.tensor([self.verdict_weight] + [1.0] * (len(columns) - 1))
        settings = (weights, self.options.num_generations, "group")
        before = reward_advantages(rewards, *settings)
        advantages = self.bonuses.join(before, scored, rollout)
        if self.matches_mass:
            plain = plain_advantages(rewards, 1, scored, settings)
            advantages, _ = match_mass(advantages, before if plain is None else plain, trained_tokens(rollout, False))
        learnt = self.bonuses.update(rollout)
        logps = self._logps(self.policy, sequences)[1]
        weights = advantages if advantages.dim() == 2 else advantages[:, None]
        self.optimizer.zero_grad()
        (-(weights * logps).mean()).backward()
        self.optimizer.step()
        return Step(rollout, scored, learnt)

    def _logps(self, policy: Policy, sequences: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, distribution = policy(self.problems, sequences)
        return hidden, distribution.gather(2, sequences[..., None]).squeeze(2), distribution

    @torch.no_grad()
    def _rollout(self, sequences: Tensor, step: int) -> Rollout:
        places = (sequences * len(TOKENS) ** torch.arange(LENGTH - 1, -1, -1)).sum(dim=1)
        self.seen[self.problems, places] = True
        right = self.world.right[self.problems, places].float()
        pairs = list(zip(self.problems.tolist(), places.tolist(), strict=True))
        hidden, logps, distribution = self._logps(self.policy, sequences)
        certainty = -distribution.mean(dim=2) - torch.tensor(len(TOKENS)).log()
        frozen_hidden, _, frozen = self._logps(self.frozen, sequences)
        first_problem, mask = len(TOKENS) + 1, torch.ones_like(sequences, dtype=torch.bool)
        return Rollout(
            questions=[self.world.problems[problem].question for problem, _ in pairs],
            completions=[self.world.texts[problem][place] for problem, place in pairs],
            correct=right,
            rewards=right,
            num_generations=self.options.num_generations,
            answers=[self.world.answers[problem][place] for problem, place in pairs],
            approaches=[self.world.answers[problem][place] for problem, place in pairs],
            verdicts=[self.world.verdicts[problem][place] for problem, place in pairs],
            truncated=torch.zeros(len(pairs), dtype=torch.bool),
            step=step,
            max_steps=self.options.steps,
            completion_ids=sequences + 1,
            completion_mask=mask,
            prompt_ids=self.problems[:, None] + first_problem,
            prompt_mask=torch.ones(len(pairs), 1, dtype=torch.bool),
            vocab_size=first_problem + self.options.problems,
            features={
                "hidden": hidden,
                "mean_hidden": mean_state(hidden, mask),
                "logps": logps,
                "entropy": -(distribution.exp() * distribution).sum(dim=2),
                "self_certainty": certainty,
                "frozen_hidden": frozen_hidden,
                "frozen_mean_hidden": mean_state(frozen_hidden, mask),
                "frozen_self_certainty": -frozen.mean(dim=2) - torch.tensor(len(TOKENS)).log(),
            },
            encode=self.encode,
            decode=lambda ids: [" ".join(TOKENS[i - 1] for i in row if 0 < i <= len(TOKENS)) for row in ids],
        )

    @torch.no_grad()
    def measure(self, step: int) -> dict[str, float]:
        """Exact figures of the policy, and what has been sampled so far; means over problems."""
        return {"step": step} | self.figures(self.policy.distribution(self.options.problems).double().exp())

    def figures(self, probability: Tensor) -> dict[str, float]:
        """What `measure` tells of a policy that writes each text with ``probability`` (P, S)."""
        world = self.world
        right, rare = ((probability * chosen).sum(dim=1) for chosen in (world.right, world.rare))
        once = world.numbers_once.expand_as(self.seen)
        return {
            "pass@1": right.mean().item(),
            "pass@8": (1 - (1 - right) ** 8).mean().item(),
            "pass@64": (1 - (1 - right) ** 64).mean().item(),
            "rare_share": (rare / right).mean().item(),
            "rare@64": (1 - (1 - rare) ** 64).mean().item(),
            "right_found": (self.seen & world.right).sum(dim=1).double().mean().item(),
            "rare_found": (self.seen & world.rare).any(dim=1).double().mean().item(),
            "coverage": ((self.seen & once).sum(dim=1) / once.sum(dim=1)).mean().item(),
        }


def pipeline_of(row: Row, intrinsic: IntrinsicOptions) -> BonusPipeline:
    """Fresh bonuses for one trial, as the row and the flags say."""
    return fresh_pipeline(replace(intrinsic, use_ir=row.bonus, ir_level=row.level))


def fresh_pipeline(options: IntrinsicOptions) -> BonusPipeline:
    """The bonuses of ``options``, as a run begins with them."""
    return BonusPipeline(build_bonuses(options), options.schedules(), options.ir_clip, options.ir_min_std)


def run_trials(options: Options, intrinsic: IntrinsicOptions, records: Records) -> int:
    """Run the trials without a record of every seed that no other process works at.

    Returns how many trials are still without a record.
    """
    for row in options.rows:  # flags that do not go with one are refused before the first trial
        pipeline_of(row, intrinsic)
    world, encode = None, CachedEncoder(intrinsic.encoder)
    before, begun = _missing(options, records), time.perf_counter()
    for seed in range(options.seeds):
        with records.claim(seed) as is_ours:
            rows = [row for row in options.rows if is_ours and not records.has(row, seed)]
            if not rows:
                continue
            start, world = time.perf_counter(), world or World(options.problems)
            policy = fitted_policy(world, seed)
            for row in rows:
                trial = Trial(world, policy, pipeline_of(row, intrinsic), options, seed, encode, intrinsic.match_mass)
                records.save(row, seed, trial.run())
        left, now = _missing(options, records), time.perf_counter()
        minutes = left * (now - begun) / (before - left) / 60  # other processes' trials count too
        done = f"seed {seed}: {len(rows)} trials in {now - start:.0f} s"
        print(f"{done}; {left} of {options.seeds * len(options.rows)} left, about {minutes:.0f} minutes", flush=True)
    return _missing(options, records)


def _missing(options: Options, records: Records) -> int:
    return sum(not records.has(row, seed) for seed in range(options.seeds) for row in options.rows)


def write_report(records: Records, output: str, looks: int) -> None:
    """Table and plot of all records, as far as they go; the table is printed too.

    ``looks``: as `comparisons` takes it.
    """
    found = records.read()
    curves = curves_by_row(found)
    text = report(curves, sorted({str(record["commit"]) for record in found}), looks)
    publish_report(output, text, lambda path: plot(curves, path, looks))


def main() -> None:
    options, intrinsic = parse_command(Options, IntrinsicOptions, **SETTINGS)
    for name, instead in ROW_FLAGS.items():
        if getattr(intrinsic, name) != SETTINGS.get(name, getattr(IntrinsicOptions, name)):
            raise UserError(f"--{name}={getattr(intrinsic, name)!r} is set row by row here; use --{instead}.")
    records = Records(options.records, options.settings(intrinsic))
    missing = run_trials(options, intrinsic, records)
    if missing:
        print(f"{missing} trials have no record yet: another process is at them, or was stopped", flush=True)
    write_report(records, options.output, options.looks)


if __name__ == "__main__":
    run_cli(main)
