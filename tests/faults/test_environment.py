"""A run where nothing helps: no network, tracker, writable cache, terminal or UTF-8, and spaces in its paths."""

import json
import os
import subprocess
import sys

import pytest
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from common.errors import RunError
from tests.processes import PATIENCE, ROOT, TOY
from training.trackers import ShieldedTracker, shield_trackers

NOWHERE = "http://127.0.0.1:9"  # nothing listens on the discard port
HOSTILE = {
    "HF_HUB_OFFLINE": "0",
    "HF_ENDPOINT": NOWHERE,
    "HF_HOME": "/dev/null/huggingface",  # nobody can write there, not even root
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
    "https_proxy": NOWHERE,
    "http_proxy": NOWHERE,
    "WANDB_MODE": "online",
    "WANDB_BASE_URL": NOWHERE,
    "WANDB_API_KEY": "0" * 40,
    "WANDB_INIT_TIMEOUT": "1",
    "TERM": "dumb",
    "OMP_NUM_THREADS": "1",
}


@pytest.mark.fault("F28")
def test_a_run_is_none_the_worse_for_the_environment(tmp_path):
    problems = tmp_path / "problems of the day.jsonl"
    rows = [{"nums": [2, 3, number], "target": number + 10} for number in range(4, 40)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "run with spaces"
    command = [sys.executable, str(ROOT / "run_countdown.py"), *TOY, "--max_steps", "2", "--output_dir", str(folder)]
    result = subprocess.run(
        [*command, "--data", str(problems), "--report_to", "wandb"],
        cwd=tmp_path,
        env=os.environ | HOSTILE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr.decode(errors="replace")[-3000:]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["step"] for record in records if "loss" in record] == [1, 2]
    assert (folder / "final" / "model.safetensors").is_file() and (folder / "report.html").is_file()
    assert b"step 1/2" in result.stdout
    assert b"WandbCallback fails and is left out from now on" in result.stderr


@pytest.mark.fault("F28")
def test_a_tracker_that_fails_in_training_is_left_out_after_one_warning(trainer_factory, monkeypatch, caplog, tmp_path):
    def unreachable(self, *args, **kwargs):
        raise ConnectionError("the tracker is gone")

    monkeypatch.setattr(TensorBoardCallback, "on_log", unreachable)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tensorboard"))
    trainer = trainer_factory(report_to="tensorboard", max_steps=2)
    shield_trackers(trainer)
    trainer.train()
    assert trainer.state.global_step == 2 and len(trainer.state.log_history) >= 2
    (warning,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert "TensorBoardCallback" in warning and "the tracker is gone" in warning


def test_errors_of_what_is_no_tracker_still_stop_the_run(trainer_factory):
    class Stopping(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise RunError("the run cannot go on")

    trainer = trainer_factory(report_to="tensorboard", max_steps=2)
    trainer.add_callback(Stopping())
    shield_trackers(trainer)
    shielded = [each for each in trainer.callback_handler.callbacks if isinstance(each, ShieldedTracker)]
    assert [type(each.tracker) for each in shielded] == [TensorBoardCallback]
    with pytest.raises(RunError, match="cannot go on"):
        trainer.train()
