"""When the watchdogs warn, and what a warning is. The papers give no thresholds; those here are ours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """When a watchdog warns. Windows and waits are in logged steps, shares in [0, 1], errors in standard errors."""

    # In our Countdown runs the accuracy of one batch has a standard deviation of 0.05, the mean of ten one of 0.016.
    window: int = 10
    # Every log is a new test: one chance in a thousand (3) is affordable, one in twenty (2) is not.
    errors: float = 3.0
    # The best of many windows is partly luck: a long plateau often lies 3 errors below it.
    peak_errors: float = 4.5
    # A fifth of the whole format reward is far beyond noise, and well before the reward is exhausted.
    format_rise: float = 0.2
    # Healthy runs learn the format first too; accuracy gets this long to follow.
    format_patience: int = 50
    # Less than the 0.063 by which the seeds of the GRPO baseline differ in table 1 of Memory-R+.
    accuracy_flat: float = 0.05
    # "Flat" is a claim too: 95 % sure that accuracy did not gain that much, else a noisy run would pass for flat.
    flat_errors: float = 2.0
    # From here up accuracy has no room to follow the format.
    accuracy_ceiling: float = 0.9
    # One completion in twenty is too rare for most groups of 8 or 16 to hold both kinds, so that nothing is learnt.
    format_adopted: float = 0.05
    # Slow adoption, which needs only time, rises by more than this.
    format_adopting: float = 0.01
    # Memory-R+ saw about 10 tokens where a solution takes 100; half is reached long before.
    length_collapse: float = 0.5
    # Dropping idle talk shortens completions too, but then accuracy gains at least this.
    length_accuracy: float = 0.02
    # Cut-off completions have no answer; a third of them is a third of the batch lost.
    truncated: float = 0.3
    # A limit that was too short from the start is no runaway.
    truncated_rise: float = 0.15
    # Solutions of GSM8K by language models have 0.09 on average and 0.3 at the 99th percentile, loops 0.8 and more.
    repetition: float = 0.4
    # Tasks that ask for lists of similar lines start higher.
    repetition_rise: float = 0.2
    # Half of a group alike leaves it half of its signal; our Countdown runs have 0.02 to 0.08.
    identical: float = 0.5
    # Short answers to easy problems coincide from the start.
    identical_rise: float = 0.2
    # Our Countdown runs keep 0.9 of their first entropy; a policy that merely grows sure may lose half.
    entropy_collapse: float = 0.25
    # Exploration that pays off may double it; texts that come apart go beyond.
    entropy_runaway: float = 2.0
    # Nats: a policy that was nearly certain doubles from next to nothing.
    entropy_rise: float = 0.3
    # As for length: what gains accuracy is no failure.
    entropy_accuracy: float = 0.02
    # About the half-width of the interval of an evaluation on 500 problems.
    accuracy_fall: float = 0.05
    # Relative to the bonus, because bonuses have no common scale.
    bonus_rise: float = 0.1


@dataclass(frozen=True)
class TrainingWarning:
    """What a watchdog saw: the step, a sentence with the numbers, what to try, and the numbers by name."""

    watchdog: str
    step: int
    message: str
    advice: str
    numbers: dict[str, float]

    @property
    def line(self) -> str:
        """One line for the log."""
        return f"warning at step {self.step}: {self.watchdog}: {self.message}; {self.advice}"
