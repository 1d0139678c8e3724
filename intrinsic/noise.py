"""Control for i-MENTOR (its authors' rebuttal ran one too): GRPO plus Gaussian noise that goes the way of its bonus.

Plain GRPO has no such term. The noise knows nothing of any text, and passes through the same scale, error condition and
decay as ``rnd``; what ``rnd`` gains beyond it is due to novelty.
"""

import hashlib
from collections import Counter

import torch
from torch import Tensor

from intrinsic.error_conditioned import Conditioning, ErrorConditionedBonus
from training.errors import UserError
from training.rollout import Rollout


def group_generator(*key) -> torch.Generator:
    """A CPU generator whose numbers depend on ``key`` alone."""
    digest = hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


class Noise(ErrorConditionedBonus):
    """``--use_ir=noise``: N(0, 1) in place of the prediction error of ``rnd``; its ``--rnd_...`` flags hold here too.

    Args:
        conditioning: scale, gate and decay.
        seed: of the noise; draws from no other random state.
    """

    name = "noise"

    def __init__(self, conditioning: Conditioning | None = None, seed: int = 0):
        super().__init__(conditioning)
        if seed < 0:
            raise UserError(f"--rnd_seed={seed} must be 0 or more.")
        self.seed = seed

    @classmethod
    def from_options(cls, options) -> "Noise":
        return cls(Conditioning.from_options(options), options.rnd_seed)

    def novelty(self, rollout: Rollout) -> Tensor:
        """Independent normal numbers (B,), new ones for every batch, the same however groups are ordered."""
        times, groups = Counter(), []
        for question in rollout.questions[:: rollout.num_generations]:
            generator = group_generator(self.seed, self.batches, question, times[question])
            groups.append(torch.randn(rollout.num_generations, generator=generator))
            times[question] += 1
        return torch.cat(groups).to(rollout.device)

    def identity(self) -> dict:
        return super().identity() | {"seed": self.seed}
