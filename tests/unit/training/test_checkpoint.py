"""Saving, finding and rotating checkpoints."""

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.state import load_state, save_state
from training.checkpoint import (
    abandon_after,
    check_identity,
    find_checkpoint,
    is_complete,
    list_checkpoints,
    mark_complete,
    rotate,
    saving,
    unmark,
)

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)


def same(left, right) -> bool:
    """Equal in structure, types and bits; NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right or (isinstance(left, float) and math.isnan(left) and math.isnan(right))


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    return torch.arange(math.prod(shape)).reshape(shape).to(draw(st.sampled_from(DTYPES)))


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | tensors()
keys = st.text(max_size=6) | st.sampled_from(["a/b", "a", "b", "~1", "0", ""])
nested = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, nested, max_size=4))
def test_nested_state_survives_a_round_trip_exactly(state):
    with tempfile.TemporaryDirectory() as folder:
        save_state(state, Path(folder))
        assert same(load_state(Path(folder)), state)


def test_a_slash_in_a_key_does_not_make_two_tensors_one(tmp_path):
    state = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}, "a~1b": torch.full((1,), 2.0)}
    save_state(state, tmp_path)
    assert same(load_state(tmp_path), state)


def test_text_with_a_lone_surrogate_survives(tmp_path):
    state = {"texts": ["\ud800 broken", "\u202e\u0000", "😀"]}
    save_state(state, tmp_path)
    assert load_state(tmp_path) == state


def test_noncontiguous_and_shared_tensors_are_stored_by_value(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    save_state({"transposed": base.T, "row": base[1], "row_again": base[1], "all": base}, tmp_path)
    loaded = load_state(tmp_path)
    assert torch.equal(loaded["transposed"], base.T) and loaded["transposed"].is_contiguous()
    loaded["row"].zero_()
    assert torch.equal(loaded["row_again"], base[1]) and torch.equal(loaded["all"], base)


def test_a_trainable_parameter_is_stored_as_plain_tensor(tmp_path):
    save_state(torch.nn.Linear(2, 1).state_dict() | {"raw": torch.nn.Parameter(torch.ones(2))}, tmp_path)
    assert not load_state(tmp_path)["raw"].requires_grad


@pytest.mark.parametrize(
    "value",
    [np.zeros(2), np.float64(1.0), (1, 2), {1: 2}, {1, 2}, object(), torch.zeros(2).to_sparse()],
    ids=lambda value: type(value).__name__,
)
def test_state_of_other_types_is_refused_and_the_old_state_stays(tmp_path, value):
    save_state({"a": 1}, tmp_path)
    with pytest.raises(TypeError, match="/deep"):
        save_state({"deep": value}, tmp_path)
    assert load_state(tmp_path) == {"a": 1}


def test_state_json_is_strict_json(tmp_path):
    save_state({"window": [float("inf"), float("nan")]}, tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((tmp_path / "intrinsic_state.json").read_text(), parse_constant=refuse)


def make_checkpoint(output_dir: Path, step: int, complete: bool = True) -> Path:
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"w" * 1_500_000)
    (folder / "trainer_state.json").write_text("{}")
    (folder / "shards").mkdir()
    (folder / "shards" / "0.bin").write_bytes(b"shard")
    if complete:
        mark_complete(folder)
    return folder


def steps(output_dir: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in list_checkpoints(output_dir)]


def test_a_marked_folder_is_complete_and_extra_files_do_no_harm(tmp_path):
    folder = make_checkpoint(tmp_path, 1)
    (folder / "notes.txt").write_text("mine")
    assert is_complete(folder) == (True, "")


def test_unmark_withdraws_trust(tmp_path):
    folder = make_checkpoint(tmp_path, 1)
    unmark(folder)
    assert not is_complete(folder)[0]


def test_checkpoints_are_ordered_by_number_not_by_name(tmp_path):
    for step in (9, 100, 20):
        make_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert steps(tmp_path) == [9, 20, 100]
    assert find_checkpoint(tmp_path, "auto") == tmp_path / "checkpoint-100"


@pytest.mark.parametrize("resume", ["", None])
def test_without_resume_the_run_starts_fresh(tmp_path, resume):
    make_checkpoint(tmp_path, 1)
    assert find_checkpoint(tmp_path, resume) is None


def test_auto_on_a_folder_that_does_not_exist_starts_fresh_and_says_so(tmp_path, capsys):
    assert find_checkpoint(tmp_path / "none", "auto") is None
    assert f"no complete checkpoint in {tmp_path / 'none'}" in capsys.readouterr().out


def test_explicit_checkpoint_is_taken(tmp_path):
    folder = make_checkpoint(tmp_path, 1)
    make_checkpoint(tmp_path, 2)
    assert find_checkpoint(tmp_path, str(folder)) == folder


def test_naming_the_run_folder_lists_its_checkpoints(tmp_path):
    make_checkpoint(tmp_path, 5)
    with pytest.raises(UserError, match="checkpoint-5"):
        find_checkpoint(tmp_path, str(tmp_path))


def test_rotation_keeps_the_newest_complete_ones(tmp_path):
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step)
    assert rotate(tmp_path, keep=2) == [tmp_path / "checkpoint-10"]
    assert steps(tmp_path) == [20, 30]


def test_rotation_never_counts_an_incomplete_checkpoint(tmp_path):
    make_checkpoint(tmp_path, 5, complete=False)
    make_checkpoint(tmp_path, 10)
    make_checkpoint(tmp_path, 20, complete=False)
    rotate(tmp_path, keep=1)
    assert steps(tmp_path) == [10, 20]
    assert find_checkpoint(tmp_path, "auto", report=lambda reason: None) == tmp_path / "checkpoint-10"


def test_an_incomplete_checkpoint_does_not_take_the_place_of_a_complete_one(tmp_path):
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step, complete=step != 20)
    rotate(tmp_path, keep=2)
    assert steps(tmp_path) == [10, 30]


def test_rotation_without_a_complete_checkpoint_deletes_nothing(tmp_path):
    make_checkpoint(tmp_path, 5, complete=False)
    make_checkpoint(tmp_path, 6, complete=False)
    assert rotate(tmp_path, keep=1) == []
    assert steps(tmp_path) == [5, 6]


def test_rotation_keeps_all_when_no_limit_is_given(tmp_path):
    for step in (1, 2, 3):
        make_checkpoint(tmp_path, step)
    assert rotate(tmp_path, keep=None) == [] and steps(tmp_path) == [1, 2, 3]


def test_rotation_down_to_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least 1"):
        rotate(tmp_path, keep=0)


def test_after_resuming_an_earlier_step_the_old_branch_is_not_resumed_or_kept(tmp_path):
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step)
    assert abandon_after(tmp_path, 10) == [tmp_path / "checkpoint-20", tmp_path / "checkpoint-30"]
    make_checkpoint(tmp_path, 15)
    rotate(tmp_path, keep=1)
    reasons = []
    assert find_checkpoint(tmp_path, "auto", report=reasons.append) == tmp_path / "checkpoint-15"
    assert len(reasons) == 2 and all("earlier step" in reason for reason in reasons)


def test_an_abandoned_checkpoint_that_is_written_again_is_trusted_again(tmp_path):
    folder = make_checkpoint(tmp_path, 20)
    abandon_after(tmp_path, 10)
    with saving(folder):
        (folder / "weights.bin").write_bytes(b"new")
    assert is_complete(folder) == (True, "")


def test_saving_marks_on_the_main_process_only_and_after_everyone_has_written(tmp_path):
    main, other = make_checkpoint(tmp_path, 1, complete=False), make_checkpoint(tmp_path, 2, complete=False)

    def late_rank():
        (main / "rng_state_1.pth").write_bytes(b"late")

    with saving(main, is_main=True, wait_for_everyone=late_rank):
        pass
    with saving(other, is_main=False):
        pass
    assert "rng_state_1.pth" in json.loads((main / "COMPLETE").read_text())["files"]
    assert not is_complete(other)[0]


def test_equal_settings_pass_also_when_a_tuple_became_a_list():
    check_identity(
        {"bonus": {"k": 1, "parts": ["a", "b"]}, "seed": 0}, {"seed": 0, "bonus": {"parts": ("a", "b"), "k": 1}}
    )


@pytest.mark.fault("F27")
def test_different_settings_are_refused_with_a_table_of_the_differences():
    saved = {"bonuses": {"knn": {"k": 1, "encoder": "mini"}}, "seed": 0, "old": None}
    current = {"bonuses": {"knn": {"k": 4, "encoder": "mini"}}, "seed": 0, "model": "tiny"}
    with pytest.raises(UserError) as error:
        check_identity(saved, current)
    rows = [[cell.strip() for cell in line.split("|")] for line in str(error.value).splitlines() if "|" in line]
    assert rows[0] == ["setting", "checkpoint", "this run"]
    assert sorted(rows[1:]) == [
        ["bonuses.knn.k", "1", "4"],
        ["model", "(absent)", '"tiny"'],
        ["old", "null", "(absent)"],
    ]
    assert "--run_name" in str(error.value)


@pytest.mark.fault("F27")
def test_another_bonus_is_one_row_of_the_table_and_not_one_per_setting():
    with pytest.raises(UserError) as error:
        check_identity({"bonuses": {"knn": {"k": 1, "window": 2}}}, {"bonuses": {"cfn": {"dim": 3, "lr": 4}}})
    rows = [[cell.strip() for cell in line.split("|")] for line in str(error.value).splitlines() if "|" in line]
    assert sorted(rows[1:]) == [["bonuses.cfn", "(absent)", "(present)"], ["bonuses.knn", "(present)", "(absent)"]]
