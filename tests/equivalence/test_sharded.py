"""A policy that FSDP 2 shards over two processes trains, scores, saves and goes on as on one process."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.trainer import OPTIMIZER_NAME

from common.state import load_state
from tests.compare import assert_close, assert_same_bits
from tests.equivalence.scripted import build_scripted, rank_folder, run_case, weights_of
from tests.equivalence.sharded import COMPLETIONS, SHARDED, adam_trainer, features_of
from tests.equivalence.test_layouts import assert_same_run, digest
from tests.processes import accelerate_launch, run_script
from training.checkpoint import is_complete

TOY = ["--gc", "1", "--num_generations", "4", "--L", "64", "--train_problems", "64", "--logging_steps", "1"]
TOY += ["--seed", "3", "--eval_problems", "3", "--eval_greedy", "0", "--save_steps", "1", "--use_ir=knn+,sc,rnd"]
TOY += ["--ir_weight=1,0.5,0.5", "--explore_warmup", "1", "--encoder", "policy", "--rnd_width", "16"]
TOY += ["--bf16", "false"]


def completions(folder, step):
    return pd.read_parquet(folder / "completions" / f"step_{step:06d}.parquet")


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Folder with all that `tests.equivalence.sharded` leaves, a run of run_countdown.py in ``run`` among it."""
    folder = tmp_path_factory.mktemp("sharded")
    flags = [*TOY, "--bs", "1", "--max_steps", "2", "--output_dir", folder / "run"]
    accelerate_launch(
        "configs/accelerate/fsdp.yaml", "tests.equivalence.sharded", folder, *flags, log=folder / "printed"
    )
    return folder


@pytest.fixture(scope="module")
def adam_alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adam")
    adam_trainer(folder, processes=1).train()
    return folder


@pytest.mark.parametrize("case", SHARDED)
def test_two_sharding_processes_make_the_run_of_one(case, launched, tmp_path):
    run_case(case, tmp_path, cases=SHARDED)
    alone = rank_folder(tmp_path, case, 0, SHARDED)
    ranks = [rank_folder(launched, case, number, SHARDED) for number in (0, 1)]
    worlds = [json.loads((rank / "world.json").read_text()) for rank in ranks]
    assert worlds == [{"processes": 2, "kind": "FSDP"}] * 2
    assert digest(ranks[0]) == digest(ranks[1])
    assert_same_bits(*(load_state(rank, "run")["weights"] for rank in ranks))
    assert_same_run(alone, ranks[0])


def test_processes_with_more_and_with_fewer_completions_get_their_features(launched, tmp_path):
    trainer = build_scripted({"use_ir": "no"}, tmp_path)
    for rank in (0, 1):
        assert_close(load_state(launched, f"features{rank}"), features_of(trainer, COMPLETIONS[rank]))


def test_shards_are_read_whole_or_by_all_processes(launched):
    """The head that bonuses read has the weights that are trained; a gradient broken on one process stops both."""
    states = [load_state(launched, f"adam{rank}") for rank in (0, 1)]
    assert [state["kinds"] for state in states] == [["DTensor"]] * 2
    assert [state["head"] for state in states] == [True, True]
    assert [state["finite"] for state in states] == [[True, False]] * 2


def test_checkpoint_is_that_of_one_process(launched, adam_alone):
    ours, theirs = launched / "adam" / "checkpoint-1", adam_alone / "checkpoint-1"
    one = {"rng_state.pth"}
    assert {path.name for path in ours.iterdir()} - {"rng_state_0.pth", "rng_state_1.pth"} == {
        path.name for path in theirs.iterdir()
    } - one
    states = [torch.load(folder / OPTIMIZER_NAME, weights_only=True) for folder in (ours, theirs)]
    assert_close(*states)
    weights = [load_file(folder / "model.safetensors") for folder in (ours, theirs)]
    # Adam makes a whole step of the rounding of a gradient of almost zero.
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[0][name], value, atol=2.1e-4, rtol=0)


def test_checkpoint_resumes_on_one_process_and_on_two(launched, tmp_path):
    resumed = adam_trainer(tmp_path, processes=1)
    resumed.train(resume_from_checkpoint=str(launched / "adam" / "checkpoint-1"))
    straight = load_file(launched / "adam" / "checkpoint-2" / "model.safetensors")
    on_two = load_state(launched, "adam0")["resumed"]
    on_one = weights_of(resumed)
    for name, value in straight.items():
        assert torch.equal(on_two[name], value), name
        torch.testing.assert_close(on_one[name], value, atol=1.1e-4, rtol=0)


def test_run_from_the_shell_leaves_a_plain_policy_and_goes_on_alone(launched, tmp_path):
    folder = launched / "run"
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log if "loss" in record] == [1, 2]
    assert all(record["grad_norm"] > 0 for record in log if "loss" in record)
    # The two processes did not sample equally long.
    longest = completions(folder, 0)["completion"].str.len().groupby([0] * 4 + [1] * 4).max()
    assert longest[0] != longest[1]
    assert {path.stem for path in (folder / "eval").iterdir()} == {"before", "after"}
    for name in ("final", "best"):
        assert AutoModelForCausalLM.from_pretrained(folder / name).config.architectures == ["LlamaForCausalLM"]
    weights = [load_file(folder / name / "model.safetensors") for name in ("final", "checkpoint-2")]
    assert_same_bits(*weights)
    assert is_complete(folder / "checkpoint-2") == (True, "")
    flags = [*TOY, "--bs", "2", "--max_steps", "3", "--do_eval", "0", "--resume", "auto", "--output_dir", folder]
    result = run_script("run_countdown.py", *flags)
    assert "at step 2" in result.stdout and "missing keys" not in result.stderr
    assert len(completions(folder, 2)) == 8
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    known = [record["ir/knn+/failure_responses"] for record in log if "loss" in record]
    assert len(known) == 3 and known[2] > known[1] > known[0]
