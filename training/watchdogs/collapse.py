"""The stop rule for collapse under an intrinsic reward: a callback that ends a run which is destroying its policy.

Policies paid for their own certainty are known to collapse: longer and longer answers that end in problems already
solved (INTUITOR, arXiv:2505.19590v2, section 5), repeated tokens with a jump of the KL divergence (reports of its
users), accuracy that rises, then falls below the start (arXiv:2506.17219). The watchdogs warn of the same conditions
early; this rule takes their checks at limits beyond which waiting costs more than it can bring back.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import TrainerCallback

from intrinsic import bonus_class
from training.watchdogs.checks import held_out_fall, length_collapse, length_runaway, repetition
from training.watchdogs.history import History
from training.watchdogs.thresholds import Thresholds, TrainingWarning

KL = "kl"
EXIT_CODE = 3  # neither a crash (1) nor bad input (2)


@dataclass(frozen=True)
class CollapseLimits:
    """When a run is stopped. The papers give no numbers; these are ours.

    Attributes:
        checks: limits of the watchdogs' checks, each beyond the one at which they warn.
        evaluations: held-out evaluations in a row whose interval lies wholly below that of the best one.
        kl: KL divergence from the reference policy in nats per token, median of the last ``kl_window`` logged steps.
        kl_window: logged steps.
    """

    # A third of the longest length, with no accuracy gained: below it no worked solution is left. Half of the batch cut
    # off leaves half of the signal, and a rise by 0.3 is no limit that was too short from the start. Loops repeat 0.8
    # of their four-grams, worked solutions 0.3 at the 99th percentile.
    checks: Thresholds = field(
        default=Thresholds(
            length_collapse=1 / 3, truncated=0.5, truncated_rise=0.3, repetition=0.6, repetition_rise=0.3
        )
    )
    # One interval in twenty is off by chance; two in a row are not.
    evaluations: int = 2
    # At 1 nat the reference gives a sampled token 37 % of the policy's probability on (geometric) average; our GRPO
    # runs on Countdown stay below 0.41. Median: a single token can blow up the mean of TRL's estimator for one step.
    kl: float = 1.0
    kl_window: int = 10


def held_out_collapse(history: History, limits: CollapseLimits) -> TrainingWarning | None:
    """`held_out_fall` at each of the last ``limits.evaluations`` evaluations."""
    warning = None
    for left_out in range(limits.evaluations):
        shorter = History()
        shorter.evaluations = history.evaluations[: len(history.evaluations) - left_out]
        found = held_out_fall(shorter, limits.checks)
        if found is None:
            return None
        warning = warning or found
    return warning


def kl_runaway(history: History, limits: CollapseLimits) -> TrainingWarning | None:
    """The policy has left its reference far behind; silent where no KL is logged (``--beta=0``)."""
    (values,) = history.columns(KL)
    if len(values) < limits.kl_window:
        return None
    median = float(np.median(values[-limits.kl_window :]))
    if median <= limits.kl:
        return None
    return TrainingWarning(
        "KL runaway",
        history.step,
        f"the KL divergence from the reference policy is {median:.3g} nats per token (limit {limits.kl:g})",
        "raise --beta or lower --learning_rate",
        {"kl": median},
    )


def collapse(history: History, limits: CollapseLimits) -> TrainingWarning | None:
    """What has collapsed, or None; depends on the history alone, so a resumed run decides as an uninterrupted one."""
    own = (check(history, limits) for check in (held_out_collapse, kl_runaway))
    shared = (check(history, limits.checks) for check in (length_collapse, length_runaway, repetition))
    return next((warning for warnings in (own, shared) for warning in warnings if warning is not None), None)


def stops_on_collapse(asked: bool | None, bonuses: Iterable[str]) -> bool:
    """Whether a run has the rule: as ``asked``, and unset only with a bonus that is `Bonus.label_free`."""
    return any(bonus_class(name).label_free for name in bonuses) if asked is None else asked


class CollapseCallback(TrainerCallback):
    """Stops training after the step in which `collapse` found something, with a checkpoint of that step.

    Args:
        history: gives the history of the run, evaluations and steps before a resume included; empty on all processes
            but the main one. That of a `WatchdogCallback`, which has to come before this callback.
        steps_per_generation: optimiser steps fed by one generation batch; checkpoints have to lie on a multiple of it.
        limits: when to stop.

    Attributes:
        warning: what stopped training, or None; on the main process.
        stopped: whether this rule stopped training; on every process.
    """

    def __init__(
        self, history: Callable[[], History], steps_per_generation: int = 1, limits: CollapseLimits | None = None
    ):
        self.limits = limits or CollapseLimits()
        self.warning: TrainingWarning | None = None
        self.stopped = False
        self._history = history
        self._steps_per_generation = steps_per_generation

    @property
    def message(self) -> str:
        """The sentence that ends the run; empty where ``warning`` is None."""
        if self.warning is None:
            return ""
        return (
            f"stopped at step {self.warning.step}: {self.warning.watchdog}: {self.warning.message}; "
            f"{self.warning.advice}; a checkpoint is saved, best/ holds the policy of the best held-out evaluation if "
            "there was one, and --resume auto --stop_on_collapse false goes on regardless"
        )

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.warning is None:
            self.warning = collapse(self._history(), self.limits)

    def on_step_end(self, args, state, control, **kwargs):
        if self._agree(args) and state.global_step % self._steps_per_generation == 0:
            self.stopped = True
            control.should_log = True
            control.should_save = True
            control.should_training_stop = True

    def _agree(self, args) -> bool:
        """Whether the main process has a warning; a rank that stopped alone would leave the others waiting for it."""
        found = self.warning is not None
        if args.world_size == 1:
            return found
        flag = torch.tensor(int(found), device=args.device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag)
