"""The bonuses of a checkpoint as tables."""

import pytest

from analysis.checkpoint import memory_table
from intrinsic import build_bonuses
from intrinsic.options import IntrinsicOptions


@pytest.mark.parametrize(
    ("use_ir", "holders"),
    [("knn+", ["knn+"]), ("shuffle:knn+", ["shuffle:knn+"]), ("knn+,noise", ["knn+"]), ("rnd", [])],
)
def test_memories_are_listed_once_under_the_bonus_of_the_run_that_has_them(use_ir, holders):
    table = memory_table(build_bonuses(IntrinsicOptions(use_ir=use_ir)))
    assert list(dict.fromkeys(table["bonus"])) == holders
    assert sorted(table["memory"]) == ["failure", "success"] * len(holders)
