"""What tests of bonuses and trainers share: a batch of texts, rollouts, an encoder, settings of a toy trainer."""

import hashlib

import torch

from intrinsic.rollout import Rollout

# Two groups of four completions, one of them empty, with their verdicts and final answers.
TEXTS = ["<think>\n1+2=3\n</think>", "<think>\n2*3=6\n</think>", "4", "5-4=1", "(7-3)*2=8", "", "9/3=3", "8+8=16"]
CORRECT = [1, 0, 0, 1, 0, 0, 1, 0]
QUESTIONS = ["first"] * 4 + ["second"] * 4
ANSWERS = ["3", "6", "4", "4", "8", None, "3", "3"]

# Of `GRPOConfig`: two updates on a CPU, in groups of four completions of up to 8 tokens.
TRAINER = {
    "num_generations": 4,
    "max_completion_length": 8,
    "max_steps": 2,
    "learning_rate": 1e-3,
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
    "seed": 0,
}


def shallow(policy, layers: int = 2):
    """``policy`` without its upper layers: half the time of each pass, and all that differs by layer is there."""
    policy.config.num_hidden_layers = layers
    policy.model.layers = policy.model.layers[:layers]
    return policy


def stub_encode(texts: list[str]) -> torch.Tensor:
    """Unit vectors in R^8 that depend on the text alone."""
    vectors = []
    for text in texts:
        seed = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")
        vectors.append(torch.randn(8, generator=torch.Generator().manual_seed(seed)))
    return torch.nn.functional.normalize(torch.stack(vectors), dim=1)


def make_rollout(
    completions, correct, questions=None, num_generations=None, step=10, max_steps=20, **fields
) -> Rollout:
    """A rollout of text completions with random token-level features of width 6."""
    size, length = len(completions), 6
    generator = torch.Generator().manual_seed(len("".join(completions)))
    lengths = torch.tensor([min(length, len(text)) for text in completions])
    mask = torch.arange(length)[None] < lengths[:, None]
    features = {
        "hidden": torch.randn(size, length, 6, generator=generator) * mask[..., None],
        "logps": -torch.rand(size, length, generator=generator) * mask,
        "self_certainty": torch.rand(size, length, generator=generator) * mask,
        "entropy": torch.rand(size, length, generator=generator) * mask,
        "frozen_hidden": torch.randn(size, length, 6, generator=generator) * mask[..., None],
        "frozen_self_certainty": torch.rand(size, length, generator=generator) * mask,
    }
    counts = lengths.clamp(min=1)[:, None]
    features["mean_hidden"] = features["hidden"].sum(dim=1) / counts
    features["frozen_mean_hidden"] = features["frozen_hidden"].sum(dim=1) / counts
    return Rollout(
        questions=list(questions or ["one question"] * size),
        completions=list(completions),
        correct=torch.tensor(correct, dtype=torch.float32),
        rewards=torch.tensor(correct, dtype=torch.float32),
        num_generations=num_generations or size,
        step=step,
        max_steps=max_steps,
        completion_mask=mask,
        completion_ids=torch.randint(5, 50, (size, length), generator=generator) * mask,
        prompt_ids=torch.randint(5, 50, (size, 3), generator=generator),
        prompt_mask=torch.ones(size, 3, dtype=torch.bool),
        vocab_size=50,
        features=features,
        encode=fields.pop("encode", stub_encode),
        **fields,
    )
