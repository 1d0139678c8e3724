"""Table and figure of the BRIDGE benchmark, from the files that its scripts leave."""

import json
import math
import shutil
import signal
import subprocess
import sys

import pytest

from benchmarks.bridge import Options, collect, main, measure_arm, run_arm
from benchmarks.bridge_report import INFLUENCE, plot, seed_interval, table
from common.errors import RunError, UserError
from tests.processes import ROOT

BEFORE, AFTER = {"plain": (0.20, 0.22), "injected": (0.15, 0.35)}, {"plain": (0.21, 0.24), "injected": (0.40, 0.44)}

# The benchmark, with one step per arm that goes on until it is ended, or its input is.
STUB_STEPS = """
import sys
from benchmarks import bridge

STEP = '''
import signal, sys
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(print("ended", flush=True)))
print("begun", flush=True)
sys.stdin.read()
'''
bridge.measure_arm = lambda options, style, seed: bridge.STEPS.run([sys.executable, "-c", STEP])
bridge.main()
"""


def value(mean):
    return {"mean": mean, "low": mean - 0.02, "high": mean + 0.03, "n": 64}


def finished(tmp_path, **settings):
    """Two arms of each style whose every step is finished."""
    for style in BEFORE:
        for seed in range(2):
            folder = tmp_path / f"{style}_seed{seed}"
            for path in ("grpo/eval", "grpo/final", "influence", "sft/final"):
                (folder / path).mkdir(parents=True)
            (folder / "traces.jsonl").touch()
            (folder / "settings.json").write_text(json.dumps(Options().settings() | settings))
            for name, means in (("before", BEFORE), ("after", AFTER)):
                metrics = {"accuracy": value(means[style][seed]), "mean_length": 25.4, "truncated": 0.125}
                (folder / "grpo" / "eval" / f"{name}.json").write_text(json.dumps({"metrics": metrics}))
            metrics = {key: value(0.3) for key in INFLUENCE.values()}
            (folder / "influence" / "influence.json").write_text(json.dumps({"metrics": metrics, "records": []}))
    return Options(seeds=2, output=str(tmp_path), **settings)


@pytest.fixture
def options(tmp_path):
    """Those of `finished` arms."""
    return finished(tmp_path)


def collected(options):
    """What the records say, once every arm has left one."""
    for style in BEFORE:
        for seed in range(2):
            measure_arm(options, style, seed)
    return collect(options)


@pytest.fixture
def commands(monkeypatch):
    """The commands of the steps that were started, none of which does anything."""
    started = []

    def run(command, **kwargs):
        started.append(" ".join(command[1:]))
        return 0

    monkeypatch.setattr("benchmarks.bridge.STEPS.run", run)
    return started


def test_table_shows_every_seed_with_its_interval_and_what_grpo_added(options):
    lines = table(collected(options)).splitlines()
    assert "| plain | accuracy after SFT, % | 20.0 [18.0, 23.0] | 22.0 [20.0, 25.0] | 21.0 ± 12.7 |" in lines
    assert "| injected | gain by GRPO, points | +25.0 | +9.0 | +17.0 ± 101.6 |" in lines
    assert "| injected over plain | gain by GRPO, points | +24.0 | +7.0 | +15.5 ± 108.0 |" in lines
    assert "| injected | tokens, cut off, after GRPO | 25, 12% | 25, 12% | |" in lines
    assert sum("before GRPO" in line and "0.300 [0.280, 0.330]" in line for line in lines) == 4
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_figure_is_drawn_with_and_without_influence(options, tmp_path):
    plot(collected(options), tmp_path / "with.png")
    plot(collected(finished(tmp_path / "without", queries=0)), tmp_path / "without.png")
    assert (tmp_path / "with.png").stat().st_size > (tmp_path / "without.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("flags", "said"),
    [({"rl_steps": 9}, "rl_steps=100, not 9; set --rl_steps so, or give another --output"), ({}, "does not say what")],
)
def test_steps_of_other_settings_are_never_recorded_under_these(flags, said, options, tmp_path):
    if not flags:
        (tmp_path / "plain_seed0" / "settings.json").unlink()
    with pytest.raises(UserError, match=said):
        measure_arm(Options(output=options.output, records=str(tmp_path / "new"), **flags), "plain", 0)
    assert not (tmp_path / "new").exists()


def test_what_is_finished_is_not_run_again(options, monkeypatch):
    monkeypatch.setattr("benchmarks.bridge.STEPS.run", lambda *args, **kwargs: pytest.fail("a step was run"))
    run_arm(options, "plain", 0)


def test_a_record_stands_for_the_whole_arm_and_is_of_one_setting(options, tmp_path, monkeypatch):
    """Without data and runs, as in a fresh clone with committed records."""
    found = collected(options)
    shutil.rmtree(tmp_path / "plain_seed0")
    assert collected(options) == found
    command = ["bridge", "--seeds=2", f"--output={tmp_path}", "--traces=9"]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr("benchmarks.bridge.STEPS.run", lambda *args, **kwargs: pytest.fail("a step was run"))
    with pytest.raises(UserError, match=r"plain_seed0.json was made with traces=2000, not 9; set --traces so"):
        main()
    record = tmp_path / "bridge" / "plain_seed0.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"measured": None}))
    with pytest.raises(UserError, match="has no 'measured'; delete it"):
        collect(options)


def test_a_report_of_records_names_the_code_that_they_were_measured_with(options, tmp_path, monkeypatch):
    collected(options)
    for path in (tmp_path / "bridge").glob("*.json"):
        record = json.loads(path.read_text())
        record["machine"] |= {"commit": path.stem[:-1], "date": f"day {path.stem[-1]}", "cpu": "theirs"}
        path.write_text(json.dumps(record))
    monkeypatch.setattr("sys.argv", ["bridge", "--seeds=2", f"--output={tmp_path}"])
    main()
    captions = (tmp_path / "bridge.md").read_text().splitlines()[-2:]
    assert [line.split("commit ")[1] for line in captions] == [
        "plain_seed, day 0 to day 1.",
        "injected_seed, day 0 to day 1.",
    ]
    assert all(line.startswith("theirs, ") for line in captions)
    machines = json.loads((tmp_path / "bridge.json").read_text())["machines"]
    assert [machine["date"] for machine in machines] == ["day 0", "day 0", "day 1", "day 1"]


def test_every_step_gets_the_seed_and_its_own_flags(tmp_path, commands):
    run_arm(Options(output=str(tmp_path), bonus="knn", traces=9, rl_steps=7, L=33), "injected", 3)
    traces, sft, influence, grpo = commands
    folder = tmp_path / "injected_seed3"
    assert f"--style injected --n 9 --seed 103 --output {folder / 'traces.jsonl'}" in traces
    assert f"--data {folder / 'traces.jsonl'}" in sft and f"--seed 3 --output_dir {folder / 'sft'}" in sft
    for command in (influence, grpo):
        assert f"--model_name {folder / 'sft' / 'final'} --seed 3" in command
    assert "--use_ir knn --L 33 --max_steps 7" in grpo and f"--output_dir {folder / 'grpo'}" in grpo


def test_grpo_that_was_cut_off_goes_on_from_its_checkpoint(options, tmp_path, commands):
    rl = tmp_path / "plain_seed0" / "grpo"
    (rl / "final").rename(rl / "checkpoint-25")
    run_arm(options, "plain", 0)
    (grpo,) = commands
    assert grpo.endswith(f"--output_dir {rl} --resume auto")


def test_igsm_has_problems_of_one_space_in_traces_queries_and_grpo(tmp_path, commands):
    run_arm(Options(task="igsm", output=str(tmp_path), queries=5), "injected", 0)
    traces, sft, queries, influence, grpo = commands
    space = "--min_op=3 --max_op=4 --max_edges=4 --modulus=7 --zero_drop=0.5 --world=brief"
    assert space in traces and "--traces injected" in traces and "--model_name tiny_igsm" in sft
    assert space in queries and "--split test --n 5 " in queries
    assert f"--task igsm --data {tmp_path / 'injected_seed0' / 'queries.jsonl'} " in influence
    assert grpo.startswith("run_igsm.py ") and "--config configs/igsm_tiny.yaml" in grpo and "--L 384 " in grpo
    assert "--train_sampling_strategy group_by_length" in sft and "--max_new_tokens 384" in influence


@pytest.mark.parametrize("flags", [{"L": -1}, {"queries": 1}, {"seeds": 0}, {"task": "math"}])
def test_what_no_step_could_do_is_refused_before_the_first(flags):
    with pytest.raises(UserError, match=f"--{next(iter(flags))}="):
        Options(**flags)


def test_each_part_of_the_held_out_problems_has_its_own_gain(tmp_path, options):
    parts = {"accuracy/op 4-5": (0.3, 0.5), "accuracy/op 6-7": (0.1, 0.2)}
    for path in tmp_path.glob("*/grpo/eval/*.json"):
        metrics = json.loads(path.read_text())["metrics"]
        metrics |= {name: value(levels[path.stem == "after"]) for name, levels in parts.items()}
        path.write_text(json.dumps({"metrics": metrics}))
    found = collected(options)
    lines = table(found).splitlines()
    assert "| plain | gain by GRPO, op 4-5, points | +20.0 | +20.0 | +20.0 ± 0.0 |" in lines
    assert "| injected | accuracy after GRPO, op 6-7, % | 20.0 [18.0, 23.0] | 20.0 [18.0, 23.0] | 20.0 ± 0.0 |" in lines
    assert not any(line.startswith("| plain | accuracy after SFT, %") for line in lines)
    plot(found, tmp_path / "parts.png")


def test_a_step_that_fails_ends_the_arm_and_names_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.bridge.STEPS.run", lambda *args, **kwargs: 1)
    with pytest.raises(RunError, match=r"countdown.bridge .* exit code 1.*traces\.log"):
        run_arm(Options(output=str(tmp_path)), "plain", 0)


def test_sigterm_ends_the_step_that_runs_and_no_other_is_begun(tmp_path):
    command = [sys.executable, "-c", STUB_STEPS, "--seeds=2", "--jobs=1", f"--output={tmp_path}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)  # the step's input is still open
        assert process.communicate()[0] == "ended\n"
    assert process.returncode == 143


def test_one_seed_has_no_interval():
    mean, half = seed_interval([0.5])
    assert mean == 0.5 and math.isnan(half)


def test_half_width_is_that_of_a_t_interval():
    mean, half = seed_interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
