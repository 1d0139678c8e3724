"""What is left of a stopped run is enough: bonuses, random states, and the checkpoint before an allocation failed."""

import json
import re

import pandas as pd
import pytest
import torch

from common.errors import RunError
from tests.device_tags import tensors_in
from tests.equivalence.scripted import ScriptedTrainer
from tests.gpu.machine import DESCENT, build, weights_of
from training.trainer import IntrinsicGRPOTrainer

SAVED = {"save_strategy": "steps", "save_steps": 1}
STATEFUL = {
    "networks and memories": {"use_ir": "cfn,rnd,repexp,knn+,knn-sent", "repexp_memory": True, "repexp_pay": "all"},
    "tokens, texts and counts": {"use_ir": "rnd,entropy,ltree,outcome", "rnd_mode": "reference"},
    "pseudo-counts in closed form": {"use_ir": "cfn", "cfn_mode": "linear"},
}
RUN = ["--use_ir=knn+", "--explore_warmup", "0", "--encoder", "policy", "--bs", "2", "--num_generations", "4"]
RUN += ["--L", "12", "--train_problems", "64", "--do_eval", "0", "--max_steps", "3", "--save_steps", "1"]


def resumed(machine, folder, **settings):
    """(the straight run, the run that goes on from its first step), both after their training."""
    straight, rest = (build(machine, folder, max_steps=2, **settings, **way) for way in (SAVED, {}))
    straight.train()
    rest.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    return straight, rest


@pytest.mark.parametrize("bonuses", STATEFUL)
def test_a_resumed_run_goes_on_with_every_stateful_bonus(bonuses, machine, tmp_path):
    settings = {"trainer_class": ScriptedTrainer, "own": {"capture_features": False}} | DESCENT
    straight, rest = resumed(machine, tmp_path, flags=STATEFUL[bonuses], **settings)
    assert straight.bonuses.state_dict()
    machine.assert_close(rest.record[-1], straight.record[-1])
    machine.assert_close(weights_of(rest), weights_of(straight))
    states = [tensors_in(trainer.bonuses.state_dict()) for trainer in (rest, straight)]
    kinds = [[(value.shape, value.dtype, value.device) for value in state] for state in states]
    assert kinds[0] == kinds[1]


def test_a_resumed_run_samples_what_the_straight_one_does(machine, tmp_path):
    written = []
    for name, way, checkpoint in (("straight", SAVED, None), ("rest", {}, str(tmp_path / "checkpoint-1"))):
        trainer = build(machine, tmp_path, own={"completions_dir": tmp_path / name}, **way)
        trainer.train(resume_from_checkpoint=checkpoint)
        written.append(pd.read_parquet(tmp_path / name / "step_000001.parquet"))
    assert written[0]["completion"].tolist() == written[1]["completion"].tolist()
    assert written[0]["prompt"].tolist() == written[1]["prompt"].tolist()


def test_out_of_memory_names_flags_and_the_run_goes_on_from_its_checkpoint(machine, tmp_path, run_here, monkeypatch):
    """In the third step, twice the memory of the GPU is asked for; on a CPU more than any machine has."""
    most = 2 * torch.cuda.get_device_properties(0).total_memory if machine.has_gpu else 2**62
    compute = IntrinsicGRPOTrainer._compute_loss

    def fail(self, model, inputs):
        if self.state.global_step == 2:
            torch.empty(most, dtype=torch.uint8, device=machine.device)
        return compute(self, model, inputs)

    flags = [*RUN, "--seed", "0", "--model_name", machine.policy, "--output_dir", tmp_path / "run"]
    with monkeypatch.context() as broken:
        broken.setattr(IntrinsicGRPOTrainer, "_compute_loss", fail)
        with pytest.raises(RunError) as raised:
            run_here("run_countdown", *flags)
    message = str(raised.value)
    assert message.startswith("out of memory at a peak of") and "checkpoint-2 is complete" in message
    assert re.search(r"take less by.*: --\w+ \w+ \(about \d+\.\d+ GiB\)", message)
    run_here("run_countdown", *flags, "--resume", "auto")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
