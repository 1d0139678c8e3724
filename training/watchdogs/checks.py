"""The checks of the watchdogs: pure functions from the history of a run to a warning, or None.

Reward-mode and length collapse: Memory-R+ (arXiv:2504.02273v1, section 4.3). Loss of length, repetition and collapse of
the policy: INTUITOR (arXiv:2505.19590v2) and its users. Rise, then fall below the start, under intrinsic rewards:
arXiv:2506.17219. Entropy that runs away while accuracy falls: users of clip-higher (rllm, issue 116).
"""

from collections.abc import Callable, Iterable
from functools import partial

from intrinsic import bonus_class
from rewards.gsm8k import SHAPE_REWARD
from training.watchdogs.history import Change, History, change, highest_window
from training.watchdogs.thresholds import Thresholds, TrainingWarning

ACCURACY = "rewards/correctness/mean"
LENGTH = "completions/mean_length"
REPETITION = "completions/repetition"
IDENTICAL = "completions/identical"
# Most that each reward for shape alone can pay; other columns are not taken for such rewards.
SHAPE_MAXIMA = {
    "format": 1.0,
    "steps": 1.0,
    "integer": SHAPE_REWARD,
    "xml_count": SHAPE_REWARD,
    "soft_format": SHAPE_REWARD,
    "strict_format": SHAPE_REWARD,
    "box_format": SHAPE_REWARD,
}
# Kinds of wrong completions whose advantages are logged, see `intrinsic.rollout.KINDS`.
WRONG_KINDS = {"wrong_answer": "completions with a wrong answer", "no_answer": "completions without an answer"}
FORMATS = ("format", "xml_count", "soft_format", "strict_format", "box_format")


def reward_mode_collapse(history: History, limits: Thresholds) -> TrainingWarning | None:
    """A reward for shape alone rose some time ago, and accuracy has stayed flat."""
    for name, most in SHAPE_MAXIMA.items():
        shape, accuracy = history.columns(f"rewards/{name}/mean", ACCURACY)
        learnt = change(shape[: -limits.format_patience] / most, limits.window)
        if learnt is None:
            continue
        kept, right = change(shape / most, limits.window), change(accuracy, limits.window)
        has_risen = all(part.rose(limits.format_rise, limits.errors) for part in (learnt, kept))
        is_flat = (
            right.difference + limits.flat_errors * right.error < limits.accuracy_flat
            and right.after < limits.accuracy_ceiling
        )
        if has_risen and is_flat:
            return TrainingWarning(
                "reward-mode collapse",
                history.step,
                f"the {name} reward rose from {kept.before:.1%} to {kept.after:.1%} of its maximum, "
                f"but accuracy only went from {right.before:.1%} to {right.after:.1%}",
                "the policy learns the shape and not the task: lower --format_weight, or take easier problems",
                _numbers(name, kept) | _numbers("accuracy", right),
            )
    return None


def format_never_adopted(history: History, limits: Thresholds) -> TrainingWarning | None:
    """After the first steps, hardly any completion has the shape that the rewards ask for, and no more come."""
    changes = {}
    for name in FORMATS:
        found = change(history.columns(f"rewards/{name}/mean")[0] / SHAPE_MAXIMA[name], limits.window)
        if found is not None:
            changes[name] = found
    if not changes:
        return None
    name, best = max(changes.items(), key=lambda item: item[1].after)
    if best.after >= limits.format_adopted or best.rose(limits.format_adopting, limits.errors):
        return None
    return TrainingWarning(
        "format never adopted",
        history.step,
        f"the {name} reward, the most adopted, is at {best.after:.1%} of its maximum ({best.before:.1%} at the start)",
        "prompt and reward disagree, or the policy never tries the format: read some completions, show it examples "
        "(--num_shots) or begin with supervised training",
        _numbers(name, best),
    )


def length_collapse(history: History, limits: Thresholds) -> TrainingWarning | None:
    """Completions shrank since they were longest, and accuracy gained nothing from it."""
    length, accuracy = history.columns(LENGTH, ACCURACY)
    start = highest_window(length, limits.window)
    tokens, right = change(length, limits.window, start), change(accuracy, limits.window, start)
    if tokens is None or tokens.after > limits.length_collapse * tokens.before:
        return None
    if not tokens.fell(0.0, limits.errors) or right.difference >= limits.length_accuracy:
        return None
    return TrainingWarning(
        "length collapse",
        history.step,
        f"completions shrank from {tokens.before:.0f} to {tokens.after:.0f} tokens while accuracy went from "
        f"{right.before:.1%} to {right.after:.1%}",
        "reasoning is being dropped: raise --beta, lower --learning_rate, or weaken a reward for short answers",
        _numbers("mean_length", tokens) | _numbers("accuracy", right),
    )


def length_runaway(history: History, limits: Thresholds) -> TrainingWarning | None:
    """Many completions are cut off at the token limit, far more than at the start."""
    return _risen_share(
        history,
        limits,
        ("completions/clipped_ratio", limits.truncated, limits.truncated_rise),
        "length runaway",
        "completions are cut off at the token limit",
        "they earn no answer: raise --L if they were still reasoning, else raise --beta or lower --learning_rate",
    )


def repetition(history: History, limits: Thresholds) -> TrainingWarning | None:
    """Completions repeat themselves, far more than at the start."""
    return _risen_share(
        history,
        limits,
        (REPETITION, limits.repetition, limits.repetition_rise),
        "repetition",
        "the four-grams in a completion repeat an earlier one",
        "the policy loops: raise --beta, lower --learning_rate, or weaken the bonus that pays for it",
    )


def identical_completions(history: History, limits: Thresholds) -> TrainingWarning | None:
    """The completions of a group are often the same text, far more than at the start."""
    return _risen_share(
        history,
        limits,
        (IDENTICAL, limits.identical, limits.identical_rise),
        "identical completions",
        "completions have a twin in their group",
        "groups carry little signal: raise --temperature, or take harder problems",
    )


def _risen_share(
    history: History, limits: Thresholds, share: tuple[str, float, float], watchdog: str, what: str, advice: str
) -> TrainingWarning | None:
    """``share``: (metric, least level, least rise since the start)."""
    key, level, rise = share
    found = change(history.columns(key)[0], limits.window)
    if found is None or found.after < level or not found.rose(rise, limits.errors):
        return None
    message = f"{found.after:.1%} of {what} ({found.before:.1%} at the start)"
    return TrainingWarning(watchdog, history.step, message, advice, _numbers(key.split("/")[-1], found))


def entropy_collapse(history: History, limits: Thresholds) -> TrainingWarning | None:
    """The entropy per token fell to a small part of what it was at the start."""
    entropy = change(history.columns("entropy")[0], limits.window)
    if entropy is None or entropy.after > limits.entropy_collapse * entropy.before:
        return None
    if not entropy.fell(0.0, limits.errors):
        return None
    return TrainingWarning(
        "entropy collapse",
        history.step,
        f"entropy fell from {entropy.before:.3g} to {entropy.after:.3g} nats per token",
        "the policy hardly explores: raise --beta or --temperature, or lower --learning_rate",
        _numbers("entropy", entropy),
    )


def entropy_runaway(history: History, limits: Thresholds) -> TrainingWarning | None:
    """The entropy per token rose to a multiple of what it was at the start, and accuracy gained nothing from it."""
    values, accuracy = history.columns("entropy", ACCURACY)
    entropy, right = change(values, limits.window), change(accuracy, limits.window)
    if entropy is None or entropy.after < limits.entropy_runaway * entropy.before:
        return None
    if not entropy.rose(limits.entropy_rise, limits.errors) or right.difference >= limits.entropy_accuracy:
        return None
    return TrainingWarning(
        "entropy runaway",
        history.step,
        f"entropy rose from {entropy.before:.3g} to {entropy.after:.3g} nats per token while accuracy went from "
        f"{right.before:.1%} to {right.after:.1%}",
        "texts come apart: lower --learning_rate or --entropy_coef, raise --beta, or with nsr raise --nsr_lambda",
        _numbers("entropy", entropy) | _numbers("accuracy", right),
    )


def wrong_answers_paid(history: History, limits: Thresholds, kind: str) -> TrainingWarning | None:
    """The mean advantage of wrong answers of a kind is positive over the last window: training makes more of them."""
    (advantage,) = history.columns(f"advantage/{kind}")
    if len(advantage) < limits.window:
        return None
    recent = advantage[-limits.window :]
    mean, error = float(recent.mean()), float(recent.std(ddof=1) / len(recent) ** 0.5)
    if mean <= limits.errors * error:
        return None
    what = WRONG_KINDS[kind]
    return TrainingWarning(
        f"wrong answers paid ({kind})",
        history.step,
        f"{what} had a mean advantage of {mean:+.3f} over {limits.window} steps",
        "training makes them more frequent: lower --ir_weight, use --ir_level advantage, or lower --format_weight",
        {"advantage": mean, "error": error},
    )


def bonus_against_accuracy(history: History, limits: Thresholds, bonus: str) -> TrainingWarning | None:
    """The bonus rose while accuracy fell, both since accuracy was best; a bonus of weight 0 moves nothing."""
    measured = f"ir/{bonus}/{bonus_class(bonus).measured}"
    accuracy, raw, weight = history.columns(ACCURACY, measured, f"ir/{bonus}/weight")
    start = highest_window(accuracy, limits.window)
    right, paid = change(accuracy, limits.window, start), change(raw, limits.window, start)
    if right is None or weight[-1] == 0.0 or not right.fell(limits.accuracy_fall, limits.peak_errors):
        return None
    if not paid.rose(limits.bonus_rise * abs(paid.before), limits.errors):
        return None
    return TrainingWarning(
        f"bonus against accuracy ({bonus})",
        history.step,
        f"the bonus {bonus} rose from {paid.before:.3g} to {paid.after:.3g} while accuracy fell from its best, "
        f"{right.before:.1%}, to {right.after:.1%}",
        "the policy is optimising the bonus: lower --ir_weight, let it decay (--ir_schedule), or stop and take best/",
        _numbers("raw", paid) | _numbers("accuracy", right),
    )


def held_out_fall(history: History, limits: Thresholds) -> TrainingWarning | None:
    """The interval of the last held-out accuracy lies wholly below that of the best one."""
    if not history.evaluations:
        return None
    last, best = history.evaluations[-1], max(history.evaluations, key=lambda report: report["mean"])
    if last["high"] >= best["low"] or best["mean"] - last["mean"] <= limits.accuracy_fall:
        return None
    return TrainingWarning(
        "held-out accuracy fell",
        last["step"],
        f"held-out accuracy is {last['mean']:.1%} [{last['low']:.1%}, {last['high']:.1%}], at step {best['step']} it "
        f"was {best['mean']:.1%} [{best['low']:.1%}, {best['high']:.1%}]",
        "more training is making the policy worse: stop and take best/, or lower --learning_rate",
        {"best": best["mean"], "best_step": best["step"], "last": last["mean"]},
    )


def _numbers(name: str, found: Change) -> dict[str, float]:
    return {f"{name}_before": found.before, f"{name}_after": found.after}


Check = Callable[[History], TrainingWarning | None]


def training_checks(limits: Thresholds, bonuses: Iterable[str]) -> list[Check]:
    """The checks to run after every log, with those of the bonuses named."""
    checks = (
        reward_mode_collapse,
        format_never_adopted,
        length_collapse,
        length_runaway,
        repetition,
        identical_completions,
        entropy_collapse,
        entropy_runaway,
    )
    return [
        *(partial(check, limits=limits) for check in checks),
        *(partial(wrong_answers_paid, limits=limits, kind=kind) for kind in WRONG_KINDS),
        *(partial(bonus_against_accuracy, limits=limits, bonus=bonus) for bonus in bonuses),
    ]
