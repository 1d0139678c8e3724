"""Arms of an experiment on the known-truth world: each a bonus with flags in a world of its own, one record per seed.

Seeds come first and arms after, so that whatever is done holds whole seeds. A trial with a record is not run again.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cached_encoder import CachedEncoder
from benchmarks.known_truth import SETTINGS, Options, Trial, fresh_pipeline
from benchmarks.known_truth_env import FIT_STEPS, LENGTH, TOKENS, Policy, World, fitted_policy
from benchmarks.known_truth_records import Records, Row
from benchmarks.known_truth_report import Curves
from benchmarks.machine import publish_report
from common.flags import OutputFolder, OutputStem, check_least, flag, parse_one
from intrinsic.options import IntrinsicOptions


@dataclass(frozen=True)
class Arm:
    """A bonus, its flags beside the defaults, what sets its `World` apart, and `Options` beside the defaults; ``label``
    names it in tables, ``fit_steps`` are the updates that bring its policy to the prior."""

    label: str
    bonus: str
    flags: dict[str, Any] = field(default_factory=dict)
    world: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    fit_steps: int = FIT_STEPS

    @property
    def settings(self) -> dict[str, Any]:
        """What its records name of world and policy; the fit only where it is not that of the other experiments."""
        fit = {"fit_steps": self.fit_steps} if self.fit_steps != FIT_STEPS else {}
        return {"world": self.world} | fit

    @property
    def intrinsic(self) -> IntrinsicOptions:
        return IntrinsicOptions(use_ir=self.bonus, **SETTINGS, **self.flags)


@dataclass
class ArmOptions:
    """Which seeds are run, and where what they leave is kept."""

    seeds: int = flag(10, "Seeds of policy and sampling, counted from 0, 2 or more.")
    records: OutputFolder = flag("", "Folder of the records, one per arm and seed. Unset: outputs/.")
    output: OutputStem = flag("", "Report of all records: files without .md, .png. Unset: there.")

    report_only: bool = flag(False, "Run nothing; report the records that are there.")

    def __post_init__(self):
        check_least(self, seeds=2)

    @property
    def to_run(self) -> range:
        """The seeds whose missing trials are run."""
        return range(0 if self.report_only else self.seeds)


class ArmTrial(Trial):
    """A trial that also measures the mass of each strategy and exact Coverage@N."""

    coverage = (8, 64)

    def figures(self, probability: Tensor) -> dict[str, float]:
        """`Trial.figures`, the mass of the "common" and the "rare" strategy, and "coverage@N", the expected number of
        different right approaches in N samples, sum over approaches of 1 - (1 - p)^N; means over problems."""
        masses = {name: getattr(self.world, name) for name in ("common", "rare")}
        found = {name: (probability * chosen).sum(dim=1).mean().item() for name, chosen in masses.items()}
        for n in self.coverage:
            counts = [
                sum(1 - (1 - row[places].sum()) ** n for places in ways)
                for row, ways in zip(probability, self.world.approaches, strict=True)
            ]
            found[f"coverage@{n}"] = torch.stack(counts).mean().item()
        return super().figures(probability) | found


def text_certainties(policy: Policy, problems: int) -> dict[str, Tensor]:
    """What label-free rewards pay each text for, (P, S) float64 in nats per token: "sc" mean self-certainty,
    "certain" minus mean entropy; by one pass over the tree of prefixes, as `Policy.distribution`."""
    states, totals = policy.start(torch.arange(problems)), torch.zeros(2, problems, 1)
    for place in range(LENGTH):
        logps = policy.head(states).log_softmax(dim=-1)
        certainty = -logps.mean(dim=1) - math.log(len(TOKENS))
        nodes = torch.stack([certainty, (logps.exp() * logps).sum(dim=1)]).view(2, problems, -1)
        # (2, P, prefixes) -> (2, P, prefixes * tokens): a text has the values of all its prefixes
        totals = (totals + nodes).repeat_interleave(len(TOKENS), dim=2)
        if place < LENGTH - 1:
            tokens = torch.arange(len(TOKENS)).repeat(len(states))
            states = policy.step(states.repeat_interleave(len(TOKENS), dim=0), tokens)
    return dict(zip(("sc", "certain"), totals.double() / LENGTH, strict=True))


def right_above_wrong(values: Tensor, probability: Tensor, right: Tensor) -> float:
    """Chance that a right text has a higher value than a wrong one, ties half, both drawn from the policy; the mean
    over problems. All (P, S)."""
    chances = []
    for value, mass, is_right in zip(values, probability, right, strict=True):
        wrong, weights = value[~is_right], mass[~is_right] / mass[~is_right].sum()
        ours = mass[is_right] / mass[is_right].sum()
        # (R, 1) against (W,) -> (R,): how much wrong mass lies below each right text
        above = torch.sign(value[is_right][:, None] - wrong).to(weights.dtype)
        below = (0.5 + 0.5 * above) @ weights
        chances.append((ours * below).sum())
    return torch.stack(chances).mean().item()


def run_arms(
    arms: Sequence[Arm], seeds: Sequence[int], folder: str | Path, make_trial: Callable[..., Trial] = ArmTrial
) -> dict[str, Records]:
    """Run every arm of every seed that has no record and that no other process works at; label -> its records."""
    root, options = Records(folder, {}), {arm.label: Options(bonuses="no", **arm.options) for arm in arms}
    records = {arm.label: _records(arm, options[arm.label], root.folder) for arm in arms}
    worlds: dict[str, World] = {}
    encode = CachedEncoder(arms[0].intrinsic.encoder)
    for seed in seeds:
        with root.claim(seed) as is_ours:
            missing = [arm for arm in arms if is_ours and not records[arm.label].has(Row(arm.bonus), seed)]
            keys = {arm.label: str((options[arm.label].problems, arm.settings)) for arm in missing}
            for place, key in enumerate(dict.fromkeys(keys.values())):
                group = [arm for arm in missing if keys[arm.label] == key]
                if key not in worlds:
                    worlds[key] = World(options[group[0].label].problems, **group[0].world)
                world, start = worlds[key], time.perf_counter()
                policy = fitted_policy(world, seed, group[0].fit_steps)
                fitted = time.perf_counter() - start
                for arm in group:
                    begun, intrinsic = time.perf_counter(), arm.intrinsic
                    bonuses, alone = fresh_pipeline(intrinsic), {"sc_alone": intrinsic.sc_alone}
                    trial = make_trial(world, policy, bonuses, options[arm.label], seed, encode, **alone)
                    records[arm.label].save(Row(arm.bonus), seed, trial.run())
                    took = time.perf_counter() - begun
                    print(f"seed {seed}, world {place}, {arm.label}: {took:.0f} s (policy {fitted:.0f} s)", flush=True)
    return records


def _records(arm: Arm, options: Options, root: Path) -> Records:
    return Records(root / arm.label.replace(" ", "_"), options.settings(arm.intrinsic) | arm.settings)


def read_arms(records: dict[str, Records]) -> tuple[Curves, list[str]]:
    """Label -> seed -> curve of all records, and the commits that they are of."""
    found = {label: own.read() for label, own in records.items()}
    curves = {label: {record["seed"]: record["curve"] for record in own} for label, own in found.items() if own}
    return curves, sorted({str(record["commit"]) for own in found.values() for record in own})


def empty_cells(arms: Sequence[Arm], curves: Curves, seeds: int) -> list[str]:
    """One phrase for each arm that lacks records of some of the planned ``seeds``."""
    missing = {arm.label: seeds - len([seed for seed in curves.get(arm.label, {}) if seed < seeds]) for arm in arms}
    return [f"{label}: {count} of {seeds}" for label, count in missing.items() if count]


def run_experiment(
    arms: Sequence[Arm],
    folder: str,
    make_trial: Callable[..., Trial],
    report: Callable[[Curves, list[str], int], str],
    plot: Callable[[Curves, Path], None],
) -> None:
    """Command line of an experiment: the arms, then its report and picture of all records, in ``folder`` by default."""
    options = parse_one(ArmOptions)
    records = run_arms(arms, options.to_run, options.records or folder, make_trial)
    curves, commits = read_arms(records)
    text = report(curves, commits, options.seeds)
    publish_report(options.output or f"{folder}/report", text, partial(plot, curves))
