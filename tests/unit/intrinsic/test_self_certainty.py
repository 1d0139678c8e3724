"""INTUITOR's self-certainty: the published definition through the feature pass, group standardisation, combination."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from common.errors import UserError
from intrinsic.base import WeightSchedule
from intrinsic.metrics import score_metrics
from intrinsic.parts.groups import group_standardize, right_above_wrong
from intrinsic.pipeline import BonusPipeline, reward_advantages
from intrinsic.self_certainty import SelfCertainty
from intrinsic.shuffle import Shuffle
from policy.features import FeaturePass
from policy.padding import pad_tokens

# ---- the quantity: KL(uniform || policy) at the position that predicts each token

UNIFORM, SHARP = [0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]


def token_certainty(logits, prompt, completion, temperature=1.0):
    """Self-certainty (T,) by the feature pass of a policy whose logits after token i are ``logits[i]``, 4 by 4."""
    config = LlamaConfig(
        vocab_size=4,
        hidden_size=4,
        num_hidden_layers=0,
        intermediate_size=4,
        num_attention_heads=1,
        tie_word_embeddings=False,
        rms_norm_eps=0.0,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        # The final norm turns the i-th unit vector into twice itself.
        model.get_input_embeddings().weight.copy_(torch.eye(4))
        model.get_output_embeddings().weight.copy_(torch.tensor(logits).T / 2)
    add_fused_lm_head(model, temperature=temperature)
    prompts, completions = pad_tokens([prompt], "left", 0, "cpu"), pad_tokens([completion], "right", 0, "cpu")
    features = FeaturePass(model, temperature, batch_size=1)(*prompts, *completions, nullcontext, {"self_certainty"})
    return features["self_certainty"][0]


@pytest.mark.parametrize(
    "logits, temperature, expected",
    [
        (UNIFORM, 1.0, 0.0),
        (SHARP, 1.0, 0.454459),
        ([102.0, 100.0, 100.0, 100.0], 1.0, 0.454459),
        (SHARP, 0.9, 0.561863),
        (SHARP, 0.5, 1.667196),
        ([math.log(p) for p in (0.97, 0.01, 0.01, 0.01)], 1.0, 2.075198),
        ([math.log(p) for p in (0.97, 0.0298, 0.0001, 0.0001)], 1.0, 4.104802),
    ],
)
def test_published_definition(logits, temperature, expected):
    rows = [logits, UNIFORM, UNIFORM, UNIFORM]
    assert token_certainty(rows, [0], [1], temperature).item() == pytest.approx(expected, abs=2e-5)


def test_a_token_is_judged_by_the_distribution_that_predicts_it():
    rows = [UNIFORM, SHARP, [0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0]]
    found = token_certainty(rows, prompt=[0, 1], completion=[2, 3])
    torch.testing.assert_close(found, torch.tensor([0.454459, 1.002912]), atol=1e-5, rtol=0)
    assert found.mean().item() == pytest.approx(0.728685, abs=1e-5)


def test_sharper_distributions_score_higher():
    means = [
        token_certainty([[scale, 0, 0, 0], *[[0.0, scale, 0, 0]] * 3], [0], [1, 2]).mean() for scale in (0.5, 1.0, 2.0)
    ]
    assert means == sorted(means) and means[0] > 0


def test_padding_and_company_do_not_move_a_completion(random_policy, rollout_factory):
    add_fused_lm_head(random_policy, temperature=1.0)
    features = FeaturePass(random_policy.eval(), 1.0, batch_size=4)

    def certainty(prompts, completions):
        (prompt_ids, prompt_mask), (ids, mask) = (
            pad_tokens(prompts, "left", 0, "cpu"),
            pad_tokens(completions, "right", 0, "cpu"),
        )
        rollout = rollout_factory(["x"] * len(prompts), [0.0] * len(prompts))
        rollout.features = features(prompt_ids, prompt_mask, ids, mask, nullcontext, {"self_certainty"})
        rollout.completion_mask = mask
        return SelfCertainty().certainty(rollout)[0]

    alone = certainty([[20, 21]], [[30, 31, 32]])
    company = certainty([[9, 8, 7, 6, 5], [20, 21], [11]], [[12] * 7, [30, 31, 32], [13]])
    torch.testing.assert_close(company[1], alone[0], atol=1e-4, rtol=0)


# ---- a completion, a group


def rollout_of(make, token_values, correct=None, num_generations=None, feature="self_certainty"):
    """A rollout whose completions have the given self-certainty per token, rows of any length."""
    correct = correct or [0.0] * len(token_values)
    rollout = make(["x"] * len(token_values), correct, num_generations=num_generations)
    width = max(1, *map(len, token_values))
    rollout.completion_mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in token_values])
    rollout.features = {feature: torch.tensor([row + [0.0] * (width - len(row)) for row in token_values])}
    return rollout


def test_mean_over_completion_tokens_alone(rollout_factory):
    rollout = rollout_of(rollout_factory, [[1.0, 2, 3], [4.0, 4]])
    rollout.features["self_certainty"][~rollout.completion_mask] = 9.0
    assert SelfCertainty().certainty(rollout)[0].tolist() == [2.0, 4.0]


U, R = [1.0, 2.0, 3.0, 6.0], [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("shift", [0.0, 11.931215])
def test_standardised_with_unbiased_deviation_and_epsilon(rollout_factory, shift):
    rollout = rollout_of(rollout_factory, [[u + shift] for u in U])
    expected = torch.tensor([-0.925777, -0.462889, 0.0, 1.388666])
    torch.testing.assert_close(SelfCertainty().score(rollout), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "weight, expected",
    [(1.0, [-1.791653, 0.402987, -0.865875, 2.254541]), (0.1, [-1.790305, 0.401639, -0.864528, 2.253194])],
)
def test_added_to_the_standardised_reward(rollout_factory, weight, expected):
    bonus, rollout = SelfCertainty(), rollout_of(rollout_factory, [[u] for u in U], correct=R)
    pipeline = BonusPipeline([bonus], [WeightSchedule()])
    advantages = reward_advantages(rollout.correct[:, None], torch.tensor([weight]), 4, "group")
    joined = pipeline.join(advantages, pipeline.score(rollout), rollout)
    torch.testing.assert_close(joined, torch.tensor(expected), atol=1e-5, rtol=0)


def test_lambda_weighs_self_certainty_beside_the_reward(rollout_factory):
    rollout = rollout_of(rollout_factory, [[u] for u in U])
    scores, zeros = SelfCertainty().score(rollout), torch.zeros(4)
    torch.testing.assert_close(SelfCertainty(sc_lambda=0.3).combine(zeros + 1, scores, rollout), 1 + 0.3 * scores)
    assert torch.equal(SelfCertainty(sc_lambda=0.0).combine(zeros, scores, rollout), zeros)


def test_standardising_the_sum_of_reward_and_certainty():
    values = torch.tensor(R) + 0.1 * torch.tensor(U)
    expected = torch.tensor([-0.976872, 0.558213, -0.697766, 1.116425])
    torch.testing.assert_close(
        group_standardize(values, torch.ones(4, dtype=torch.bool), 4), expected, atol=1e-5, rtol=0
    )


def test_groups_do_not_see_each_other(rollout_factory):
    rollout = rollout_of(rollout_factory, [[u] for u in U + [100.0, 200, 300, 600]], num_generations=4)
    score = SelfCertainty().score(rollout)
    torch.testing.assert_close(score[4:], score[:4], atol=1e-4, rtol=0)


def test_completion_without_tokens_does_not_enter_its_group(rollout_factory):
    full = SelfCertainty().score(rollout_of(rollout_factory, [[u] for u in U]))
    score = SelfCertainty().score(rollout_of(rollout_factory, [*[[u] for u in U], []]))
    torch.testing.assert_close(score, torch.cat([full, torch.zeros(1)]))


@pytest.mark.parametrize(
    "tokens", [[[7.0]], [[7.3], [7.3], [7.3]], [[7.3], [7.30001], [7.29999]], [[], [7.0], []], [[], [], []]]
)
def test_no_comparison_no_bonus(rollout_factory, tokens):
    """A group of one, identical completions up to rounding, a group with at most one completion that has tokens."""
    assert SelfCertainty().score(rollout_of(rollout_factory, tokens)).tolist() == [0.0] * len(tokens)


@pytest.mark.parametrize("verdict", [0.0, 1.0])
def test_all_right_and_all_wrong_groups_still_get_a_direction(rollout_factory, verdict):
    """The reward says nothing there, so the advantage is self-certainty alone, of full size."""
    rollout = rollout_of(rollout_factory, [[u] for u in U], correct=[verdict] * 4)
    pipeline = BonusPipeline([SelfCertainty()], [WeightSchedule()])
    rewards = reward_advantages(rollout.correct[:, None], torch.ones(1), 4, "group")
    joined = pipeline.join(rewards, pipeline.score(rollout), rollout)
    torch.testing.assert_close(joined, SelfCertainty().score(rollout))
    assert joined.std() > 0.9


def test_value_that_is_not_finite_reaches_the_guard_and_spoils_no_other(rollout_factory):
    score = SelfCertainty().score(rollout_of(rollout_factory, [*[[u] for u in U], [math.inf]]))
    assert math.isinf(score[-1])
    torch.testing.assert_close(score[:-1], SelfCertainty().score(rollout_of(rollout_factory, [[u] for u in U])))


def test_no_gradient_flows_through_the_bonus(rollout_factory):
    rollout = rollout_of(rollout_factory, [[u] for u in U])
    rollout.features["self_certainty"].requires_grad_()
    assert not SelfCertainty().score(rollout).requires_grad


def test_score_is_float32_from_half_precision_features(rollout_factory):
    rollout = rollout_of(rollout_factory, [[16.0, 16.125], [16.0, 16.0]])
    rollout.features["self_certainty"] = rollout.features["self_certainty"].bfloat16()
    values, _ = SelfCertainty().certainty(rollout)
    assert values.dtype == torch.float32 and values[0] == 16.0625


# ---- completions cut off at the limit


def test_completions_cut_off_are_skipped_like_rows_without_tokens_or_paid_as_others(rollout_factory):
    rollout = rollout_of(rollout_factory, [*[[u] for u in U], [99.0], [0.5]])
    rollout.truncated = torch.tensor([False] * 4 + [True] * 2)
    full = SelfCertainty().score(rollout_of(rollout_factory, [[u] for u in U]))
    skipping = SelfCertainty(truncated="skip")
    torch.testing.assert_close(skipping.score(rollout), torch.cat([full, torch.zeros(2)]))
    assert skipping.eligible(rollout).tolist() == [True] * 4 + [False] * 2
    paying = SelfCertainty().score(rollout)
    rollout.truncated = None
    assert torch.equal(paying, SelfCertainty().score(rollout)) and paying.argmax() == 4


def test_a_group_cut_off_but_for_one_completion_gets_nothing(rollout_factory):
    rollout = rollout_of(rollout_factory, [[u] for u in U], correct=R)
    for finished in (0, 1):
        rollout.truncated = torch.arange(4) >= finished
        assert SelfCertainty(truncated="skip").score(rollout).tolist() == [0.0] * 4


def rank_of(bonus, rollout):
    """How often the bonus ranks right above wrong, as a run logs it."""
    pipeline = BonusPipeline([bonus], [WeightSchedule()])
    return score_metrics(pipeline.score(rollout), rollout)["ir/sc/right_above_wrong"]


def test_certainty_of_completions_cut_off_is_logged_whether_it_is_paid_or_not(rollout_factory):
    rollout = rollout_of(rollout_factory, [[1.0], [3.0], [8.0]], correct=[1.0, 0.0, 0.0])
    rollout.truncated = torch.tensor([False, False, True])
    assert SelfCertainty().update(rollout)["self_certainty"] == 4.0
    bonus = SelfCertainty(truncated="skip")
    skipped = bonus.update(rollout)
    assert (skipped["self_certainty"], skipped["self_certainty_truncated"]) == (2.0, 8.0)
    assert rank_of(bonus, rollout) == 0.0


def test_without_word_of_what_was_cut_off_nothing_is_skipped_in_silence(rollout_factory):
    with pytest.raises(UserError, match="--sc_truncated=skip.*--sc_truncated=pay"):
        SelfCertainty(truncated="skip").score(rollout_of(rollout_factory, [[1.0], [2.0]]))


def test_a_control_deals_certainty_among_completions_that_may_have_it(rollout_factory):
    rollout = rollout_of(rollout_factory, [*[[u] for u in U], [], [9.0]])
    rollout.truncated = torch.tensor([False] * 5 + [True])
    assert SelfCertainty().eligible(rollout).tolist() == [True] * 4 + [False, True]
    shuffled = Shuffle(SelfCertainty(truncated="skip")).score(rollout)
    assert not shuffled[4:].any() and shuffled[:4].any()


# ---- flags


def test_offline_annotator_judges_by_the_frozen_policy(rollout_factory):
    bonus = SelfCertainty(annotator="offline")
    assert bonus.needs == {"frozen_self_certainty"} and SelfCertainty().needs == {"self_certainty"}
    rollout = rollout_of(rollout_factory, [[u] for u in U], feature="frozen_self_certainty")
    assert bonus.score(rollout).argmax() == 3


def test_built_from_options_and_told_apart_on_resume():
    flags = {"sc_lambda": 0.5, "sc_annotator": "offline", "sc_alone": True, "sc_truncated": "skip"}
    assert SelfCertainty.from_options(SimpleNamespace(**flags)).identity() == {"name": "sc", **flags}


@pytest.mark.parametrize("settings", [{"sc_lambda": math.nan}, {"annotator": "both"}, {"truncated": "drop"}])
def test_bad_settings_are_refused_with_the_value(settings):
    with pytest.raises(UserError, match=str(next(iter(settings.values())))):
        SelfCertainty(**settings)


# ---- what is logged


def test_logs_certainty_by_verdict_and_how_well_it_tells_right_from_wrong(rollout_factory):
    rollout = rollout_of(rollout_factory, [[1.0], [2.0], [2.0], [5.0], []], correct=[0.0, 1.0, 0.0, 1.0, 1.0])
    logged = SelfCertainty().update(rollout)
    assert logged.pop("group_std") == pytest.approx(3**0.5)
    assert logged == {
        "self_certainty": 2.5,
        "self_certainty_right": 3.5,
        "self_certainty_wrong": 1.5,
    }
    assert rank_of(SelfCertainty(), rollout) == pytest.approx(3.5 / 4)


def test_pairs_of_right_and_wrong_are_those_of_one_group():
    values, correct = torch.tensor([1.0, 2.0, 9.0, 8.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert math.isnan(right_above_wrong(values, correct, torch.ones(4, dtype=torch.bool), 2))
    assert right_above_wrong(values, correct, torch.ones(4, dtype=torch.bool), 4) == 0.0


def test_nothing_is_logged_of_what_a_batch_does_not_hold(rollout_factory):
    assert SelfCertainty().update(rollout_of(rollout_factory, [[]])) == {}
    assert SelfCertainty().update(rollout_of(rollout_factory, [[2.0]])).keys() == {
        "self_certainty",
        "self_certainty_wrong",
    }


# ---- in the trainer


@pytest.mark.parametrize("annotator", ["online", "offline"])
def test_alone_the_advantage_is_self_certainty_and_correctness_only_a_monitor(trainer_factory, annotator):
    trainer = trainer_factory(
        [SelfCertainty(annotator=annotator)], [WeightSchedule()], reward_weights=[0.0], max_steps=1
    )
    seen = []
    join = trainer.bonuses.join
    trainer.bonuses.join = lambda *given: seen.append((given[0], join(*given), given[2])) or seen[-1][1]
    trainer.train()
    ((before, joined, rollout),) = seen
    assert not before.any()
    torch.testing.assert_close(joined, SelfCertainty(annotator=annotator).score(rollout))
    assert joined.any() and rollout.rewards.eq(0).all()
    logged = trainer.state.log_history[0]
    assert logged["rewards/correctness/mean"] == pytest.approx(rollout.correct.mean().item())
    assert logged["ir/sc/share_of_advantage"] == pytest.approx(1.0)
    assert logged["ir/sc/self_certainty"] > 0


def test_completions_of_the_greatest_length_without_an_end_token_are_cut_off(trainer_factory):
    trainer = trainer_factory([SelfCertainty(truncated="skip")], [WeightSchedule()], max_steps=1)
    seen = []
    score = trainer.bonuses.score
    trainer.bonuses.score = lambda rollout: seen.append(rollout) or score(rollout)
    trainer.train()
    (rollout,) = seen
    last = [ids[mask][-1].item() for ids, mask in zip(rollout.completion_ids, rollout.completion_mask, strict=True)]
    expected = [token not in trainer.eos_token_ids for token in last]
    assert rollout.truncated.tolist() == expected and any(expected)
    clipped = trainer.state.log_history[0]["completions/clipped_ratio"]
    assert rollout.truncated.float().mean().item() == pytest.approx(clipped)
