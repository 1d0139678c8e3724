"""The cases stand for every bonus."""

import pytest

from intrinsic import REGISTRY, build_bonus, build_bonuses
from intrinsic.options import IntrinsicOptions
from policy.features import FROZEN_FEATURES, TOKEN_FEATURES
from tests.equivalence.cases import CASES, FAST, STANDS_FOR
from tests.equivalence.sharded import SHARDED


def test_every_bonus_that_reads_the_policy_is_in_the_run_of_sharding_processes():
    options = IntrinsicOptions(**FAST)
    read = {name for name in REGISTRY if build_bonus(name, options).needs & (TOKEN_FEATURES | FROZEN_FEATURES.keys())}
    assert read - set(SHARDED["policy"]["use_ir"].split(",")) == {"noise"}, "noise reads what rnd does"


@pytest.mark.parametrize(("name", "case"), STANDS_FOR.items())
def test_a_bonus_that_another_case_stands_for_reads_the_same_features_and_keeps_nothing(name, case):
    (bonus,) = build_bonuses(IntrinsicOptions(**FAST | {"use_ir": name}))
    (other,) = build_bonuses(IntrinsicOptions(**CASES[case]))
    assert bonus.needs == other.needs and bonus.pretrain_batches == other.pretrain_batches == 0
    assert not bonus.state_dict() and bonus.replaces == other.replaces
