"""The cases stand for every bonus."""

import pytest

from intrinsic import build_bonuses
from intrinsic.options import IntrinsicOptions
from tests.equivalence.cases import CASES, FAST, STANDS_FOR


@pytest.mark.parametrize(("name", "case"), STANDS_FOR.items())
def test_a_bonus_that_another_case_stands_for_reads_the_same_features_and_keeps_nothing(name, case):
    (bonus,) = build_bonuses(IntrinsicOptions(**FAST | {"use_ir": name}))
    (other,) = build_bonuses(IntrinsicOptions(**CASES[case]))
    assert bonus.needs == other.needs and bonus.pretrain_batches == other.pretrain_batches == 0
    assert not bonus.state_dict() and bonus.replaces == other.replaces
