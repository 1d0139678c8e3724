"""The contract every registered bonus keeps, and the completeness of the registry: code, test, card, README row."""

import copy
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch

from common.state import load_state, save_state
from intrinsic import ALIASES, REGISTRY, build_bonus
from intrinsic.base import FEATURES
from intrinsic.options import BonusFlags, IntrinsicOptions
from tests.compare import assert_same_bits
from tests.toys import ANSWERS, CORRECT, QUESTIONS, TEXTS

ROOT = Path(__file__).parents[3]
# Rows of the table of methods that are flags of TRL: test_entropy_flags.py.
OF_TRL = {"--entropy_coef", "--use_adaptive_entropy", "--top_entropy_quantile"}


def as_in_its_paper(name):
    return build_bonus(name, IntrinsicOptions(use_ir=name), level="reward")


@pytest.fixture(params=sorted(REGISTRY))
def bonus(request):
    return as_in_its_paper(request.param)


@pytest.fixture
def batches(rollout_factory):
    """A past batch to learn from and a present one to score."""
    past = rollout_factory(
        [text + " past" for text in TEXTS], CORRECT, QUESTIONS, num_generations=4, answers=["1", *ANSWERS[1:]]
    )
    present = rollout_factory(TEXTS, CORRECT, QUESTIONS, num_generations=4, step=11, answers=ANSWERS)
    return past, present


def learn(bonus, rollout):
    bonus.score_parts(rollout)
    return bonus.update(rollout)


def snapshot(bonus):
    return copy.deepcopy(bonus.state_dict())


def test_declares_what_the_trainer_reads(bonus):
    assert bonus.placement in ("reward", "advantage", "token")
    assert bonus.needs <= FEATURES
    assert bonus.identity()["name"] == bonus.name


def test_score_is_float32_finite_and_of_the_right_shape(bonus, batches):
    past, present = batches
    learn(bonus, past)
    score = bonus.score(present)
    shape = tuple(present.completion_mask.shape) if bonus.placement == "token" else (len(present),)
    assert score.shape == shape and score.dtype == torch.float32 and torch.isfinite(score).all()
    parts = bonus.score_parts(present)
    assert tuple(parts) == (bonus.part_names or (bonus.name,))
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(0), score)


def test_score_changes_nothing(bonus, batches):
    past, present = batches
    learn(bonus, past)
    before = snapshot(bonus)
    first = bonus.score(present)
    assert_same_bits(before, bonus.state_dict())
    assert torch.equal(first, bonus.score(present))


def test_update_returns_plain_scalars(bonus, batches):
    logged = learn(bonus, batches[0])
    assert all(isinstance(float(value), float) for value in logged.values())


def test_says_whether_it_depends_on_the_length_of_the_run(bonus, batches):
    """A run whose bonus does not may be resumed with more steps."""
    past, present = batches
    learn(bonus, past)
    shape = present.completion_mask.shape if bonus.placement == "token" else (len(present),)
    advantages = torch.linspace(-1, 1, len(present)).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    paid = []
    for steps in (20, 200):
        present.max_steps = steps
        joined = bonus.combine(advantages, torch.full(shape, 0.01), present)
        paid.append(torch.stack([bonus.score(present), joined]))
    assert bonus.depends_on_length or torch.equal(*paid)


@pytest.mark.fault("F9")
def test_single_completion_and_empty_text(bonus, batches, rollout_factory):
    learn(bonus, batches[0])
    for text in ("", "   ", "12"):
        alone = rollout_factory([text], [0.0], ["first"])
        assert torch.isfinite(bonus.score(alone)).all()
        bonus.update(alone)


@pytest.mark.fault("F9")
def test_row_that_is_all_padding(bonus, batches):
    past, present = batches
    learn(bonus, past)
    assert not present.completion_mask[TEXTS.index("")].any()
    assert torch.isfinite(bonus.score(present)[TEXTS.index("")]).all()


@pytest.mark.fault("F7")
def test_permuting_groups_permutes_scores(bonus, batches, rollout_factory):
    past, present = batches
    learn(bonus, past)
    order = [4, 5, 6, 7, 0, 1, 2, 3]
    permuted = rollout_factory(
        [TEXTS[i] for i in order],
        [CORRECT[i] for i in order],
        [QUESTIONS[i] for i in order],
        num_generations=4,
        step=11,
        answers=[ANSWERS[i] for i in order],
    )
    permuted.features = {name: values[order] for name, values in present.features.items()}
    permuted.completion_mask, permuted.completion_ids = present.completion_mask[order], present.completion_ids[order]
    torch.testing.assert_close(bonus.score(permuted), bonus.score(present)[order], atol=1e-6, rtol=1e-5)


def test_saved_and_loaded_state_scores_the_same(bonus, batches, tmp_path):
    past, present = batches
    learn(bonus, past)
    save_state(bonus.state_dict(), tmp_path, "state")
    fresh = as_in_its_paper(bonus.name)
    fresh.load_state_dict(load_state(tmp_path, "state"))
    assert torch.equal(fresh.score(present), bonus.score(present))
    learn(bonus, present), learn(fresh, present)
    assert_same_bits(bonus.state_dict(), fresh.state_dict())


def test_same_past_gives_the_same_score(bonus, batches):
    past, present = batches
    twin = as_in_its_paper(bonus.name)
    learn(bonus, past), learn(twin, past)
    assert torch.equal(bonus.score(present), twin.score(present))


@pytest.fixture(scope="module")
def plain_grpo():
    """Where the weights of plain GRPO are kept once the first test has trained it."""
    return {}


def telling(completions, log_extra, **columns):
    """Every third length is right; answers and approaches are told, for the bonuses that read them."""
    texts = [completion[0]["content"] for completion in completions]
    log_extra("answer", [text[:1] for text in texts])
    log_extra("approach", [text[1:2] for text in texts])
    return [float(len(text) % 3 == 0) for text in texts]


def train_told(trainer):
    trainer.reward_funcs[0] = telling
    trainer.train()


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_weight_zero_trains_like_no_bonus(name, trainer_factory, random_policy, plain_grpo):
    start = copy.deepcopy(random_policy.state_dict())
    if not plain_grpo:
        plain = copy.deepcopy(random_policy)
        train_told(trainer_factory(policy=plain))
        plain_grpo.update(plain.state_dict())
    options = IntrinsicOptions(use_ir=name, ir_weight="0")
    bonus = build_bonus(name, options, level="reward")
    train_told(trainer_factory([bonus], options.schedules(), policy=random_policy))
    assert_same_bits(dict(random_policy.state_dict()), plain_grpo)
    assert not torch.equal(start["model.embed_tokens.weight"], plain_grpo["model.embed_tokens.weight"])


@pytest.mark.fault("X4")
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_evaluation_does_not_touch_the_bonus(name, trainer_factory):
    options = IntrinsicOptions(use_ir=name)
    bonus = build_bonus(name, options, level="reward")
    before = snapshot(bonus)
    trainer_factory([bonus], options.schedules(), per_device_eval_batch_size=16).evaluate()
    assert_same_bits(before, bonus.state_dict())


def test_every_bonus_has_test_card_and_readme_row():
    cards = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")}
    methods = (ROOT / "README.md").read_text(encoding="utf-8").split("## Methods")[1].split("\n## ")[0]
    table = set(re.findall(r"^\| `([^`]+)` \|", methods, re.MULTILINE))
    assert cards == {*REGISTRY, "shuffle"}
    assert table == {"no", *REGISTRY, "shuffle:NAME"} | OF_TRL
    for name, target in REGISTRY.items():
        module = target.split(":")[0].rsplit(".", 1)[1]
        assert (ROOT / "tests" / "unit" / "intrinsic" / f"test_{module}.py").exists(), f"{name} has no unit test file"


def test_every_class_of_flags_is_among_the_flags_of_all_bonuses():
    """Else its flags would be flags of no script, and ``from_options`` would find none."""
    classes = set()
    for path in (ROOT / "intrinsic" / "flags").glob("*.py"):
        kinds = vars(import_module(f"intrinsic.flags.{path.stem}")).values()
        classes |= {kind for kind in kinds if isinstance(kind, type) and kind.__name__.endswith("Flags")}
    assert classes and classes <= set(BonusFlags.__mro__)


def test_help_names_every_bonus_and_alias():
    help_text = IntrinsicOptions.__dataclass_fields__["use_ir"].metadata["help"]
    assert set(re.findall(r"[a-z0-9-]+\+?", help_text)) >= {"no", *REGISTRY, *ALIASES}
