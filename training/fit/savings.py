"""Which flags take less memory, what changes the experiment least first, with the estimated peak after each."""

from dataclasses import replace

from transformers import PretrainedConfig

from policy.options import PolicyOptions
from training.fit.estimate import Work, estimate


def savings(
    architecture: PretrainedConfig, policy: PolicyOptions, work: Work, limit: int | None = None
) -> list[tuple[str, int]]:
    """(flag, peak bytes with it and those before it), what changes the experiment least first; none that saves nothing.

    Up to ``limit`` bytes: flags that leave the update as it is are turned as far as they help before one is that does
    not, and nothing is turned once the peak is within. Without a limit each flag is turned once.
    """
    found, peak = [], estimate(architecture, policy, work).peak
    neutral, others = CHOICES[:NEUTRAL], CHOICES[NEUTRAL:]
    groups = [CHOICES] if limit is None else [neutral + others[:count] for count in range(len(others) + 1)]
    for group in groups:
        before = None
        while before != peak and (limit is None or peak > limit):
            before = peak
            for choose in group:
                choice = choose(policy, work) if limit is None or peak > limit else None
                if choice is None:
                    continue
                flag, *changed = choice
                after = estimate(architecture, *changed).peak
                if after < peak:
                    found.append((flag, after))
                    policy, work = changed
                    peak = after
            if limit is None:
                break
    return found


def _smaller_micro_batch(policy: PolicyOptions, work: Work):
    smaller = _half(work.micro_batch)
    return (f"--micro_batch {smaller}", policy, replace(work, micro_batch=smaller)) if smaller else None


def _checkpointing(policy: PolicyOptions, work: Work):
    if work.checkpointing:
        return None
    return "--gradient_checkpointing true", policy, replace(work, checkpointing=True)


def _smaller_sampling(policy: PolicyOptions, work: Work):
    smaller = work.sampled_at_once // 2
    return (f"--sampling_batch {smaller}", policy, replace(work, sampling_batch=smaller)) if smaller else None


def _smaller_evaluation(policy: PolicyOptions, work: Work):
    smaller = work.evaluation_batch // 2
    return (f"--eval_batch_size {smaller}", policy, replace(work, evaluation_batch=smaller)) if smaller else None


def _smaller_generation(policy: PolicyOptions, work: Work):
    smaller = work.generation_batch // 2
    if smaller % work.micro_batch or smaller % work.num_generations:
        return None
    steps = smaller // work.micro_batch
    return f"--steps_per_generation {steps}", policy, replace(work, generation_batch=smaller)


def _adapter(policy: PolicyOptions, work: Work):
    return (
        None
        if policy.lora
        else ("--lora", replace(policy, lora=True), replace(work, reference=False, initial_copy=False))
    )


def _shorter(policy: PolicyOptions, work: Work):
    shorter = work.completion // 2
    return (f"--L {shorter}", policy, replace(work, completion=shorter)) if shorter else None


def _half(count: int) -> int:
    """The largest divisor of ``count`` that is at most half of it; 0 for 1."""
    return next((part for part in range(count // 2, 0, -1) if count % part == 0), 0)


# The first `NEUTRAL` leave the update as it is; the one after them lets bonuses see half as many completions at a time.
CHOICES = (
    *(_smaller_micro_batch, _checkpointing, _smaller_sampling, _smaller_evaluation),
    *(_smaller_generation, _adapter, _shorter),
)
NEUTRAL = 4
