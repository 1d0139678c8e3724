"""The order of training problems, which a resumed run has to go on with."""

import torch
from trl.trainer.utils import RepeatSampler


class EpochSampler(RepeatSampler):
    """TRL's sampler with the shuffle of a given epoch at hand.

    A resumed run builds the sampler anew; without this, TRL 1.16 replays the order of the first epoch.
    """

    def set_epoch(self, epoch: int) -> None:
        """Continue with the order that an uninterrupted run has in ``epoch``; called by the Trainer."""
        self.generator.manual_seed(self.seed)
        for _ in range(epoch):
            torch.randperm(self.num_samples, generator=self.generator)

    @classmethod
    def in_place_of(cls, sampler):
        """``sampler`` as an `EpochSampler` where it is TRL's and shuffles; any other unchanged."""
        if isinstance(sampler, RepeatSampler) and sampler.shuffle:
            sampler.__class__ = cls
        return sampler
