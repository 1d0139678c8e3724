"""TRL's own flags of exploration (entropy coefficient, fixed or adaptive; top-entropy quantile) beside a bonus."""

import copy

import pytest
import torch

from intrinsic.base import Bonus, WeightSchedule

FLAGS = {
    "entropy_coef": {"entropy_coef": 0.5},
    "use_adaptive_entropy": {"use_adaptive_entropy": True, "entropy_target": 20.0, "entropy_coef_delta": 0.5},
    "top_entropy_quantile": {"top_entropy_quantile": 0.2},
}
COEFFICIENTS = [0.5, 1.0]  # of the adaptive one after each step: far below its target, it rises


class PerToken(Bonus):
    """Pays a number per token: the place of the token, less the mean."""

    name, placement = "place", "token"

    def score(self, rollout):
        places = torch.arange(rollout.completion_mask.size(1)).float()
        return (places - places.mean()) * rollout.completion_mask


class FirstGroup(Bonus):
    """Puts advantages of 1 and -1 into the first group and 0 into the second."""

    name, placement, replaces = "first", "advantage", True

    def score(self, rollout):
        return torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0])

    def combine(self, advantages, scores, rollout):
        return scores


def weights_of(policy):
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


@pytest.mark.parametrize("name", FLAGS)
def test_each_works_beside_a_bonus(name, trainer_factory, random_policy):
    """It changes what is learnt, and leaves the bonus its share of the advantage."""

    def trained(flags):
        policy = copy.deepcopy(random_policy)
        trainer = trainer_factory([PerToken()], [WeightSchedule(1.0)], policy=policy, **flags)
        trainer.train()
        return weights_of(policy), trainer.state.log_history

    (both, log), (alone, log_alone) = trained(FLAGS[name]), trained({})
    assert both.isfinite().all() and not torch.equal(both, alone)
    share = "ir/place/share_of_advantage"
    assert log[0][share] == log_alone[0][share] > 0
    if name == "use_adaptive_entropy":
        assert [record["entropy_coef"] for record in log[:2]] == COEFFICIENTS


def test_the_entropy_term_is_taken_over_all_completions_also_those_without_an_advantage(trainer_factory):
    """Rows of advantage zero take no backward pass where the loss has no other term; here it has."""
    trainer = trainer_factory([FirstGroup()], [WeightSchedule(1.0)], entropy_coef=0.5, max_steps=1)
    trainer.train()
    policy = trainer.model.train()
    inputs = trainer._generate_and_score_completions(
        [row for row in trainer.train_dataset.select(range(2)) for _ in range(4)]
    )

    def gradient(loss):
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(policy.parameters()))])

    with_term = gradient(trainer._compute_loss(policy, inputs))
    trainer.entropy_coef = 0.0
    without = gradient(trainer._compute_loss(policy, inputs))
    mask = inputs["completion_mask"]
    ids, attention = (
        torch.cat([inputs[f"prompt_{kind}"], inputs[f"completion_{kind}"]], dim=1) for kind in ("ids", "mask")
    )
    _, entropy, _ = trainer._get_per_token_logps_and_entropies(
        policy, ids, attention, mask.size(1), compute_entropy=True
    )
    mean = (entropy * mask).sum() / mask.sum()
    torch.testing.assert_close(without - with_term, 0.5 * gradient(mean), atol=1e-5, rtol=1e-4)


def test_the_adaptive_coefficient_goes_on_where_a_checkpoint_left_it(trainer_factory, random_policy, tmp_path):
    flags = FLAGS["use_adaptive_entropy"] | {"save_strategy": "steps", "save_steps": 1}
    policies = [copy.deepcopy(random_policy) for _ in range(2)]
    straight, resumed = (
        trainer_factory([PerToken()], [WeightSchedule(1.0)], policy=policy, **flags) for policy in policies
    )
    straight.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert straight.entropy_coef == resumed.entropy_coef == COEFFICIENTS[1]
    assert torch.equal(*map(weights_of, policies))
