"""i-MENTOR's network and scale: the sizes and numbers of the authors' program, written out again, and its layout."""

import math

import pytest
import torch
from torch import nn

from common.errors import UserError
from intrinsic.parts.distillation import TokenDistillation, TokenRND
from intrinsic.parts.error_conditioned import Conditioning, batch_scale, window_scale
from intrinsic.rnd import RandomNetworkDistillation, fixed_layout
from tests.unit.intrinsic.rnd_cases import TEXTS, fixed, reference


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


# ---- the reference network


def test_sizes_are_those_of_the_authors_network():
    network = TokenRND(151_936, 1_280, torch.Generator().manual_seed(0))
    assert parameters(network) == 3_127_618
    small = TokenRND(10, 3, torch.Generator().manual_seed(0), embedding_dim=2, widths=(4, 2))
    assert parameters(small) == 114


@pytest.mark.parametrize(
    ("ids", "raw", "scaled"),
    [
        ([0, 1], [6.2497e-6, 0.0533876], [0.0, 0.5]),
        ([0, 1, 2], [9.375e-6, 0.0, 0.0744728], [6.294e-5, 0.0, 0.5]),
    ],
)
def test_errors_of_the_hand_made_network(ids, raw, scaled):
    network = TokenRND(3, 1, torch.Generator().manual_seed(0), embedding_dim=1, widths=(1,))
    network.embedding.weight.data = torch.tensor([[0.0], [2.0], [4.0]])
    for head, weight in ((network.target, 1.0), (network.predictor, 0.0)):
        for layer in head:
            if isinstance(layer, nn.Linear):
                nn.init.constant_(layer.weight, weight)
                nn.init.zeros_(layer.bias)
    errors = network(torch.tensor(ids)[:, None]).detach()
    torch.testing.assert_close(errors, torch.tensor(raw), rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(batch_scale(errors), torch.tensor(scaled), rtol=1e-3, atol=1e-7)


def test_default_weights_have_pytorchs_distribution():
    torch.manual_seed(0)
    network, ours = nn.Linear(400, 300), TokenRND(500, 25, torch.Generator().manual_seed(1), widths=(300, 8))
    first = ours.target[0]
    assert first.weight.abs().max() <= 1 / math.sqrt(400) and network.weight.abs().max() <= 1 / math.sqrt(400)
    assert first.weight.std().item() == pytest.approx(network.weight.std().item(), rel=0.02)
    assert ours.embedding.weight.std().item() == pytest.approx(1.0, rel=0.05)


def authors_program(batches, weights, lr=1e-3):
    """Embedding, batch norm, two MLPs and AdamW as in the authors' class, in plain PyTorch; bonus of every batch."""

    def head():
        return nn.Sequential(
            nn.Linear(160, 16), nn.LeakyReLU(), nn.Linear(16, 8), nn.LeakyReLU(), nn.Linear(8, 1), nn.Sigmoid()
        )

    model = nn.ModuleDict(
        {"embedding": nn.Embedding(50, 16), "batch_norm": nn.BatchNorm1d(160), "target": head(), "predictor": head()}
    )
    model.load_state_dict(weights, strict=False)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    bonuses = []
    for ids in batches:
        inputs = model["batch_norm"](model["embedding"](ids).reshape(len(ids), -1))
        with torch.no_grad():
            target = model["target"](inputs)
        error = (target - model["predictor"](inputs)).pow(2).squeeze(1)
        bonuses.append(0.5 * (error - error.min()).detach() / (error.max() - error.min()).detach())
        optimizer.zero_grad()
        error.mean().backward()
        optimizer.step()
    return bonuses, model


def test_reference_mode_reproduces_the_authors_numbers(rollout_factory):
    generator = torch.Generator().manual_seed(3)
    bonus, rollouts = reference(seed=7), []
    for number in range(5):
        rollout = rollout_factory([text + "x" * number for text in TEXTS * 2], [0] * 8)
        rollout.completion_ids = torch.randint(5, 50, (8, 6), generator=generator) * rollout.completion_mask
        rollouts.append(rollout)
    weights = TokenDistillation(50, 10, "cpu", 1e-3, 1e-2, 7).network.state_dict()
    expected, model = authors_program([fixed_layout(rollout, 4, 6) for rollout in rollouts], weights)
    for step, (rollout, scaled) in enumerate(zip(rollouts, expected, strict=True)):
        torch.testing.assert_close(bonus.score(rollout), scaled * 40 / (40 + step), rtol=1e-5, atol=1e-6)
        bonus.update(rollout)
    ours = bonus.networks.network.state_dict()
    for name, value in model.state_dict().items():
        if name in ours:
            torch.testing.assert_close(ours[name], value)


def test_layout_is_fixed_and_padding_is_id_0(rollout_factory):
    rollout = rollout_factory(["12", "3456"], [0, 0])
    rollout.prompt_ids, rollout.prompt_mask = torch.tensor([[9, 7, 8], [6, 7, 8]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
    ids = fixed_layout(rollout, 5, 8)
    assert ids.shape == (2, 13)
    assert ids[0].tolist() == [0, 0, 0, 7, 8, *rollout.completion_ids[0, :2].tolist(), *[0] * 6]
    assert fixed_layout(rollout, 2, 6)[1, :2].tolist() == [7, 8]


def test_too_long_a_completion_is_refused_before_and_during_training(rollout_factory):
    bonus = RandomNetworkDistillation(Conditioning(mode="reference"), response_length=4)
    with pytest.raises(UserError, match="--rnd_response_length=4 is shorter.*--L=128"):
        bonus.check(num_generations=8, max_completion_length=128)
    bonus.check(num_generations=8, max_completion_length=4)
    fixed().check(num_generations=8, max_completion_length=10**6)
    with pytest.raises(UserError, match="completion of 5 tokens"):
        bonus.score(rollout_factory(TEXTS, [0] * 4))


def test_target_does_not_move_and_the_predictor_learns():
    generator = torch.Generator().manual_seed(1)
    distillation = TokenDistillation(50, 12, "cpu", 1e-3, 1e-2, 1)
    before = [parameter.clone() for parameter in distillation.network.target.parameters()]
    first, drift = None, 0.0
    for _ in range(256):
        ids = torch.randint(0, 50, (32, 12), generator=generator)
        first = distillation.errors(ids).mean() if first is None else first
        drift = distillation.learn(ids)["target_drift"]
    assert distillation.errors(ids).mean() < 0.5 * first
    for old, new in zip(before, distillation.network.target.parameters(), strict=True):
        assert torch.equal(old, new)
    assert drift > 0.005  # its inputs are trained: the reference's defect, which the run shows


# ---- scale, gate, decay


def test_scale_of_the_reference():
    torch.testing.assert_close(
        batch_scale(torch.tensor([0.01, 0.04, 0.09, 0.16])), torch.tensor([0.0, 0.1, 0.266667, 0.5])
    )


@pytest.mark.fault("F3")
@pytest.mark.parametrize("scale", [batch_scale, lambda novelty: window_scale(novelty, torch.tensor([0.1, -0.1]))])
def test_equal_novelties_get_nothing(scale):
    assert scale(torch.full((4,), 0.3)).tolist() == [0.0] * 4
    assert scale(torch.tensor([0.3, 0.3 + 1e-7])).tolist() == [0.0] * 2
    assert scale(torch.tensor([0.3])).tolist() == [0.0]


def test_scale_of_a_window_does_not_hang_on_the_extremes_of_a_small_batch():
    history = torch.tensor([1.0, -1.0] * 50)
    quiet = window_scale(torch.tensor([5.0, 5.01, 5.02]), history)
    assert 0 < quiet.max() < 0.01
    loud = window_scale(torch.tensor([5.0, 5.0, 5.0, 20.0]), history)
    assert loud.tolist() == [0.0, 0.0, 0.0, 0.5]


@pytest.mark.parametrize("scale", [batch_scale, lambda novelty: window_scale(novelty, torch.zeros(0))])
def test_a_broken_novelty_reaches_the_guard_and_spoils_no_other(scale):
    scaled = scale(torch.tensor([0.0, 1.0, math.nan]))
    assert scaled[2].isnan() and scaled[:2].isfinite().all() and scaled[1] > 0
