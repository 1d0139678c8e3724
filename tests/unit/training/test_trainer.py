"""The trainer seam: placements, order of score and update, evaluation, guards, and the shared feature pass."""

import copy
import math

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl.trainer.utils import RepeatSampler

from analysis.completions import read_completions
from common.errors import RunError, UserError
from intrinsic.base import Bonus, WeightSchedule
from intrinsic.pipeline import BonusPipeline
from policy.features import mean_state
from policy.load import load_policy, load_tokenizer
from training.gathering import RolloutGathering
from training.sampler import EpochSampler


class RecordingBonus(Bonus):
    """Pays a fixed value per row (or per row and token) and records the order of calls."""

    name = "recording"

    def __init__(self, placement="reward", values=None, needs=()):
        self.placement, self.values, self.needs = placement, values, frozenset(needs)
        self.calls, self.rollouts = [], []

    def score(self, rollout):
        self.calls.append("score")
        self.rollouts.append(rollout)
        values = torch.arange(len(rollout), dtype=torch.float32) if self.values is None else self.values(rollout)
        if self.placement == "token" and values.dim() == 1:
            return values[:, None] * rollout.completion_mask
        return values

    def update(self, rollout):
        self.calls.append("update")
        return {"seen": len(rollout)}


def one_batch(trainer):
    """The output of one generation batch in training mode, without TRL's shuffle."""
    trainer.model.train()
    inputs = [row for row in trainer.train_dataset.select(range(2)) for _ in range(4)]
    return trainer._generate_and_score_completions(inputs)


def grouped(values, scale=True):
    groups = values.view(-1, 4)
    centred = groups - groups.mean(dim=1, keepdim=True)
    return (centred / (groups.std(dim=1, keepdim=True) + 1e-4) if scale else centred).flatten()


def test_reward_bonus_joins_before_group_normalisation(trainer_factory):
    bonus = RecordingBonus("reward")
    trainer = trainer_factory([bonus], [WeightSchedule(0.5)])
    output = one_batch(trainer)
    rewards = bonus.rollouts[0].correct + 0.5 * torch.arange(8).clamp(max=5.0)
    torch.testing.assert_close(output["advantages"], grouped(rewards))


@pytest.mark.parametrize("weight", [1.0, 0.1, -0.5, 0.0])
def test_a_bonus_counts_by_its_weight_where_each_reward_is_normalised_by_itself(weight, trainer_factory):
    """Within a column the weight would be divided out again, with the column's deviation."""
    bonus, other = RecordingBonus("reward"), RecordingBonus("reward", lambda rollout: 1.0 * rollout.correct.roll(1))
    other.name = "other"
    schedules = [WeightSchedule(2 * weight, "linear", warmup_steps=2), WeightSchedule(0.3)]
    trainer = trainer_factory([bonus, other], schedules, multi_objective_aggregation="normalize_then_sum")
    trainer.state.global_step, trainer.state.max_steps = 1, 9  # half of the way up
    output = one_batch(trainer)
    correct = bonus.rollouts[0].correct
    rewards = grouped(correct) + weight * grouped(torch.arange(8).clamp(max=5.0)) + 0.3 * grouped(correct.roll(1))
    torch.testing.assert_close(output["advantages"], (rewards - rewards.mean()) / (rewards.std() + 1e-4))
    shares = [trainer._metrics["train"][f"ir/{name}/share_of_advantage"][-1] for name in ("recording", "other")]
    assert (shares[0] > 0) == (weight != 0) and shares[1] > 0


def test_advantage_bonus_is_added_after_normalisation(trainer_factory):
    bonus = RecordingBonus("advantage")
    output = one_batch(trainer_factory([bonus], [WeightSchedule(0.5)]))
    expected = grouped(bonus.rollouts[0].correct) + 0.5 * torch.arange(8).clamp(max=5.0)
    torch.testing.assert_close(output["advantages"], expected)


def test_token_bonus_makes_advantages_per_token(trainer_factory):
    bonus = RecordingBonus("token")
    output = one_batch(trainer_factory([bonus], [WeightSchedule(1.0)]))
    rollout = bonus.rollouts[0]
    bonus_values = torch.arange(8).clamp(max=5.0)[:, None] * rollout.completion_mask
    torch.testing.assert_close(output["advantages"], grouped(rollout.correct)[:, None] + bonus_values)


@pytest.mark.parametrize("placement", ["reward", "advantage", "token"])
def test_every_placement_changes_what_is_learnt(trainer_factory, random_policy, placement):
    plain, paid = copy.deepcopy(random_policy), copy.deepcopy(random_policy)
    trainer_factory(policy=plain).train()
    trainer_factory([RecordingBonus(placement)], [WeightSchedule(1.0)], policy=paid).train()
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), paid.parameters(), strict=True))


@pytest.mark.parametrize("placement", ["reward", "advantage", "token"])
def test_weight_zero_equals_no_bonus_bit_for_bit(trainer_factory, random_policy, placement):
    plain, weightless = copy.deepcopy(random_policy), copy.deepcopy(random_policy)
    trainer_factory(policy=plain).train()
    needs = {"hidden", "logps", "self_certainty", "entropy", "text_embedding"}
    trainer_factory([RecordingBonus(placement, needs=needs)], [WeightSchedule(0.0)], policy=weightless).train()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), weightless.parameters(), strict=True))


def test_bonus_is_scored_before_it_learns_once_per_generation_batch(trainer_factory):
    bonus = RecordingBonus()
    trainer_factory([bonus], [WeightSchedule(1.0)]).train()
    assert bonus.calls == ["score", "update"] * 2


@pytest.mark.fault("X4")
def test_evaluation_neither_scores_nor_updates(trainer_factory):
    bonus = RecordingBonus("advantage")
    trainer_factory([bonus], [WeightSchedule(1.0)], per_device_eval_batch_size=8).evaluate()
    assert bonus.calls == []


def test_two_bonuses_of_different_placement_compose(trainer_factory):
    first, second = RecordingBonus("reward"), RecordingBonus("token", values=lambda r: torch.ones(len(r)))
    second.name = "second"
    output = one_batch(trainer_factory([first, second], [WeightSchedule(1.0), WeightSchedule(0.25)]))
    rollout = first.rollouts[0]
    rewards = grouped(rollout.correct + torch.arange(8).clamp(max=5.0))
    torch.testing.assert_close(output["advantages"], rewards[:, None] + 0.25 * rollout.completion_mask)


@pytest.mark.fault("F2")
def test_infinite_bonus_leaves_group_advantages_finite_and_alive(trainer_factory):
    values = torch.tensor([float("inf"), 1, 2, 3, 4, 3, 2, 1])
    trainer = trainer_factory([RecordingBonus(values=lambda r: values)], [WeightSchedule(1.0)])
    advantages = one_batch(trainer)["advantages"]
    assert torch.isfinite(advantages).all() and advantages[:4].abs().max() > 0.5
    assert trainer._metrics["train"]["ir/recording/nonfinite"] == [1.0]


@pytest.mark.fault("F1")
def test_bonus_that_is_mostly_nan_stops_the_run_by_name(trainer_factory):
    trainer = trainer_factory([RecordingBonus(values=lambda r: torch.full((8,), torch.nan))], [WeightSchedule(1.0)])
    with pytest.raises(RunError, match="'recording' returned 8 non-finite values of 8"):
        trainer.train()


@pytest.mark.fault("F1")
def test_bonus_with_a_nan_in_three_batches_in_a_row_stops_the_run(trainer_factory):
    values = torch.tensor([torch.nan, 1, 2, 3, 4, 3, 2, 1])
    trainer = trainer_factory([RecordingBonus(values=lambda r: values)], [WeightSchedule(1.0)], max_steps=5)
    with pytest.raises(RunError, match="batches in a row: 3"):
        trainer.train()


def test_every_part_is_logged_and_split_by_verdict(trainer_factory):
    trainer = trainer_factory([RecordingBonus("advantage")], [WeightSchedule(0.5)])
    one_batch(trainer)
    names = {"raw", "raw_right", "raw_wrong", "scaled", "weight", "nonfinite", "share_of_advantage", "seen"}
    assert {f"ir/recording/{name}" for name in names} <= set(trainer._metrics["train"])


@pytest.mark.fault("F7")
def test_question_is_the_completions_own_prompt(trainer_factory):
    bonus = RecordingBonus()
    one_batch(trainer_factory([bonus], [WeightSchedule(1.0)]))
    assert bonus.rollouts[0].questions == ["Numbers: 0."] * 4 + ["Numbers: 1."] * 4


@pytest.mark.parametrize("capture", [True, False])
def test_features_match_full_logits(trainer_factory, random_policy, capture):
    needs = {"hidden", "logps", "self_certainty", "entropy"}
    bonus = RecordingBonus(needs=needs)
    trainer = trainer_factory([bonus], [WeightSchedule(1.0)], temperature=0.7, capture=capture)
    output = one_batch(trainer)
    rollout = bonus.rollouts[0]
    input_ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    length = output["completion_ids"].size(1)
    with torch.no_grad():
        full = random_policy(input_ids=input_ids, attention_mask=mask, output_hidden_states=True)
    logits = full.logits[:, -length - 1 : -1] / 0.7
    logps = logits.log_softmax(-1)
    keep = rollout.completion_mask
    sampled = logps.gather(-1, output["completion_ids"][..., None])[..., 0]
    certainty = -logps.mean(-1) - torch.log(torch.tensor(float(logits.size(-1))))
    entropy = -(logps.exp() * logps).sum(-1)
    expected = {"logps": sampled, "self_certainty": certainty, "entropy": entropy}
    for name, values in expected.items():
        torch.testing.assert_close(rollout.features[name][keep], values[keep], atol=1e-4, rtol=1e-4)
    hidden = full.hidden_states[-1][:, -length - 1 : -1]
    torch.testing.assert_close(rollout.features["hidden"][keep], hidden[keep], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pretrain", [False, True])
def test_states_of_single_tokens_are_not_held_while_the_policy_trains(trainer_factory, monkeypatch, pretrain):
    bonus = RecordingBonus(needs={"hidden", "frozen_hidden", "mean_hidden", "logps"})
    trainer = trainer_factory([bonus], [WeightSchedule(1.0)])
    monkeypatch.setattr(trainer, "_pretrained", [bonus] if pretrain else [])
    one_batch(trainer)
    assert pretrain or bonus.rollouts[0].features.keys() == bonus.needs
    assert trainer._rollout.features.keys() == {"mean_hidden", "logps"}


@pytest.mark.parametrize(("settings", "taken"), [({}, False), ({"num_iterations": 2}, True)], ids=str)
def test_old_log_probs_are_taken_where_plain_grpo_takes_them_whatever_the_bonus(settings, taken, trainer_factory):
    """Else the ratio is exactly 1 with and without a bonus; taken, they come from the pass that serves the bonus."""
    for weight, capture in ((1.0, False), (0.0, False), (1.0, True)):
        bonus = RecordingBonus(needs={"logps"})
        output = one_batch(trainer_factory([bonus], [WeightSchedule(weight)], capture=capture, **settings))
        assert ("old_per_token_logps" in output) == taken
        if taken and not capture:
            assert torch.equal(output["old_per_token_logps"], bonus.rollouts[0].features["logps"])


def test_a_new_sampler_goes_on_with_the_order_of_a_later_epoch():
    # TRL 1.16 replays the first epoch's order when a run is resumed in a later one.
    def sampler():
        return EpochSampler(range(8), mini_repeat_count=2, batch_size=4, repeat_count=1, shuffle=True, seed=5)

    uninterrupted = sampler()
    first, second = list(uninterrupted), list(uninterrupted)
    resumed = sampler()
    resumed.set_epoch(1)
    assert list(resumed) == second != first


def test_a_sampler_that_does_not_shuffle_stays_as_it_is():
    in_order = RepeatSampler(range(8), mini_repeat_count=2, shuffle=False)
    assert type(EpochSampler.in_place_of(in_order)) is RepeatSampler
    assert EpochSampler.in_place_of(other := iter(())) is other


def test_the_trainer_shuffles_through_that_sampler(trainer_factory):
    assert isinstance(trainer_factory()._get_train_sampler(), EpochSampler)


def test_weights_of_the_extrinsic_rewards_leave_a_bonus_its_own(trainer_factory):
    bonus = RecordingBonus("reward")
    output = one_batch(trainer_factory([bonus], [WeightSchedule(0.5)], reward_weights=[3.0]))
    rewards = 3.0 * bonus.rollouts[0].correct + 0.5 * torch.arange(8).clamp(max=5.0)
    torch.testing.assert_close(output["advantages"], grouped(rewards))


@pytest.mark.fault("F27")
def test_a_checkpoint_of_other_settings_is_refused_by_the_trainer_itself(trainer_factory, tmp_path):
    saved = trainer_factory(save_strategy="steps", save_steps=1, max_steps=1)
    saved.identity = {"seed": 0}
    saved.train()
    other = trainer_factory(max_steps=2)
    other.identity = {"seed": 1}
    with pytest.raises(UserError, match="seed"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))


def test_a_checkpoint_says_what_it_lacks_but_for_weights_that_are_tied(trainer_factory, monkeypatch):
    said = []
    monkeypatch.setattr("transformers.trainer.logger.warning", said.append)
    trainer = trainer_factory(policy=load_policy("tiny"))
    found = trainer.model.load_state_dict({}, strict=False)
    trainer._issue_warnings_after_load(found._replace(missing_keys=["lm_head.weight"]))
    assert not said
    trainer._issue_warnings_after_load(found._replace(missing_keys=["lm_head.weight", "model.norm.weight"]))
    assert len(said) == 1 and "['model.norm.weight']" in said[0]


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_frozen_features_of_a_policy_that_comes_with_an_adapter_are_those_with_it(trainer_factory, beta):
    policy = get_peft_model(load_policy("tiny"), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    before = copy.deepcopy(policy)
    bonus = RecordingBonus(needs={"hidden", "frozen_hidden"})
    settings = {"policy": policy, "max_steps": 3, "learning_rate": 0.01, "beta": beta}
    trainer_factory([bonus], [WeightSchedule(1.0)], **settings).train()
    last, keep = bonus.rollouts[-1], bonus.rollouts[-1].completion_mask
    ids = torch.cat([last.prompt_ids, last.completion_ids], dim=1)
    mask = torch.cat([last.prompt_mask, last.completion_mask], dim=1)
    with torch.no_grad():
        states = before(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    expected = states[-1][:, -last.completion_ids.size(1) - 1 : -1]
    torch.testing.assert_close(last.features["frozen_hidden"][keep], expected[keep], atol=1e-3, rtol=1e-3)
    assert (last.features["hidden"] - last.features["frozen_hidden"])[keep].abs().max() > 0.01
    assert policy.active_adapter == "default"
    assert not any(weight.requires_grad for name, weight in policy.named_parameters() if ".ref." in name)


@pytest.mark.parametrize("way", ["copy", "reference", "adapter"])
def test_frozen_features_are_those_of_the_policy_before_training(trainer_factory, way):
    bonus = RecordingBonus(needs={"hidden", "frozen_hidden", "frozen_self_certainty", "self_certainty"})
    overrides = {
        "copy": {},
        "reference": {"beta": 0.04},
        "adapter": {"peft_config": LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")},
    }[way]
    policy = load_policy("tiny")
    trainer = trainer_factory(
        [bonus], [WeightSchedule(1.0)], policy=policy, max_steps=3, learning_rate=0.01, **overrides
    )
    trainer.train()
    first, last = bonus.rollouts[0], bonus.rollouts[-1]
    for name in ("hidden", "self_certainty"):
        torch.testing.assert_close(first.features[f"frozen_{name}"], first.features[name], atol=1e-3, rtol=1e-3)
        assert (last.features[f"frozen_{name}"] - last.features[name]).abs().max() > 0.01
    ids = torch.cat([last.prompt_ids, last.completion_ids], dim=1)
    mask = torch.cat([last.prompt_mask, last.completion_mask], dim=1)
    length, keep = last.completion_ids.size(1), last.completion_mask
    with torch.no_grad():
        states = load_policy("tiny")(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    expected = states[-1][:, -length - 1 : -1]
    torch.testing.assert_close(last.features["frozen_hidden"][keep], expected[keep], atol=1e-3, rtol=1e-3)
    assert last.vocab_size == len(load_tokenizer("tiny"))


def test_pretraining_feeds_the_bonus_that_asks_for_it_and_changes_nothing_else(trainer_factory, random_policy):
    class Wanting(RecordingBonus):
        name = "wanting"

        @property
        def pretrain_batches(self):
            return max(0, 3 - self.calls.count("update"))

    wanting, other = Wanting("advantage"), RecordingBonus()
    trainer = trainer_factory([wanting, other], [WeightSchedule(1.0)] * 2, max_steps=1)
    before = copy.deepcopy(random_policy.state_dict())
    trainer.pretrain_bonuses()
    assert wanting.calls == ["update"] * 3 and other.calls == []
    assert all(torch.equal(value, before[name]) for name, value in random_policy.state_dict().items())
    trainer.train()
    assert wanting.calls == [*["update"] * 3, "score", "update"] and other.calls == ["score", "update"]


def test_written_completions_hold_the_prompt_that_the_policy_was_shown(trainer_factory, tmp_path):
    """With worked examples the question alone does not tell it, and the second batch must not repeat the first's."""
    trainer = trainer_factory([RecordingBonus()], [WeightSchedule()])

    def with_example(row):
        example = [{"role": "user", "content": "Numbers: 1, 2."}, {"role": "assistant", "content": "1+2"}]
        return {"prompt": example + row["prompt"]}

    trainer.train_dataset = trainer.train_dataset.map(with_example)
    trainer.completions_dir = tmp_path / "completions"
    trainer.train()
    files = sorted(trainer.completions_dir.glob("*.parquet"))
    frames = [read_completions(path).completions for path in files]
    assert len(frames) == 2
    for item in frames[0] + frames[1]:
        assert item.prompt[0]["content"] == "Numbers: 1, 2." and item.prompt[-1]["content"] == item.question
    assert {item.question for item in frames[0]} != {item.question for item in frames[1]}


def test_every_generation_batch_of_an_update_keeps_its_completions(trainer_factory, tmp_path):
    bonus = RecordingBonus()
    trainer = trainer_factory([bonus], [WeightSchedule()], gradient_accumulation_steps=2, steps_per_generation=1)
    trainer.completions_dir = tmp_path / "completions"
    trainer.train()
    files = sorted(trainer.completions_dir.iterdir())
    assert [path.stem for path in files] == ["step_000000", "step_000000_2", "step_000001", "step_000001_2"]
    texts = [[item.text for item in read_completions(path).completions] for path in files]
    assert texts == [rollout.completions for rollout in bonus.rollouts]
    assert read_completions(tmp_path).label.startswith("step_000001_2 ")


def test_bonuses_see_the_answers_and_approaches_that_the_reward_function_read(trainer_factory):
    seen = []

    class Watching(Bonus):
        name, placement = "watching", "advantage"

        def score(self, rollout):
            seen.append((rollout.answers, rollout.approaches, rollout.completions))
            return torch.zeros(len(rollout))

    trainer = trainer_factory([Watching()], [WeightSchedule()])

    def answering(completions, log_extra, **kwargs):
        log_extra("answer", [text[0]["content"][:1] for text in completions])
        log_extra("approach", [text[0]["content"][1:3] for text in completions])
        return [0.0] * len(completions)

    trainer.train()
    assert seen[0][0] == seen[0][1] == [None] * 8
    trainer.reward_funcs[0] = answering
    trainer.args.max_steps = 1
    trainer.train()
    answers, approaches, texts = seen[-1]
    assert answers == [text[:1] or None for text in texts]
    assert approaches == [text[1:3] or None for text in texts]


def partly_graded(completions, **kwargs):
    return [None if number % 4 == 3 else float(number % 4 == 0) for number in range(len(completions))]


def test_without_a_bonus_a_completion_without_a_verdict_learns_nothing_and_is_not_called_right(
    trainer_factory, tmp_path
):
    trainer = trainer_factory()
    trainer.reward_funcs[0], trainer.completions_dir = partly_graded, tmp_path / "completions"
    assert one_batch(trainer)["advantages"].view(2, 4)[:, 3].tolist() == [0.0, 0.0]
    (file,) = trainer.completions_dir.glob("*.parquet")
    assert pd.read_parquet(file)["correct"].tolist() == [True, False, False, None] * 2


@pytest.mark.parametrize("placement", ["reward", "advantage"])
def test_with_a_bonus_a_completion_without_a_verdict_ends_the_run_before_it_is_learnt(placement, trainer_factory):
    bonus = RecordingBonus(placement)
    trainer = trainer_factory([bonus], [WeightSchedule(0.0)])
    trainer.reward_funcs[0] = partly_graded
    said = r"correctness gave None for completion 3 of the batch, of the question 'Numbers: 0\.'.* return 0\.0"
    with pytest.raises(UserError, match=said):
        one_batch(trainer)
    assert bonus.calls == []


def test_only_bonuses_that_read_verdicts_mind_a_verdict_that_is_none_beside_another_reward():
    class Reading(Bonus):
        name, placement, needs_verdict = "reading", "advantage", True

    def check(bonus, rewards):
        gathering = RolloutGathering()
        gathering.bonuses, gathering.reward_func_names = BonusPipeline([bonus], [WeightSchedule()]), ["length", "right"]
        gathering.num_extrinsic, gathering.correctness_column = 2, 1
        gathering._check_graded(torch.tensor(rewards), ["q"] * len(rewards))
        return gathering._correct(torch.tensor(rewards))

    graded = [[1.0, 1.0], [0.5, math.nan]]
    assert check(RecordingBonus(), graded).tolist()[0] == 1.0 and check(RecordingBonus(), graded)[1].isnan()
    with pytest.raises(UserError, match="right gave None for completion 1"):
        check(Reading(), graded)
    with pytest.raises(UserError, match="length and right gave None for completion 0"):
        check(RecordingBonus(), [[math.nan, math.nan], [1.0, 1.0]])
    assert check(Reading(), [[math.nan, 1.0], [math.nan, 0.0]]).tolist() == [1.0, 0.0]


def test_the_penaltys_pass_over_the_reference_serves_the_bonuses_and_the_penalty_alike(trainer_factory):
    def trained(needs):
        policy = load_policy("tiny")
        bonus = RecordingBonus(needs=needs)
        trainer = trainer_factory([bonus], [WeightSchedule(0.0)], policy=policy, beta=0.1, max_completion_length=24)
        passes = []
        trainer.ref_model.register_forward_hook(lambda *_: passes.append(1))
        trainer.train()
        return policy, len(passes), bonus

    needs = {"frozen_hidden", "frozen_mean_hidden"}
    (plain, plain_passes, _), (served, served_passes, bonus) = trained(set()), trained(needs)
    assert served_passes == plain_passes > 0
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), served.parameters(), strict=True))
    features = bonus.rollouts[0].features
    mean = mean_state(features["frozen_hidden"], bonus.rollouts[0].completion_mask)
    assert torch.equal(features["frozen_mean_hidden"], mean) and mean.abs().max() > 0


@pytest.mark.fault("F11")
def test_rows_that_training_masks_still_have_frozen_features(trainer_factory):
    settings = {"beta": 0.1, "mask_truncated_completions": True, "max_completion_length": 4}
    bonus = RecordingBonus(needs={"frozen_hidden", "hidden", "frozen_mean_hidden", "mean_hidden"})
    trainer_factory([bonus], [WeightSchedule()], policy=load_policy("tiny"), **settings).train()
    features = bonus.rollouts[0].features
    for name in ("hidden", "mean_hidden"):
        torch.testing.assert_close(features[f"frozen_{name}"], features[name], atol=1e-3, rtol=1e-3)
