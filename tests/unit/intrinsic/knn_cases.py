"""Answers with known vectors, and memories and batches of them, for the tests of `knn`, `knn+` and `knn-sent`."""

import math

import torch

from intrinsic.knn_memory import MemoryRPlus
from intrinsic.rollout import Rollout, text_id

VECTORS = {
    "qA": (1.0, 0.0),
    "qB": (0.0, 1.0),
    "qC": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, 1.0),
    "left": (-1.0, 0.0),
    "steep": (0.6, 0.8),
    "flat": (0.8, 0.6),
    "flat.": (0.8, 0.6),
    "": (0.0, -1.0),
    "nan": (math.nan, 1.0),
    "broken": (math.nan, 1.0),
}


def encode(texts):
    return torch.tensor([VECTORS[text] for text in texts])


def rollout(answers, correct, questions="qA", encoder=encode, **more):
    questions = [questions] * len(answers) if isinstance(questions, str) else questions
    correct = torch.tensor(correct, dtype=torch.float32)
    more = {"step": 10, "max_steps": 20, "num_generations": len(answers), **more}
    return Rollout(questions, answers, correct, rewards=correct, encode=encoder, **more)


def memory_bonus(cls=MemoryRPlus, success=(), failure=(), **settings):
    bonus = cls(**settings)
    for name, entries in (("success", success), ("failure", failure)):
        for question, answer in entries:
            bonus.memories[name].insert(text_id(question), *encode([question, answer]))
    return bonus


def raws(bonus, batch):
    """Raw values of each part."""
    return {part: raw.values for part, raw in bonus.raw_parts(bonus.embed(batch), batch).items()}


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-5, rtol=0)


def random_rollout(seed, groups=3, size=8, dim=12, step=10):
    """Groups of random answers; every text has one fixed random vector."""
    generator = torch.Generator().manual_seed(seed)
    questions = [f"question {seed % 2} {group}" for group in range(groups) for _ in range(size)]
    answers = [f"answer {int(number)}" for number in torch.randint(50, (groups * size,), generator=generator)]
    correct = (torch.rand(groups * size, generator=generator) < 0.4).float().tolist()

    def vectors(texts):
        seeds = [int(text_id(text)[:8], 16) for text in texts]
        return torch.stack([torch.randn(dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    return rollout(answers, correct, questions, vectors, num_generations=size, step=step)


def take(batch, rows):
    picked = [batch.questions[row] for row in rows], [batch.completions[row] for row in rows]
    return Rollout(
        *picked,
        batch.correct[rows],
        batch.rewards[rows],
        batch.num_generations,
        step=10,
        max_steps=20,
        encode=batch.encode,
    )


M8 = (["right", "up", "steep", "flat", "right"], [0, 1, 0, 1, 0])
