"""What goes wrong between a prompt and an update: hostile or cut-off completions, NaN gradients, a jumping clock."""

import copy
import json
import shutil
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from datasets import Dataset

from common.errors import RunError, UserError
from intrinsic.base import Bonus, WeightSchedule
from intrinsic.knn_memory import MemoryRPlus
from intrinsic.options import IntrinsicOptions
from policy.load import EMBEDDED, load_tokenizer
from rewards.correctness import CorrectnessReward
from rewards.countdown import CountdownReward
from rewards.graders import GRADERS
from rewards.igsm import IgsmReward
from tests.processes import train
from training.callbacks import MetricsCallback
from training.checkpoint import find_checkpoint
from training.finite_updates import FiniteUpdates
from training.problems import fitting_rows
from training.run_options import RunConfig, RunOptions

EMPTY = ["", " ", "\n\t ", "\0", "<answer></answer>", "<answer> </answer>"]
HOSTILE = [
    "NUL \0 in it",
    "\u202eright to left",
    "zero\u200bwidth",
    "😀👩‍👩‍👧",
    "x" * 20_000,
    "",
    "line\nend\r",
    "\ufeffé",
]


class Constant(Bonus):
    """Pays every completion or token the same."""

    name = "constant"

    def __init__(self, placement="reward"):
        self.placement = placement

    def score(self, rollout):
        shape = rollout.completion_mask.shape if self.placement == "token" else (len(rollout),)
        return torch.full(shape, 0.7)

    def update(self, rollout):
        return {}


def one_batch(trainer):
    """The output of one generation batch in training mode."""
    trainer.model.train()
    return trainer._generate_and_score_completions(
        [row for row in trainer.train_dataset.select(range(2)) for _ in range(4)]
    )


def weights(policy) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


@pytest.mark.fault("F3")
def test_a_bonus_that_is_constant_in_a_group_contributes_nothing(trainer_factory):
    trainer = trainer_factory([Constant()], [WeightSchedule(1.0)])
    for function, correct in ((lambda n: [0.0] * n, False), (lambda n: [float(i % 2) for i in range(n)], True)):
        trainer.reward_funcs[0] = lambda completions, function=function, **_: function(len(completions))
        advantages = one_batch(trainer)["advantages"]
        plain = torch.tensor([-1.0, 1.0]).repeat(4) * (3**0.5 / 2) * correct  # deviations of 0 1 0 1 in their own unit
        torch.testing.assert_close(advantages, plain, atol=1e-3, rtol=0)
        assert correct or not advantages.any()
        assert trainer._metrics["train"]["ir/constant/share_of_advantage"].pop() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.fault("F9")
@pytest.mark.parametrize("completion", EMPTY, ids=ascii)
def test_an_empty_completion_has_no_answer_and_no_reward(completion):
    rows = {"number": {"gold": "0"}, "latex": {"gold": "0"}, "igsm": {"gold": "0"}}
    rows["countdown"] = {"numbers": [2, 3], "target": 0}
    rows["code"] = {"entry_point": "f", "test": "assert f()"}
    rows["sql"] = {"gold": "SELECT 1", "databases": ["unread.sqlite"], "tie_groups": [[]]}
    rows["choice"] = {"choices": ["0", "1"], "gold": "0"}
    assert rows.keys() == GRADERS.keys()
    for name, row in rows.items():
        grade = GRADERS[name](completion, row)
        assert grade.answer is None and not grade.loose, name
    row = {
        "prompts": ["q"],
        "completions": [completion],
        "gold": ["0"],
        "answer": [0],
        "numbers": [[2, 3]],
        "target": [0],
    }
    for column in (CorrectnessReward(GRADERS["number"]), IgsmReward(), CountdownReward()):
        assert column(**row) == [0.0]


@pytest.mark.fault("F9")
def test_empty_completions_leave_the_memory_of_right_answers_empty(rollout_factory):
    bonus = MemoryRPlus.from_options(IntrinsicOptions(use_ir="knn+"))
    rollout = rollout_factory(EMPTY, [0.0] * len(EMPTY))
    bonus.update(rollout)
    assert torch.isfinite(bonus.score(rollout)).all()
    memories = bonus.state_dict()["memories"]
    assert memories["success"]["ids"] == [] and memories["failure"]["ids"]


@pytest.mark.fault("F10")
def test_hostile_completions_are_logged_as_they_are_in_valid_files(trainer_factory, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(tokenizer, "batch_decode", lambda ids, **_: HOSTILE[: len(ids)])
    trainer = trainer_factory([Constant()], [WeightSchedule(1.0)], max_steps=1)
    trainer.completions_dir = tmp_path / "completions"
    trainer.add_callback(MetricsCallback(tmp_path / "metrics.jsonl"))
    trainer.train()
    (path,) = trainer.completions_dir.iterdir()
    assert pd.read_parquet(path)["completion"].tolist() == HOSTILE
    for line in (tmp_path / "metrics.jsonl").read_bytes().decode("utf-8").splitlines():
        json.loads(line)


@pytest.mark.fault("F11")
@pytest.mark.parametrize("placement", ["advantage", "token"])
def test_masked_truncated_completions_teach_nothing_whatever_the_bonus(placement, trainer_factory, random_policy):
    changed = {}
    for masked in (True, False):
        policy = copy.deepcopy(random_policy)
        trainer = trainer_factory(
            [Constant(placement)],
            [WeightSchedule(1.0)],
            policy=policy,
            max_steps=1,
            max_completion_length=2,
            mask_truncated_completions=masked,
        )
        trainer.train()
        assert trainer.state.log_history[0]["completions/clipped_ratio"] == 1.0
        changed[masked] = not torch.equal(weights(policy), weights(random_policy))
    assert changed == {True: False, False: True}


@pytest.mark.fault("F19")
def test_a_tokenizer_without_pad_token_pads_with_the_end_token(tmp_path):
    shutil.copytree(EMBEDDED, tmp_path / "policy")
    path = tmp_path / "policy" / "tokenizer_config.json"
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "pad_token"})
    )
    tokenizer = load_tokenizer(str(tmp_path / "policy"))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None


@pytest.fixture
def end_token_that_pads(tokenizer):
    """Id of the end token, which is the padding token too."""
    padding, tokenizer.pad_token = tokenizer.pad_token, tokenizer.eos_token
    yield tokenizer.eos_token_id
    tokenizer.pad_token = padding


@pytest.mark.fault("F19")
def test_where_padding_is_the_end_token_the_real_end_still_counts(trainer_factory, end_token_that_pads):
    end = end_token_that_pads
    settings = {"generation_kwargs": {"forced_eos_token_id": end}}
    trainer = trainer_factory([Constant("token")], [WeightSchedule(1.0)], **settings)
    output = one_batch(trainer)
    for ids, mask in zip(output["completion_ids"], output["completion_mask"], strict=True):
        length = int(mask.sum())
        assert ids[length - 1] == end and end not in ids[: length - 1]
    rollout_mask = trainer._rollout.completion_mask
    assert torch.equal(rollout_mask.sum(dim=1), output["completion_mask"].sum(dim=1))


@pytest.mark.fault("F20")
def test_prompts_beyond_their_budget_are_dropped_and_counted(tokenizer, capsys, tmp_path):
    prompts = [[{"role": "user", "content": "Numbers: " + "7 " * count}] for count in (1, 300, 1)]
    rows = Dataset.from_list([{"prompt": prompt} for prompt in prompts])
    settings = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    options = RunOptions(max_prompt_length=100)
    kept = fitting_rows(rows, tokenizer, options, RunConfig(**settings, L=16))
    assert kept["prompt"] == [prompts[0], prompts[2]]
    assert "dropped 1 of 3 prompts longer than 100 tokens" in capsys.readouterr().out
    with pytest.raises(UserError, match="--L=100000 leaves no room"):
        fitting_rows(rows, tokenizer, options, RunConfig(**settings, L=100_000))


def spoil_loss(trainer, steps):
    """Make the loss NaN in updates whose number, from 0, is in ``steps``."""
    compute_loss = trainer.compute_loss

    def spoilt(*args, **kwargs):
        loss = compute_loss(*args, **kwargs)
        return loss * float("nan") if trainer.state.global_step in steps else loss

    trainer.compute_loss = spoilt


@pytest.mark.fault("X2")
def test_an_update_with_a_nan_gradient_is_left_out_and_the_run_goes_on(trainer_factory, random_policy, caplog):
    trainer = trainer_factory([Constant("token")], [WeightSchedule(1.0)], max_steps=4)
    trainer.add_callback(FiniteUpdates())
    spoil_loss(trainer, {0, 1, 3})
    before = weights(random_policy)
    trainer.train()
    assert trainer.state.global_step == 4 and torch.isfinite(weights(random_policy)).all()
    assert not torch.equal(before, weights(random_policy))
    assert [record.message for record in caplog.records if "left out" in record.message][0].startswith(
        "the gradient of step 1"
    )


@pytest.mark.fault("X2")
def test_three_updates_with_nan_gradients_in_a_row_stop_the_run_with_the_weights_as_they_were(
    trainer_factory, random_policy
):
    trainer = trainer_factory([Constant("token")], [WeightSchedule(1.0)], max_steps=5)
    trainer.add_callback(FiniteUpdates())
    spoil_loss(trainer, {0, 1, 2, 3, 4})
    before = weights(random_policy)
    with pytest.raises(RunError, match="3 updates in a row, the last at step 3"):
        trainer.train()
    assert torch.equal(before, weights(random_policy))


@pytest.mark.fault("X2")
@pytest.mark.parametrize("broken", ["neither", "this", "the other"])
def test_all_processes_leave_out_the_update_that_is_broken_on_one(broken, monkeypatch):
    def all_reduce(value, op):
        others = torch.full_like(value, float(broken == "the other"))
        value.copy_({torch.distributed.ReduceOp.MAX: torch.maximum}.get(op, torch.minimum)(value, others))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    policy = torch.nn.Linear(2, 1)
    policy(torch.full((1, 2), float("nan") if broken == "this" else 1.0)).backward()
    args = SimpleNamespace(fp16=False, world_size=2, device="cpu")
    FiniteUpdates().on_pre_optimizer_step(args, SimpleNamespace(global_step=0), None, model=policy)
    assert (policy.weight.grad is None) == (broken != "neither")


def lose_the_loss(connection):
    """In a training process: the loss is NaN from the third update on."""
    from training.trainer import IntrinsicGRPOTrainer

    compute_loss = IntrinsicGRPOTrainer.compute_loss

    def spoilt(self, *args, **kwargs):
        return compute_loss(self, *args, **kwargs) * (float("nan") if self.state.global_step >= 2 else 1.0)

    IntrinsicGRPOTrainer.compute_loss = spoilt


@pytest.mark.fault("X2")
def test_a_script_stops_on_nan_in_one_sentence_and_keeps_its_checkpoint(tmp_path):
    flags = ["--max_steps", "9", "--save_steps", "2", "--output_dir", str(tmp_path / "run")]
    code, printed = train(flags, tmp_path / "log", prepare=lose_the_loss)
    (message,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert code == 1 and "the last at step 5" in message and "Traceback" not in printed
    assert find_checkpoint(tmp_path / "run", "auto") is not None


@pytest.mark.fault("X3")
def test_a_clock_set_back_during_training_leaves_the_logged_seconds_ascending(trainer_factory, monkeypatch, tmp_path):
    trainer = trainer_factory(max_steps=3)
    trainer.add_callback(MetricsCallback(tmp_path / "metrics.jsonl"))
    hours = iter(range(1_000_000, 0, -1))
    monkeypatch.setattr(time, "time", lambda: 3600.0 * next(hours))
    trainer.train()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    seconds = [record["seconds"] for record in records]
    assert len(seconds) >= 3 and seconds == sorted(seconds) and seconds[0] >= 0 and seconds[-1] < 3600
