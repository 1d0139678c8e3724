"""Two processes from the shell: `accelerate launch` with the files of configs/accelerate/, and going on with one."""

import json
import re
import shutil
import sys
from dataclasses import fields

import pandas as pd
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from trl.distributed import DistributedBackend

from cli.parse import parse_options
from common.errors import UserError
from evaluation.options import EvalOptions
from intrinsic import REGISTRY, bonus_class, build_bonus
from intrinsic.base import WeightSchedule
from intrinsic.options import IntrinsicOptions
from policy.features import FROZEN_FEATURES, TOKEN_FEATURES
from tasks.countdown.options import CountdownOptions, load_problems
from tasks.math.options import GSM8KOptions
from tests.processes import ROOT, run_python, run_script
from training.checkpoint import is_complete
from training.run import Run
from training.run_options import RunConfig, RunOptions

FILES = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
TOY = ["--gc", "1", "--num_generations", "4", "--L", "12", "--train_problems", "64", "--logging_steps", "1"]
TOY += ["--seed", "3", "--eval_steps", "1", "--eval_samples", "1", "--eval_problems", "4", "--save_steps", "1"]
BONUSES = ["--use_ir=knn+,sc,rnd", "--ir_weight=1,0.5,0.5", "--explore_warmup", "1", "--encoder", "policy"]
BONUSES += ["--rnd_width", "16"]
READ = TOKEN_FEATURES | FROZEN_FEATURES.keys()


def completions(folder, step):
    return pd.read_parquet(folder / "completions" / f"step_{step:06d}.parquet")


LAUNCH = ["-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/ddp.yaml"]
LAUNCH += ["--main_process_port", "0"]


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Two steps on two processes, with bonuses on text, on the policy's outputs and on the initial policy's states."""
    folder = tmp_path_factory.mktemp("launched") / "run"
    flags = [*TOY, *BONUSES, "--bs", "1", "--max_steps", "2", "--output_dir", str(folder)]
    return folder, run_python(*LAUNCH, "run_countdown.py", *flags)


def test_accelerate_launch_trains_on_two_processes(launched):
    folder, result = launched
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [record for record in log if "loss" in record]
    assert [record["step"] for record in losses] == [1, 2] and all(record["grad_norm"] > 0 for record in losses)
    for step in (0, 1):
        assert len(completions(folder, step)) == 2 * 1 * 4  # processes x prompts x generations
        assert completions(folder, step)["question"].nunique() == 2
    assert result.stdout.count("run folder:") == 1
    checkpoint = folder / "checkpoint-2"
    assert is_complete(checkpoint) == (True, "")
    assert sorted(path.name for path in checkpoint.glob("rng_state*")) == ["rng_state_0.pth", "rng_state_1.pth"]


def test_two_processes_share_the_evaluation(launched):
    folder, result = launched
    report = json.loads((folder / "eval" / "step_000001.json").read_text())
    sampled = [record["id"] for record in report["records"] if record["pass"] == "sampled"]
    assert sampled == [0, 1, 2, 3] and report["metrics"]["accuracy"]["n"] == 4
    assert result.stdout.count("held-out problems at step 0") == 1 and (folder / "best" / "held_out.json").exists()


def test_two_processes_take_the_evaluation_of_a_run_beside_them(launched):
    """One that sampled while the other did not would wait for it for ever."""
    folder = launched[0].with_name("again")
    flags = [*TOY, "--use_ir=no", "--bs", "1", "--max_steps", "1", "--reuse_before", "--output_dir", str(folder)]
    result = run_python(*LAUNCH, "run_countdown.py", *flags)
    first, second = (json.loads((run / "eval" / "before.json").read_text()) for run in (launched[0], folder))
    assert result.stdout.count(f"held-out evaluation before training: that of {second['taken_from']}") == 1
    assert second["records"] == first["records"] and str(launched[0]) in second["taken_from"]


def resuming(folder, prompts):
    return [*TOY, *BONUSES, "--max_steps", "3", "--resume", "auto", "--bs", str(prompts), "--output_dir", str(folder)]


def test_resuming_with_other_prompts_per_update_is_refused(launched, monkeypatch):
    """The same flags on one process would make updates of half the size."""
    monkeypatch.setattr(sys, "argv", ["run_countdown.py", *resuming(launched[0], prompts=1)])
    flags = parse_options("countdown", CountdownOptions)
    rows, _ = load_problems(flags[0], flags[2].eval_problems, flags[3].seed)
    with pytest.raises(UserError, match=r"batch.prompts +\| 2 +\| 1"):
        Run("countdown", *flags, rows)


def test_checkpoint_of_two_processes_resumes_on_one(launched, tmp_path):
    folder = shutil.copytree(launched[0], tmp_path / "run")
    result = run_script("run_countdown.py", *resuming(folder, prompts=2))
    assert "at step 2" in result.stdout
    assert len(completions(folder, 2)) == 8
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    known = [record["ir/knn+/failure_responses"] for record in log if "loss" in record]
    assert len(known) == 3 and known[2] > known[1] > known[0]


@pytest.mark.parametrize("name, kind", FILES.items())
def test_launch_file_is_read_by_accelerate(name, kind):
    config = load_config_from_file(str(ROOT / "configs" / "accelerate" / f"{name}.yaml"))
    assert config.distributed_type.value == kind and config.num_processes == 2
    # Any other word here would overrule the scripts' own --bf16.
    assert config.mixed_precision == "no"


@pytest.mark.parametrize("name", FILES)
def test_every_setting_is_an_option_of_accelerate_launch(name):
    """A misspelt one would be dropped without a word."""
    config = load_config_from_file(str(ROOT / "configs" / "accelerate" / f"{name}.yaml"))
    known = vars(launch_command_parser().parse_args(["script.py"]))
    assert {*config.fsdp_config, *config.deepspeed_config} <= known.keys()


@pytest.mark.parametrize("sharding", ["is_fsdp", "is_zero3"])
def test_policy_sharded_but_by_fsdp_2_is_refused_for_bonuses_that_read_it_alone(sharding, trainer_factory, monkeypatch):
    monkeypatch.setattr(DistributedBackend, sharding, True)
    for name in ("knn+", "outcome"):
        trainer_factory([bonus_class(name)()], [WeightSchedule()])
    for name in ("ppl", "rnd"):
        with pytest.raises(UserError, match=f"--use_ir={name} .* FSDP 2 .*configs/accelerate/fsdp.yaml"):
            trainer_factory([bonus_class(name)()], [WeightSchedule()])


def test_documented_bonuses_of_zero_3_are_those_that_do_not_read_the_policy():
    page = (ROOT / "docs" / "multi_process.md").read_text(encoding="utf-8")
    free, refused = page.split("Bonuses on texts and verdicts (")[1].split(")")[0], page.split("probabilities (")[1]
    read = {name for name in REGISTRY if build_bonus(name, IntrinsicOptions()).needs & READ}
    assert set(re.findall(r"`(\S+)`", free)) == REGISTRY.keys() - read
    assert set(re.findall(r"`(\S+)`", refused.split(")")[0])) == read - {"noise"} and "`noise` where it" in page


def test_documented_commands_use_files_and_flags_that_exist():
    text = (ROOT / "docs" / "multi_process.md").read_text(encoding="utf-8")
    commands = [line for block in text.split("```bash\n")[1:] for line in block.split("```")[0].splitlines()]
    files = set(re.findall(r"configs/accelerate/(\w+)\.yaml", "\n".join(commands)))
    assert files == {"ddp", "fsdp", "zero3"} and all(f"configs/accelerate/{name}.yaml" in text for name in FILES)
    options = (GSM8KOptions, CountdownOptions, IntrinsicOptions, RunOptions, RunConfig, EvalOptions)
    known = {item.name for kind in options for item in fields(kind)} | {"task"}
    of_scripts = [command.split(".py", 1)[1] for command in commands if re.search(r"\brun_\w+\.py", command)]
    assert len(of_scripts) == 12
    assert set(re.findall(r"--(\w+)", " ".join(of_scripts))) <= known
    of_launcher = [command.split("run_")[0] for command in commands if command.count("accelerate launch")]
    assert set(re.findall(r"--(\w+)", " ".join(of_launcher))) <= vars(launch_command_parser().parse_args(["x"])).keys()
