"""The shell loops of sweeps/: order, skipping of finished runs, going on with broken ones, the line of what is left."""

import os
import re
import shutil
import subprocess

import pytest

from tests.processes import ROOT

# In place of the interpreter: a run that leaves a policy and an evaluation unless it is told to fail, the writer of
# records, and other modules, which leave nothing.
STAND_IN = """#!/usr/bin/env bash
echo "$@" >> calls.txt
if [[ $1 == -m ]]; then
    if [[ $2 == analysis.records ]]; then touch "${@: -1}/$(basename "$3").json"; fi
    exit
fi
while [[ $1 != --output_dir ]]; do shift; done
if [[ $2 == *"$FAILING"* ]]; then exit 1; fi
if [[ $2 == *"$MEANWHILE"* ]]; then MEANWHILE=nothing bash sweeps/countdown.sh rnd 0 || exit 1; fi
mkdir -p "$2/eval" "$2/final" && touch "$2/eval/after.json" "$2/final/config.json"
"""


@pytest.fixture
def sweep(tmp_path):
    shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def run(script: str, *arguments: str, failing="nothing", meanwhile="nothing") -> tuple[list[str], list[str], int]:
        """(lines printed, calls made, exit code)"""
        (tmp_path / "calls.txt").write_text("")
        environment = os.environ | {"PYTHON": "./python", "SIDE_BY_SIDE": "1"}
        environment |= {"FAILING": failing, "MEANWHILE": meanwhile}
        command = ["bash", f"sweeps/{script}", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert not done.stderr or failing in done.stderr, done.stderr
        return done.stdout.splitlines(), (tmp_path / "calls.txt").read_text().splitlines(), done.returncode

    return run


def test_runs_once_in_an_order_that_keeps_the_table_useful(sweep):
    lines, calls, code = sweep("countdown.sh", "knn+_reward no knn+ shuffle:knn+ no_temperature0.9", "0 1")
    runs = [line.partition(":")[0] for line in lines]
    assert code == 0 and runs[:4] == ["no_seed0", "knn+_seed0", "no_seed1", "knn+_seed1"]
    others = ("knn+_reward", "shuffle-knn+", "no_temperature0.9")
    assert runs[4:] == [f"{arm}_seed{seed}" for seed in (0, 1) for arm in others]
    assert lines[0].startswith("no_seed0: done; 9 of 10 runs left, about ") and "; 0 of 10 runs left" in lines[-1]
    assert any("--use_ir=no --temperature=0.9 --seed=1" in call for call in calls)
    (level,) = (call for call in calls if "knn+_reward_seed1 " in f"{call} " and call.startswith("run_countdown.py"))
    assert "--use_ir=knn+ --ir_level=reward --seed=1" in level
    assert sweep("countdown.sh", "no knn+", "0 1") == ([], [], 0), "finished runs are skipped"


def test_the_runs_of_sql_tiny_begin_with_one_warm_start(sweep, tmp_path):
    final = tmp_path / "outputs" / "sql_tiny_base" / "warm_start" / "final"
    final.mkdir(parents=True)
    (final / "config.json").touch()
    lines, calls, code = sweep("sql_tiny.sh", "outcome no shuffle:outcome", "0 1")
    runs = [line.partition(":")[0] for line in lines]
    assert code == 0 and runs[:3] == ["no_seed0", "no_seed1", "outcome_seed0"] and "shuffle-outcome_seed1" in runs
    started = [call for call in calls if call.startswith("run_sql.py")]
    assert len(started) == 6 and all(f"--model_name={final.relative_to(tmp_path)} " in call for call in started)
    assert "--use_ir=shuffle:outcome --outcome_mode=batch --seed=0 --config=configs/sql_world.yaml" in " ".join(started)


def test_a_failed_run_is_named_and_goes_on_later_while_others_run(sweep, tmp_path):
    lines, _, code = sweep("countdown.sh", "no knn+", "0", failing="no_seed0")
    folder = "outputs/sweeps/countdown/no_seed0"
    assert code != 0 and lines[0] == f"no_seed0: failed, see {folder}.log"
    assert lines[1].startswith("knn+_seed0: done; 1 of 2 runs left")
    (tmp_path / folder / "checkpoint-25").mkdir(parents=True)
    lines, calls, code = sweep("countdown.sh", "no knn+", "0")
    assert code == 0 and len(lines) == 1 and calls[0].endswith(f"--output_dir {folder} --resume auto")


def test_a_sweep_that_runs_beside_another_of_the_same_results_leaves_its_plan_alone(sweep, tmp_path):
    lines, calls, code = sweep("countdown.sh", "no knn+", "0", meanwhile="no_seed0")
    assert code == 0 and [line.partition(", ")[0] for line in lines] == [
        "no_seed0: done; 1 of 2 runs left",
        "knn+_seed0: done; 0 of 2 runs left",
    ]
    assert (tmp_path / "results" / "countdown" / "rnd_seed0.json").exists()


@pytest.mark.parametrize(
    ("script", "base", "data", "trains"),
    [
        ("smollm2.sh", "countdown", (), "run_countdown.py .*--config=configs/smollm2.yaml "),
        ("smollm2_arc.sh", "arc", ("some_arc",), "run_choice.py .*--config=configs/smollm2_arc.yaml --data=some_arc "),
    ],
)
def test_a_pretrained_policy_gets_its_start_once_and_runs_in_the_same_order(sweep, script, base, data, trains):
    lines, calls, code = sweep(script, "cfn no shuffle:knn+", "0 1", *data)
    runs = [line.partition(":")[0] for line in lines]
    assert code == 0 and runs[:3] == ["no_seed0", "no_seed1", "cfn_seed0"] and len(runs) == 6
    traces, start, *rest = calls
    folder = f"outputs/smollm2_base/{base}"
    assert traces.endswith(f"--output {folder}/traces.jsonl") and f"--output_dir {folder}/sft " in start
    assert all(name in traces for name in data)
    assert sum(bool(re.match(trains, call)) for call in rest) == 6
    assert sweep(script, "no cfn", "0 1", *data) == ([], [], 0), "finished runs are skipped, and the start is there"


def test_countdown_is_tuned_on_seeds_and_problems_that_its_comparison_does_not_have(sweep):
    _, calls, code = sweep("countdown_grid.sh", "no", "100")
    runs = [call for call in calls if call.startswith("run_countdown.py")]
    assert code == 0 and len(runs) == 10 and "--learning_rate=2e-4 --beta=0.04" in runs[0]
    assert runs[0].endswith("/no_seed100") and runs[1].endswith("/no_lr2e-4_beta0_seed100")
    assert "--temperature=0.8 " in runs[6] and runs[6].endswith("/no_temperature0.8_seed100")
    assert not any("--learning_rate" in run or "--beta" in run for run in runs[6:]), "the configuration has the cell"
    _, calls, _ = sweep("countdown.sh")
    compared = [call for call in calls if call.startswith("run_countdown.py")]
    assert all("--eval_split=test " in run and "--seed=100" not in run for run in compared) and len(compared) == 90
    assert not any("--eval_split" in run for run in runs)
    _, calls, _ = sweep("edge_of_competence.sh", "no", "0", "4")
    judged = [re.findall(r"--(?:eval_\w+|bf16)=\w+", run) for run in (calls[0], compared[0])]
    assert judged[0] == judged[1], "groups of eight are runs of sweeps/countdown.sh"


def test_countdown_untuned_has_another_learning_rate_and_the_problems_of_the_grid(sweep):
    _, calls, code = sweep("countdown_untuned.sh", "no knn+_reward", "0")
    runs = [call for call in calls if call.startswith("run_countdown.py")]
    assert code == 0 and all("--learning_rate=2e-4 " in run and "--eval_split" not in run for run in runs)
    assert "--use_ir=knn+ --learning_rate=2e-4 --ir_level=reward" in runs[1]


def test_the_demo_of_the_makefile_is_that_of_its_records(sweep):
    _, calls, code = sweep("demo.sh", "0 1")
    runs = [call for call in calls if call.startswith("run_countdown.py")]
    (recipe,) = (ROOT / "Makefile").read_text().partition("\ndemo:")[2].partition("\n\n")[0].splitlines()[1:]
    name = "--run_name demo_seed$(SEED) --seed $(SEED)"
    assert recipe == f"\t$(BIN)/python run_countdown.py --config configs/demo.yaml {name}"
    assert code == 0 and len(runs) == 2
    for seed, run in enumerate(runs):
        flags = f"--config=configs/demo.yaml --seed={seed}"
        where = f"--reuse_before --output_dir outputs/sweeps/demo/knn+_seed{seed}"
        assert run == f"run_countdown.py {flags} {where}"


def test_bridge_makes_each_start_once_and_trains_from_it(sweep):
    folder = "outputs/sweeps/bridge/starts/injected_seed1"
    lines, _, code = sweep("bridge.sh", "plain injected", "0 1", failing="starts/injected_seed1")
    assert code != 0 and lines == [f"injected_seed1: the supervised start failed, see {folder}.log"]
    lines, calls, code = sweep("bridge.sh", "plain injected", "0 1")
    assert code == 0 and [line.partition(":")[0] for line in lines] == [
        *("plain_seed0", "injected_seed0", "plain_seed1", "injected_seed1")
    ]
    traces, start = calls[:2]
    assert "--style injected" in traces and "--seed 101 " in traces and start.startswith("run_sft.py")
    trained = [call for call in calls if call.startswith("run_countdown.py")]
    assert f"--model_name={folder}/final --use_ir=no --seed=1" in trained[-1] and len(trained) == 4
    assert sum(call.startswith("run_sft.py") for call in calls) == 1, "starts that are there are not made again"


def test_the_policy_of_igsm_learns_short_problems_before_longer_ones_and_goes_on_where_it_stopped(sweep, tmp_path):
    folder = "outputs/igsm_tiny_base"
    _, calls, code = sweep("igsm_tiny_base.sh", failing="base/second")
    first, second = (call for call in calls if call.startswith("run_sft.py"))
    assert code != 0 and f"--data {folder}/small.jsonl --model_name {folder}/start " in first
    assert f"--data {folder}/large.jsonl --model_name {folder}/first/final " in second and "--resume" not in second
    (tmp_path / folder / "second" / "checkpoint-250").mkdir(parents=True)
    _, calls, code = sweep("igsm_tiny_base.sh")
    (second,) = (call for call in calls if call.startswith("run_sft.py"))
    assert code == 0 and second.endswith("--resume auto") and f"--output_dir {folder}/second " in second


def test_known_truth_hands_its_flags_to_processes_that_share_the_records(sweep):
    _, calls, code = sweep("known_truth.sh", "--seeds", "3")
    folder = "benchmarks/results/known_truth"
    assert code == 0 and calls == [
        f"-m benchmarks.known_truth --records {folder} --output {folder} --looks 2 --seeds 3"
    ]


def test_metric_or_mechanism_runs_every_partition_on_problems_of_several_approaches(sweep):
    lines, calls, code = sweep("metric_or_mechanism.sh", "", "0")
    trained = [call for call in calls if call.startswith("run_countdown.py")]
    arms = ["no", "rarity", "rarity_random", "rarity_answer", "rarity_bigram", "rarity_embedding", "rarity_likelihood"]
    assert code == 0 and [line.partition("_seed0:")[0] for line in lines] == [*arms, "maxrl", "repexp"]
    assert all("--min_approaches=2 " in call and "--eval_split=test " in call for call in trained)
    partitions = [re.search(r"--rarity_partition=(\w+)", call) for call in trained]
    assert [found and f"rarity_{found[1]}" for found in partitions] == [None, None, *arms[2:], None, None]
    assert [re.search(r"--use_ir=(\S+)", call)[1] for call in trained] == ["no", *["rarity"] * 6, "maxrl", "repexp"]


def test_a_run_that_collapses_leaves_a_record_too(sweep):
    """Self-certainty stops where it collapses unless told otherwise, and a stopped run has no evaluation after."""
    _, calls, _ = sweep("countdown.sh", "sc", "0")
    assert "--stop_on_collapse=false" in calls[0]
