"""What a run asks of a control is answered by the bonus that it controls."""

import pytest
import torch

from intrinsic.base import Bonus
from intrinsic.noise import Noise
from intrinsic.parts.control import FIXED, Control
from intrinsic.shuffle import Shuffle

OWN = {  # members of `Bonus` that a control answers for itself
    *("name", "score", "score_parts", "present_parts", "part_names", "identity", "from_options"),
    *("replaces", "multiplies", "per_token_flags", "uncontrolled"),  # with these there is no control
    *("at_level", "advantage_weight"),  # settled before there is one, from what it controls
    *("label_free", "measured"),  # no scores of a control stand in for verdicts, or measure anything
}


class Unusual(Bonus):
    """Answers everything that a control may pass on otherwise than `Bonus` does."""

    name, placement = "unusual", "reward"
    needs, reads = frozenset({"logps"}), frozenset({"answer"})
    needs_verdict = from_second_visit = centred = depends_on_length = True
    clipped, pretrain_batches, batches_before_bonus = False, 3, 5

    def check(self, num_generations, max_completion_length):
        raise ValueError(f"{num_generations} {max_completion_length}")

    def eligible(self, rollout):
        return torch.arange(len(rollout)) % 2 == 0

    def update(self, rollout):
        return {"learnt": 1.0}

    def combine(self, advantages, scores, rollout):
        return 2 * scores

    def combine_noise(self, advantages, scores, rollout):
        return 3 * scores

    def capacity_bytes(self, embedding_width):
        return 7 * embedding_width

    def state_dict(self):
        return {"a": 1}

    def load_state_dict(self, state):
        self.loaded = state


def test_every_member_of_a_bonus_is_passed_on_or_a_controls_own():
    members = {name for name in vars(Bonus).keys() | Bonus.__annotations__.keys() if not name.startswith("_")}
    passed_on = set(FIXED) | {name for name in vars(Control) if not name.startswith("_")}
    assert members - passed_on == OWN and not passed_on & OWN


@pytest.mark.parametrize("control", [Shuffle, Noise])
def test_a_control_answers_as_its_bonus(control, rollout_factory):
    bonus, rollout = Unusual(), rollout_factory(["1"] * 4, [0] * 4)
    control, scores = control(bonus), torch.ones(4)
    for member in (*FIXED, "pretrain_batches", "batches_before_bonus", "depends_on_length"):
        assert getattr(control, member) == getattr(bonus, member) != getattr(Bonus(), member, None), member
    with pytest.raises(ValueError, match="4 9"):
        control.check(4, 9)
    assert torch.equal(control.eligible(rollout), bonus.eligible(rollout))
    assert torch.equal(control.combine(scores, scores, rollout), scores * (3 if isinstance(control, Noise) else 2))
    assert torch.equal(control.combine_noise(scores, scores, rollout), 3 * scores)
    assert control.update(rollout) == {"learnt": 1.0} and control.capacity_bytes(8) == 56
    control.load_state_dict(control.state_dict())
    assert control.batches == 1 and bonus.loaded == {"a": 1}


def test_beside_its_bonus_noise_neither_learns_nor_saves_nor_counts_it_again(rollout_factory):
    noise = Noise(Unusual(), learns=False)
    assert noise.update(rollout_factory(["1"] * 4, [0] * 4)) == {}
    assert noise.state_dict() == {"batches": 1} and noise.capacity_bytes(8) == 0
