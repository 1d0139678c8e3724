"""However a batch is laid out, on one process, on two, or in accumulation steps: the same bonuses, the same update."""

import hashlib
import json
from pathlib import Path

import pytest

from common.state import load_state
from tests.compare import assert_close, assert_same_bits
from tests.equivalence.cases import CASES
from tests.equivalence.scripted import STEPS, rank_folder, run_case
from tests.processes import run_ranks


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Folder with what every case leaves on two processes, in two accumulation steps each."""
    folder = tmp_path_factory.mktemp("two")
    run_ranks("tests.equivalence.scripted", folder, *CASES, log=folder / "printed")
    return folder


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def alone(case, tmp_path_factory):
    """What the case leaves on one process that takes each batch whole."""
    folder = tmp_path_factory.mktemp("alone")
    run_case(case, folder)
    assert len(load_state(rank_folder(folder, case, 0), "run")["batches"]) == STEPS
    return rank_folder(folder, case, 0)


def assert_same_run(first: Path, second: Path) -> None:
    """Bonuses and advantages of every batch, weights after the last, and what the bonuses keep, within rounding."""
    for name in ("run", "bonuses"):
        assert_close(load_state(first, name), load_state(second, name))


def digest(rank: Path) -> str:
    """Hash of everything that a bonus keeps, as a checkpoint would hold it."""
    files = [rank / f"bonuses.{suffix}" for suffix in ("safetensors", "json")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_every_rank_holds_the_same_state(case, two_processes):
    """Bit for bit: ranks would drift apart otherwise, and a checkpoint holds the bonuses of the first one alone."""
    ranks = [rank_folder(two_processes, case, number) for number in (0, 1)]
    worlds = [json.loads((rank / "world.json").read_text()) for rank in ranks]
    assert worlds == [{"processes": 2, "kind": "MULTI_CPU"}] * 2
    assert digest(ranks[0]) == digest(ranks[1])
    assert_same_bits(*(load_state(rank, "run")["weights"] for rank in ranks))


def test_two_processes_make_the_run_of_one(case, alone, two_processes):
    assert_same_run(alone, rank_folder(two_processes, case, 0))


def test_accumulation_steps_make_the_run_of_a_whole_batch(case, alone, tmp_path):
    """Three passes over completions shuffled across the groups, and feature passes over four at a time."""
    run_case(case, tmp_path, accumulation=3)
    assert_same_run(alone, rank_folder(tmp_path, case, 0))
