"""Flags of the benchmarks: a value that no measurement can have is refused in one sentence before the first."""

import pytest

from benchmarks import (
    bonus_overhead,
    bridge,
    fit_table,
    generation,
    known_truth,
    memory_scaling,
    peak,
    self_certainty_memory,
    sql_golds,
    sql_mutants,
    step_time,
)
from common.errors import UserError


@pytest.mark.parametrize(
    ("benchmark", "flags"),
    [
        (bonus_overhead, {"beta": -0.5}),
        (bonus_overhead, {"bonuses": "knn,kn"}),
        (bonus_overhead, {"bonuses": "rarity_trigram"}),
        (bridge, {"sft_learning_rate": 0.0}),
        (bridge, {"bonus": "kn"}),
        (fit_table, {"micro_batch": 0}),
        (fit_table, {"prompt": 0}),
        (generation, {"generations": 1}),
        (generation, {"micro_batch": 7}),
        (generation, {"bonus": "kn"}),
        (known_truth, {"problems": 61}),
        (known_truth, {"learning_rate": -1.0}),
        (memory_scaling, {"device": "gpu"}),
        (peak, {"prompts": 0}),
        (peak, {"micro_batch": -1}),
        (self_certainty_memory, {"rows": 0}),
        (self_certainty_memory, {"length": 0}),
        (self_certainty_memory, {"way": "logit"}),
        (sql_golds, {"hidden_databases": -1}),
        (sql_mutants, {"hidden_databases": 0}),
        (step_time, {"rounds": 0}),
        (step_time, {"prompts": 0}),
        (step_time, {"beta": -0.1}),
        (step_time, {"way": "their"}),
    ],
)
def test_a_value_that_no_measurement_can_have_is_refused(benchmark, flags):
    ((name, value),) = flags.items()
    with pytest.raises(UserError, match=f"--{name}={value!r} "):
        benchmark.Options(**flags)


def test_what_the_flags_of_bonuses_say_is_known():
    names = "knn,shuffle:rnd,memoryr+,rarity_embedding,no"
    assert bonus_overhead.Options(bonuses=names).names == names.split(",")
    assert generation.Options(bonus="knn,cfn", micro_batch=64).bonus == "knn,cfn"


def test_a_split_that_is_not_there_is_refused_before_another_is_judged(tmp_path, monkeypatch):
    (tmp_path / "train.jsonl").touch()
    monkeypatch.setattr(sql_golds, "judge_split", lambda *arguments: pytest.fail("a split was judged"))
    monkeypatch.setattr("sys.argv", ["sql_golds", f"--data={tmp_path}", f"--output={tmp_path / 'found'}"])
    with pytest.raises(UserError, match="no file of the split 'validation'"):
        sql_golds.main()
