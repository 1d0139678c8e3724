"""What is said to have no effect in a mode of its bonus has none."""

from dataclasses import fields

import pytest
import torch

from intrinsic import build_bonuses
from intrinsic.flags.modes import MODE_RULES
from intrinsic.options import BonusFlags, IntrinsicOptions
from tests.toys import ANSWERS, QUESTIONS, TEXTS
from tests.unit.intrinsic.mode_cases import IN_EVERY_MODE, OF_MODE, each_flag, other_value

FLAGS = {item.name: item for item in fields(BonusFlags)}
RIGHT = [1, 0, 0, 1, 1, 0, 1, 1]
APPROACHES = ["a", None, "b", "b", "c", None, "c", "d"]  # of the last group's right ones the last is rare
SMALL = {"cfn_width": 8, "cfn_warmup": 1, "cfn_filters": "none"}  # counts that pay for completions of six tokens


def test_every_flag_is_of_a_mode_or_in_every_mode():
    of_mode = {name for rule in MODE_RULES for name in rule.flags.split()}
    assert of_mode | IN_EVERY_MODE == FLAGS.keys() and not of_mode & IN_EVERY_MODE
    assert of_mode == {name for case in OF_MODE for name in case[0].split()}


def paid(flags, rollout_factory) -> list[torch.Tensor]:
    """What the bonuses of a run give three batches, each after they have learnt from those before."""
    groups = {"num_generations": 4, "answers": ANSWERS, "approaches": APPROACHES}
    given = []
    bonuses = build_bonuses(IntrinsicOptions(**SMALL | flags))
    for step in (10, 11, 12):
        rollout = rollout_factory([f"{text} {step}" for text in TEXTS], RIGHT, QUESTIONS, step=step, **groups)
        for bonus in bonuses:
            scores = bonus.score(rollout)
            given += [scores, bonus.combine(torch.linspace(-1, 1, scores.numel()).view_as(scores), scores, rollout)]
            bonus.update(rollout)
    return given


@pytest.mark.parametrize(("name", "run"), each_flag(1))
def test_a_flag_of_another_mode_changes_nothing(name, run, rollout_factory):
    changed = run | {name: other_value(FLAGS[name])}
    before = paid(run, rollout_factory)
    assert any(scores.unique().numel() > 1 for scores in before[::2]), "nothing is paid that could change"
    for a, b in zip(before, paid(changed, rollout_factory), strict=True):
        assert torch.equal(a, b)
