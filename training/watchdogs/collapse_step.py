"""The step of collapse under a label-free reward: when held-out accuracy has fallen while the reward still rises.

Such rewards are known to lift accuracy first and to destroy it later, at a step that the policy's prior sets
(arXiv:2603.08660, which counts its "model collapse step"; the rule here is ours).
"""

from intrinsic import bonus_class
from training.watchdogs.history import History
from training.watchdogs.thresholds import Thresholds, TrainingWarning


def collapse_step(history: History, limits: Thresholds, bonus: str) -> TrainingWarning | None:
    """The last evaluation lies more than ``limits.accuracy_fall`` below the best one, and what ``bonus`` pays for has
    risen since that one, both as means over ``limits.window`` logged steps; a bonus of weight 0 moves nothing.

    The first evaluation of a run of which this holds is its step of collapse, the number "collapse_step".
    """
    paid = f"ir/{bonus}/{bonus_class(bonus).measured}"
    steps, measured, weight = history.columns("step", paid, f"ir/{bonus}/weight")
    if not history.evaluations or not len(steps) or weight[-1] == 0.0:
        return None
    last, best = history.evaluations[-1], max(history.evaluations, key=lambda report: report["mean"])
    if best["mean"] - last["mean"] <= limits.accuracy_fall:
        return None
    until = measured[steps <= best["step"]]
    before = float((until[-limits.window :] if len(until) else measured[: limits.window]).mean())
    after = float(measured[-limits.window :].mean())
    if after <= before:
        return None
    return TrainingWarning(
        f"step of collapse ({bonus})",
        last["step"],
        f"held-out accuracy fell from {best['mean']:.1%} at step {best['step']} to {last['mean']:.1%} while what "
        f"{bonus} pays for rose from {before:.3g} to {after:.3g}",
        "the reward no longer agrees with correctness: stop and take best/",
        {"collapse_step": last["step"], "best_step": best["step"], "before": before, "after": after},
    )
