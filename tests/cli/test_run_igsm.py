"""run_igsm.py and run_eval.py --task=igsm from the shell: parts inside and outside the range, and bad input."""

import json
import re

import pytest
import yaml

from benchmarks.bridge import IGSM_SPACE
from tasks.igsm.space import TINY
from tests.processes import ROOT, run_script

TOY = ["--train_problems", "12", "--eval_problems", "3", "--bs", "1", "--L", "8", "--max_steps", "2", "--seed", "0"]


def test_trains_with_a_bonus_and_evaluates_both_ranges(tmp_path):
    output = run_script("run_igsm.py", *TOY, "--use_ir=outcome,cfn", cwd=tmp_path, fresh=True).stdout
    (folder,) = (tmp_path / "outputs" / "igsm").iterdir()
    assert folder.name == "tiny_igsm_outcome-cfn_seed0_train_problems12_bs1_L8"
    assert "accuracy/op 3-4" in output and "accuracy/op 5-6" in output
    report = json.loads((folder / "eval" / "after.json").read_text())
    ops = {record["part"]: record["op"] for record in report["records"]}
    assert ops["op 3-4"] in (3, 4) and ops["op 5-6"] in (5, 6)
    assert {record["gold"].lstrip("-").isdigit() for record in report["records"]} == {True}
    assert (folder / "final" / "model.safetensors").exists()


def test_run_eval_takes_a_range_of_operations(tmp_path):
    flags = ["--task=igsm", "--split", "4-5", "--limit", 3, "--max_new_tokens", 8]
    output = run_script("run_eval.py", *flags, cwd=tmp_path).stdout
    (path,) = (tmp_path / "outputs" / "eval" / "igsm" / "tiny").iterdir()
    assert "task igsm" in output and "split-4-5" in path.name
    assert {record["op"] for record in json.loads(path.read_text())["records"]} <= {4, 5}


def test_run_eval_knows_the_problems_of_the_embedded_policy(tmp_path):
    for split, ops in (("tiny", {3, 4}), ("tiny:5-6", {5, 6})):
        flags = ["--task=igsm", "--model_name=tiny_igsm", "--split", split, "--limit", 6, "--max_new_tokens", 8]
        run_script("run_eval.py", *flags, cwd=tmp_path)
        name = f"split-{split.replace(':', '-')}"
        (path,) = (tmp_path / "outputs" / "eval" / "igsm" / "tiny_igsm").glob(f"*{name}*.json")
        records = json.loads(path.read_text())["records"]
        assert {record["op"] for record in records} <= ops and {record["modulus"] for record in records} == {7}
    trained_on = yaml.safe_load((ROOT / "configs" / "igsm_tiny.yaml").read_text())
    assert {name: trained_on[name] for name in IGSM_SPACE} == {name: getattr(TINY, name) for name in IGSM_SPACE}


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("run_igsm.py", ["--max_edges", 2], "--ood_min_op=5 --ood_max_op=6: need 1 <= min <= max <= 4"),
        ("run_eval.py", ["--task=igsm", "--split", "full:3-4"], "must be a range of operations"),
        ("run_igsm.py", ["--min_op", 50, "--max_op", 60], "--min_op=50 --max_op=60"),
        ("run_igsm.py", ["--prompt_style", "other"], "--prompt_style='other'"),
        ("run_igsm.py", ["--train_problems", 0], "--train_problems=0"),
        ("run_eval.py", ["--task=igsm", "--split", "many"], "must be a range of operations"),
        ("run_eval.py", ["--task=igsm", "--num_shots", 2], "--num_shots=2: iGSM has no worked examples"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(script, flags, message, tmp_path):
    result = run_script(script, *flags, cwd=tmp_path, code=2)
    assert message in result.stderr and "Traceback" not in result.stderr


def test_dry_run_checks_without_training(tmp_path):
    output = run_script("run_igsm.py", *TOY, "--dry_run", cwd=tmp_path).stdout
    assert (
        re.search(r"OK  data: \d+ training problems, 3 held-out problems", output)
        and not (tmp_path / "outputs").exists()
    )
