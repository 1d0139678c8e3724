"""Flags of outcome counts; each field's help is the sentence printed by ``--help``."""

from dataclasses import dataclass

from common.flags import flag


@dataclass
class OutcomeFlags:
    """Outcome-based exploration (outcome)."""

    outcome_mode: str = flag(
        "historical",
        "outcome: historical (counts of final answers over training) or batch (repetition within the group).",
    )
    outcome_baseline: str = flag(
        "group", "outcome, historical: subtracted from the bonus: group (its mean in the group) or constant."
    )
    outcome_constant: float = flag(
        0.5, "outcome, historical: the constant baseline, from 0 (every answer is paid) to 1 (none is)."
    )
    outcome_scale: float = flag(
        0.2, "outcome: weight of the bonus beside the normalised reward, a finite number, 0 or more (ours)."
    )
    outcome_questions: int = flag(
        10_000, "outcome, historical: questions with counts, 1 or more; the one not met for longest is dropped (ours)."
    )
    outcome_answers: int = flag(
        1_000,
        "outcome, historical: answers counted per question, 1 or more; the rarest, then oldest, is dropped (ours).",
    )
