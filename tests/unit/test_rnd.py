"""i-MENTOR's bonus: the spec's vectors I1 to I9, the authors' program written out again, and what `fixed` mends."""

import math

import pytest
import torch
from torch import nn

from intrinsic import build_bonus
from intrinsic.error_conditioned import Conditioning, batch_scale, window_scale
from intrinsic.rnd import RandomNetworkDistillation, fixed_layout, pooled
from intrinsic.rnd_network import TokenDistillation, TokenRND
from training.bonus_pipeline import reward_advantages
from training.errors import UserError
from training.options import IntrinsicOptions
from training.state_io import load_state, save_state

TEXTS = ["1+2=3", "2*3=6", "5-4=1", "7-3=4"]


def reference(**settings):
    return RandomNetworkDistillation(Conditioning(mode="reference"), prompt_length=4, response_length=6, **settings)


def fixed(**settings):
    return RandomNetworkDistillation(Conditioning(**settings), width=32)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


class GivenNovelty(RandomNetworkDistillation):
    """The bonus on novelties that the test sets."""

    def __init__(self, novelty, **settings):
        super().__init__(Conditioning(mode="reference", **settings))
        self.given = torch.tensor(novelty)

    def novelty(self, rollout):
        return self.given

    def learn(self, rollout):
        return {}


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


def test_decay_by_batches(rollout_factory):
    bonus = GivenNovelty([0.0, 1.0])
    expected = {0: 1.0, 1: 0.975610, 10: 0.8, 40: 0.5, 255: 0.135593}
    for batch in range(256):
        if batch in expected:
            assert bonus.decay == pytest.approx(expected[batch], abs=1e-6)
        bonus.update(rollout_factory(["1", "2"], [0, 0]))


def joined(bonus, scores, rollout):
    columns = torch.tensor(scores)[:, None]
    advantages = reward_advantages(columns, torch.ones(1), len(scores), "group")
    return bonus.combine(advantages, bonus.score(rollout), rollout)


def test_bonus_is_added_to_finished_advantages_of_wrong_answers(rollout_factory):
    bonus = GivenNovelty([0.5, 0.25, 0.0, 0.1, 0.4])
    bonus.batches = 10
    rollout = rollout_factory(["1"] * 5, [1, 0, 0, 0, 0])
    advantages = joined(bonus, [1.0, 0.1, 0.0, 0.1, 0.0], rollout)
    expected = torch.tensor([1.776178, -0.127191, -0.560898, -0.247191, -0.240898])
    torch.testing.assert_close(advantages, expected, atol=1e-5, rtol=0)
    assert advantages.sum() == pytest.approx(0.6, abs=1e-4)


def test_all_wrong_groups_are_pushed_up_unless_centred_and_all_right_ones_get_nothing(rollout_factory):
    novelty = [0.5, 0.25, 0.0, 0.1, 0.4]
    wrong, right = rollout_factory(["1"] * 5, [0] * 5), rollout_factory(["1"] * 5, [1] * 5)
    torch.testing.assert_close(joined(GivenNovelty(novelty), [0.0] * 5, wrong), torch.tensor(novelty))
    assert joined(GivenNovelty(novelty), [1.0] * 5, right).tolist() == [0.0] * 5
    centred = GivenNovelty(novelty, center=True)
    assert centred.score(wrong).sum().abs() < 1e-6
    mixed = rollout_factory(["1"] * 5, [1, 0, 0, 0, 0])
    assert centred.score(mixed)[0] == 0 and centred.score(mixed).sum().abs() < 1e-6


def test_placement_after_normalisation_keeps_the_bonus_as_small_as_it_is(rollout_factory):
    bonus = torch.tensor([0.01, 0.02, 0.03, 0.02])
    for weight in (0.1, 1.0, 10.0):
        as_reward = reward_advantages(weight * bonus[:, None], torch.ones(1), 4, "group")
        assert as_reward.max() > 1.0
    novel = GivenNovelty([0.01, 0.02, 0.03, 0.02])
    added = novel.combine(torch.zeros(4), bonus, rollout_factory(["1"] * 4, [0] * 4))
    assert torch.equal(added, bonus) and novel.placement == "advantage"


# ---- the bonus over time


@pytest.mark.parametrize("make", [reference, fixed])
def test_bonus_is_of_the_error_before_the_batch_is_learnt(make, rollout_factory):
    bonus, rollout = make(), rollout_factory(TEXTS, [0] * 4)
    bonus.update(rollout_factory(TEXTS[::-1], [0] * 4))
    before = bonus.novelty(rollout)
    logged = bonus.update(rollout)["novelty"]
    assert logged == pytest.approx(before.mean().item())
    assert not torch.equal(bonus.novelty(rollout), before)


def patterns(rollout_factory, new_share=0.0):
    """A rollout of 16 wrong answers; hidden states cluster around one familiar direction, those of row 0 may not."""
    rollout = rollout_factory(["123456"] * 16, [0] * 16)
    generator = torch.Generator().manual_seed(5)
    familiar = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]) + 0.3 * torch.randn(16, 6, 6, generator=generator)
    if new_share:
        familiar[0] = torch.tensor([-1.0, 0.0, 1.0, 2.0, -2.0, 1.0])
    rollout.features["frozen_hidden"] = familiar
    return rollout


def test_a_pattern_seen_often_loses_its_bonus_and_a_new_one_has_it(rollout_factory):
    bonus, familiar = fixed(), patterns(rollout_factory)
    assert bonus.score(familiar).tolist() == [0.0] * 16
    bonus.update(familiar)
    early = bonus.novelty(familiar).mean()
    for _ in range(150):
        bonus.update(familiar)
    assert bonus.novelty(familiar).mean() < 0.2 * early
    surprised = patterns(rollout_factory, new_share=1.0)
    score = bonus.score(surprised) / bonus.decay
    assert score[0] == pytest.approx(0.5) and score[1:].max() < 0.1


def test_novelty_in_fixed_mode_does_not_depend_on_length_or_padding():
    hidden = torch.ones(1, 4, 3)
    short = pooled(hidden, torch.tensor([[True, True, False, False]]))
    torch.testing.assert_close(short, pooled(hidden, torch.ones(1, 4, dtype=torch.bool)))
    assert pooled(hidden, torch.zeros(1, 4, dtype=torch.bool)).tolist() == [[0.0] * 3]


@pytest.mark.parametrize("make", [reference, fixed])
def test_right_and_wrong_answers_teach_the_predictor(make, rollout_factory):
    bonus, rollout = make(), rollout_factory(TEXTS, [1] * 4)
    bonus.update(rollout)
    before = bonus.novelty(rollout).mean()
    for _ in range(30):
        bonus.update(rollout)
    assert bonus.novelty(rollout).mean() < before


@pytest.mark.parametrize("make", [reference, fixed])
def test_edge_cases(make, rollout_factory):
    bonus = make()
    bonus.update(rollout_factory(TEXTS, [0, 1, 0, 0]))
    assert bonus.score(rollout_factory(["12"], [0])).tolist() == [0.0]
    assert torch.isfinite(bonus.score(rollout_factory(["", "12", "", "3"], [0] * 4))).all()
    same = rollout_factory(["12"] * 4, [0] * 4)
    same.completion_ids = same.completion_ids[:1].expand(4, -1)
    same.prompt_ids = same.prompt_ids[:1].expand(4, -1)
    same.features["frozen_hidden"] = same.features["frozen_hidden"][:1].expand(4, -1, -1)
    assert bonus.score(same).tolist() == [0.0] * 4
    empty = rollout_factory([""] * 4, [0] * 4)
    bonus.update(empty)
    assert torch.isfinite(bonus.score(empty)).all()


def test_a_broken_hidden_state_spoils_neither_the_network_nor_other_rows(rollout_factory):
    bonus, rollout = fixed(), rollout_factory(TEXTS, [0] * 4)
    bonus.update(rollout_factory(TEXTS, [0] * 4))
    rollout.features["frozen_hidden"][2, 0, 0] = math.inf
    assert bonus.score(rollout).isfinite().tolist() == [True, True, False, True]
    bonus.update(rollout)
    assert all(parameter.isfinite().all() for parameter in bonus.networks.predictor.parameters())
    assert bonus.history.isfinite().all()


@pytest.mark.parametrize("make", [reference, fixed])
def test_training_goes_on_from_a_saved_state_as_if_never_stopped(make, rollout_factory, tmp_path):
    bonus, first, second = make(), rollout_factory(TEXTS, [0] * 4), rollout_factory(TEXTS[::-1], [0] * 4)
    bonus.update(first), bonus.update(second)
    save_state(bonus.state_dict(), tmp_path, "state")
    other = make()
    other.load_state_dict(load_state(tmp_path, "state"))
    for rollout in (first, second):
        assert torch.equal(bonus.score(rollout), other.score(rollout))
        assert bonus.update(rollout) == other.update(rollout)


@pytest.mark.parametrize("make", [reference, fixed])
def test_the_global_random_state_is_left_alone(make, rollout_factory):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    bonus, rollout = make(), rollout_factory(TEXTS, [0] * 4)
    bonus.score(rollout), bonus.update(rollout)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "flags",
    [
        {"rnd_mode": "other"},
        {"rnd_alpha": -1.0},
        {"rnd_gamma": 0.0},
        {"rnd_window": -1},
        {"rnd_lr": math.nan},
        {"rnd_weight_decay": -1.0},
        {"rnd_width": 0},
        {"rnd_prompt_length": 0},
        {"rnd_response_length": 0},
        {"rnd_seed": -1},
    ],
)
def test_flags_out_of_range_are_refused(flags):
    ((name, value),) = flags.items()
    with pytest.raises(UserError, match=f"--{name}={value!r}"):
        build_bonus("rnd", IntrinsicOptions(use_ir="rnd", **flags))


def test_flags_reach_the_bonus():
    options = IntrinsicOptions(use_ir="rnd", rnd_mode="reference", rnd_alpha=3.0, rnd_center=True, rnd_lr=0.5)
    bonus = build_bonus("rnd", options)
    assert bonus.conditioning == Conditioning("reference", 3.0, 40.0, True, 1024) and bonus.lr == 0.5
    assert bonus.needs == frozenset() and build_bonus("rnd", IntrinsicOptions()).needs == {"frozen_hidden"}


def test_without_features_the_way_out_is_named(rollout_factory):
    rollout = rollout_factory(TEXTS, [0] * 4)
    rollout.features = {}
    with pytest.raises(UserError, match="--rnd_mode=reference"):
        fixed().score(rollout)
    rollout.prompt_ids = None
    with pytest.raises(UserError, match="token ids"):
        reference().score(rollout)
