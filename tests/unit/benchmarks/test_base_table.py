"""benchmarks/base_table.sh and its table: policies are kept apart, and what they ran on is said."""

import json
import os
import shlex
import shutil
import subprocess

import pytest

from benchmarks.base_table import main, read
from common.errors import UserError
from evaluation.checkpoint import weights_digest
from evaluation.compare import RANKS
from policy.options import EMBEDDED_IGSM_NAME, EMBEDDED_NAME
from tests.processes import ROOT

# Stands for Python: it writes down what it is called with, leaves what it is to write, and refuses tables of OTHERS.
RECORDER = """#!/bin/sh
echo "$@" >> "$0.log"
case "$*" in *benchmarks.base_table*OTHERS*) exit 2;; esac
while [ $# -gt 1 ]; do
    if [ "$1" = --output ]; then touch "$2"; fi
    shift
done
"""


@pytest.fixture
def commands(tmp_path):
    """Runs the script on ARC-Easy for a policy; (its exit code, the words of each command that it called)."""
    for folder in ("benchmarks", "benchmarks/results"):
        (tmp_path / folder).mkdir()
    script, recorder = tmp_path / "benchmarks" / "base_table.sh", tmp_path / "python"
    shutil.copy(ROOT / "benchmarks" / "base_table.sh", script)
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    log = tmp_path / "python.log"

    def run(policy):
        log.unlink(missing_ok=True)
        command = ["bash", str(script), policy, "", "arc_easy"]
        done = subprocess.run(command, env=os.environ | {"PYTHON": str(recorder)}, check=False, timeout=60)
        return done.returncode, [shlex.split(line) for line in log.read_text().splitlines()]

    return run


def output_of(command):
    return command[command.index("--output") + 1]


def test_two_policies_whose_folders_have_one_name_share_no_evaluation_and_no_table(commands):
    (_, first), (_, second) = commands("a/final"), commands("/b/final/")
    assert len(first) == len(second) == 4  # three evaluations and the table
    assert not {output_of(command) for command in first} & {output_of(command) for command in second}
    assert output_of(first[-1]) == "benchmarks/results/base_table_a_final"
    assert second[-1][second[-1].index("--model_name") + 1] == "/b/final/"


def test_what_is_there_is_looked_at_before_anything_is_evaluated(commands):
    commands("a/final")
    code, (before, table) = commands("a/final")
    assert code == 0 and before[:2] == table[:2] == ["-m", "benchmarks.base_table"]
    assert output_of(before) == "outputs/base_table/a_final"
    commands("OTHERS")
    code, called = commands("OTHERS")
    assert code == 2 and len(called) == 1


def test_evaluations_of_other_weights_are_refused(tmp_path):
    def write(name, weights):
        report = {"task": "arc_easy", "weights": weights, "records": [{"id": 0}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))

    write("one", weights_digest(EMBEDDED_NAME))
    assert [row["name"] for row in read(tmp_path, EMBEDDED_NAME)] == ["one"]
    write("two", "org/policy")
    with pytest.raises(UserError, match=r"two.json has the weights 'org/policy', and .*one.json has '.*move it away"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"one.json has the weights '.*', and --model_name='tiny_igsm' has '"):
        read(tmp_path, EMBEDDED_IGSM_NAME)


def test_a_table_of_evaluations_says_what_they_ran_on_and_does_not_claim_its_own_machine_for_them(
    tmp_path, monkeypatch, capsys
):
    value = {"mean": 0.5, "low": 0.4, "high": 0.6}
    metrics = {name: value for name in RANKS} | {f"{name}/chance_corrected": 0.3 for name in RANKS}
    for name, device in (("a", "cpu"), ("b", "cpu"), ("c", "cuda")):
        setup = {"device": device, "name": "its name", "precision": "float32", "attention": "sdpa", "sampler": "none"}
        report = {"task": "arc_easy", "problems": 9, "records": [{"id": 0}], "setup": setup, "metrics": metrics}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    monkeypatch.setattr(
        "sys.argv", ["base_table", f"--evaluations={tmp_path}", f"--output={tmp_path / 'made' / 'table'}"]
    )
    main()
    *_, note, _, caption = (tmp_path / "made" / "table.md").read_text().splitlines()
    each = "device: {} (its name), precision: float32, attention: sdpa, sampler: none"
    assert note.startswith(
        f"Measured with {each.format('cpu')}; with {each.format('cuda')}. The reports name no machine"
    )
    assert note.endswith("this table was made on:") and "commit" in caption
