"""The noise control: it goes the way of `rnd` and knows nothing of any text."""

import pytest
import torch

from intrinsic import build_bonus
from intrinsic.error_conditioned import Conditioning
from intrinsic.noise import Noise
from training.errors import UserError
from training.options import IntrinsicOptions


def batch(rollout_factory, correct, texts=None):
    size = len(correct)
    return rollout_factory(texts or [str(n) for n in range(size)], correct, num_generations=min(8, size))


@pytest.mark.parametrize("mode", ["fixed", "reference"])
def test_goes_through_scale_gate_and_decay_of_rnd(mode, rollout_factory):
    noise = Noise(Conditioning(mode=mode, center=False))
    rollout = batch(rollout_factory, [1, 0] * 32)
    score = noise.score(rollout)
    assert (score[::2] == 0).all() and score.min() >= 0 and score.max() <= 0.5
    if mode == "reference":
        assert score[1::2].max() > 0.4
    for _ in range(40):
        noise.update(rollout)
    assert noise.decay == pytest.approx(0.5) and noise.score(rollout).max() <= 0.25


def test_noise_is_normal_new_every_batch_and_independent_of_the_text(rollout_factory):
    noise, rollout = Noise(), batch(rollout_factory, [0] * 4096)
    first = noise.novelty(rollout)
    assert abs(first.mean()) < 4 / 64 and abs(first.std() - 1) < 0.05
    assert torch.equal(first, noise.novelty(batch(rollout_factory, [0] * 4096, ["same"] * 4096)))
    noise.update(rollout)
    second = noise.novelty(rollout)
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 4 / 64


def test_groups_of_one_question_get_different_noise_and_seeds_too(rollout_factory):
    rollout = batch(rollout_factory, [0] * 16)
    first, second = Noise().novelty(rollout).view(2, 8)
    assert not torch.equal(first, second)
    assert not torch.equal(Noise(seed=1).novelty(rollout), Noise().novelty(rollout))


def test_flags_reach_the_control():
    noise = build_bonus("noise", IntrinsicOptions(use_ir="noise", rnd_mode="reference", rnd_seed=3))
    assert noise.conditioning.mode == "reference" and noise.seed == 3
    with pytest.raises(UserError, match="--rnd_seed=-1"):
        build_bonus("noise", IntrinsicOptions(use_ir="noise", rnd_seed=-1))


def test_a_resumed_run_goes_on_with_the_next_noise(rollout_factory):
    noise, rollout = Noise(), batch(rollout_factory, [0] * 16)
    noise.update(rollout)
    other = Noise()
    other.load_state_dict(noise.state_dict())
    assert torch.equal(other.novelty(rollout), noise.novelty(rollout))
    assert torch.equal(other.score(rollout), noise.score(rollout))
