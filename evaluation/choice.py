"""What is reported of multiple choice beside accuracy: chance, letters, and all rotations of the options."""

from collections.abc import Sequence

import numpy as np

from evaluation.metrics import mean_interval
from rewards.choice import constant_accuracy, entropy, letter_shares, said_letters


def chance_corrected(accuracy: float, num_options: Sequence[int]) -> float:
    """(accuracy - c) / (1 - c), where c is the mean of 1 / options: 0 for guesses, 1 for all right."""
    chance = float(np.mean([1 / count for count in num_options]))
    return (accuracy - chance) / (1 - chance)


def choice_metrics(records: Sequence[dict]) -> dict:
    """Metrics of records with columns choices, gold, answer and medium.

    ``chance_corrected``: see there. ``letters/<letter>``: share among the options named; ``letters/entropy`` in nats;
    ``letters/constant``: accuracy of always saying the most frequent one. Where records have question_id and rotation,
    also ``circular``: the share of questions that are right in all rotations of their options (sample by sample).
    """
    choices = [record["choices"] for record in records]
    said = said_letters([record["answer"] for record in records], choices)
    gold = said_letters([record["gold"] for record in records], choices)
    shares = letter_shares(said)
    accuracy = float(np.mean([record["medium"] for record in records]))
    metrics = {
        "chance_corrected": chance_corrected(accuracy, [len(options) for options in choices]),
        **{f"letters/{letter}": share for letter, share in shares.items()},
        "letters/entropy": entropy(shares),
        "letters/constant": constant_accuracy(said, gold),
    }
    if "rotation" in records[0]:
        right: dict = {}
        for record in records:
            samples = right.setdefault(record["question_id"], {})
            samples[record["sample"]] = samples.get(record["sample"], True) and record["medium"]
        metrics["circular"] = mean_interval([list(samples.values()) for samples in right.values()])
    return metrics
