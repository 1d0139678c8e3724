"""Peaks against the estimate of the dry run, and steps against TRL's own trainer."""

import re
import statistics

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from tests.equivalence.scripted import ScriptedTrainer
from tests.gpu.machine import DESCENT, ScriptedTRL, build, weights_of
from training.fit.report import now

# The allocator keeps less than this beside what tensors take; an estimate above twice the peak refuses what would fit.
ABOVE, BELOW = 1.10, 0.50
WARM_STEPS = 2


def flags_of(machine, folder):
    size = ["--bs", "4", "--L", "256", "--micro_batch", "8"] if machine.has_gpu else ["--bs", "1", "--L", "8"]
    data = ["--model_name", machine.policy, "--train_problems", "64", "--min_numbers", "3", "--max_numbers", "3"]
    return [*data, *size, "--num_generations", "4", "--use_ir=sc,cfn", "--seed", "0", "--output_dir", folder]


def gib_of(printed, line):
    """The figure behind ``line`` in what the dry run printed."""
    return float(re.search(rf"{line} +(\d+\.\d+) GiB", printed).group(1))


def test_a_training_step_peaks_where_the_estimate_says(machine, tmp_path, run_here, capsys, figure):
    run_here("run_countdown", *flags_of(machine, tmp_path / "run"), "--dry_run", "--do_eval", "0")
    printed = capsys.readouterr().out
    expected, measured = gib_of(printed, "at most at once"), gib_of(printed, "measured peak on the worst batch")
    figure("GiB, estimated / measured", f"{expected:.2f} / {measured:.2f}")
    if machine.has_gpu:  # on a CPU the peak of the process holds the libraries, and earlier tests
        assert BELOW * expected <= measured <= ABOVE * expected
    assert not (tmp_path / "run").exists()


def test_a_run_with_evaluations_stays_below_the_estimate(gpu, tmp_path, run_here, capsys, figure):
    flags = flags_of(gpu, tmp_path / "run")
    run_here("run_countdown", *flags, "--dry_run")
    expected = gib_of(capsys.readouterr().out, "at most at once")
    torch.cuda.reset_peak_memory_stats()
    # The first batch of an evaluation is as large as any; 512 problems took minutes.
    run_here("run_countdown", *flags, "--max_steps", "1", "--eval_problems", "32", "--eval_greedy", "false")
    measured = torch.cuda.max_memory_allocated() / 2**30
    figure("GiB, estimated / measured", f"{expected:.2f} / {measured:.2f}")
    assert measured <= ABOVE * expected


class Clock(TrainerCallback):
    """Seconds of every step, generation included."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(now())

    @property
    def seconds(self) -> float:
        """The median after the first steps."""
        pairs = zip(self.ends[WARM_STEPS - 1 :], self.ends[WARM_STEPS:], strict=False)
        return statistics.median(after - before for before, after in pairs)


def test_the_trainer_trains_like_trl_and_no_slower(machine, tmp_path, figure):
    """The same completions give the same weights; the time of sampled steps is compared on a GPU."""
    ours, theirs = (
        build(machine, tmp_path, trainer_class=kind, beta=0.04, **DESCENT) for kind in (ScriptedTrainer, ScriptedTRL)
    )
    initial = weights_of(ours)
    changes = []
    for trainer in (ours, theirs):
        trainer.train()
        changes.append({name: value - initial[name].to(value.device) for name, value in weights_of(trainer).items()})
    machine.assert_close(*changes)
    if not machine.has_gpu:
        return
    seconds = {}
    for name, kind in {"ours": None, "trl": GRPOTrainer}.items():
        clock = Clock()
        settings = {"max_completion_length": 256, "max_steps": 6, "beta": 0.04}
        trainer = build(machine, tmp_path, **settings | ({"trainer_class": kind} if kind else {}))
        trainer.add_callback(clock)
        trainer.train()
        seconds[name] = clock.seconds
    figure("seconds per step, ours / trl", f"{seconds['ours']:.3f} / {seconds['trl']:.3f}")
    assert seconds["ours"] <= 1.15 * seconds["trl"]
