"""Will it fit, and how long will it take? Estimate, one measured step on the worst batch, and what to change."""

import copy
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback, set_seed

from common.devices import GIB
from policy.chat import render
from policy.load import architecture_of, load_policy
from training.fit.estimate import estimate
from training.fit.out_of_memory import advice, available_bytes, out_of_memory_advice, peak_bytes, work_of
from training.run_options import RunConfig, total_steps

MOST_CPU_FLOP = 1e14  # some minutes on a few cores; more is not tried on a CPU


@dataclass(frozen=True)
class Measured:
    """What a step on the worst batch took: seconds, and the peak bytes of the process or, on a GPU, of the device."""

    seconds: float
    peak: int


def report(run, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Lines: itemised estimate, then peak and time of a step on the worst batch, or why it was not tried.

    The last line says whether the run fits.

    Args:
        run: a `training.run.Run`.
        rows: its training problems.

    Raises `RunError` when the step runs out of memory.
    """
    config, device = run.config, run.config.device
    batch, prompt = longest_first(rows, tokenizer, config.generation_batch_size // config.num_generations)
    work = work_of(run.options, config, run.bonuses, run.encoder, prompt)
    expected = estimate(architecture_of(run.options.model_name), run.options, work)
    yield from expected.lines()
    free = available_bytes(device)
    yield f"{'free now':<44} {free / GIB:8.2f} GiB"
    flop = 8.0 * expected.parameters * work.generation_batch * (work.prompt + work.completion)
    fits = expected.peak <= free
    if not fits:
        flags = advice(run.options, work, free)
        yield f"should not fit; take less by, in this order, each on top of those before: {flags}"
    if device.type == "cpu" and (not fits or flop > MOST_CPU_FLOP):
        yield f"no step was tried: this CPU would be short of memory, or busy too long ({flop:.0e} operations a step)"
        yield f"by the estimate the run {'fits' if fits else 'does not fit'}"
        return
    before = peak_bytes() if device.type == "cpu" else 0
    with out_of_memory_advice(run.options, lambda: work, lambda: "Nothing was written."):
        measured = worst_step(run, batch, tokenizer)
    yield f"{'measured peak on the worst batch':<44} {measured.peak / GIB:8.2f} GiB" + (
        f" ({before / GIB:.2f} GiB of it before the policy was loaded)" if before else ""
    )
    steps = total_steps(len(rows), config)
    whole = timedelta(seconds=round(measured.seconds * steps))
    yield f"{measured.seconds:.2f} s for a step on the worst batch, {steps} steps: at most {whole}, evaluations apart"
    yield "the run fits: the worst batch was trained on"


def longest_first(rows: Dataset, tokenizer, count: int) -> tuple[Dataset, int]:
    """The ``count`` rows with the longest prompts, and the tokens of the longest."""
    texts = [render(row["prompt"], tokenizer) for row in rows]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    order = sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)
    return rows.select(order[:count]), lengths[order[0]]


def worst_step(run, batch: Dataset, tokenizer: PreTrainedTokenizerBase) -> Measured:
    """Time and peak memory of a training step on ``batch`` with completions of exactly ``L`` tokens.

    The first generation batch sets the stage: the optimiser's state appears at its end. The second is measured. The
    bonuses of ``run`` learn from both. Nothing is written outside a temporary folder.
    """
    config = run.config
    updates = config.updates_per_generation
    clock = _StepClock()
    set_seed(config.seed)
    with tempfile.TemporaryDirectory() as folder:
        policy = load_policy(run.options.model_name, run.options)
        worst = worst_config(config, folder, 2 * updates)
        trainer = run.make_trainer(policy, worst, batch, [correctness], tokenizer, callbacks=[clock])
        trainer.completions_dir = None
        trainer.pop_callback(PrinterCallback)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    return Measured(sum(clock.seconds[updates:]) / updates, peak_bytes())


def worst_config(config: RunConfig, folder: str, steps: int) -> RunConfig:
    """``config`` for that many steps, silent, with completions that end at ``L`` tokens and no earlier."""
    worst = copy.deepcopy(config)
    worst.output_dir, worst.max_steps = folder, steps
    worst.report_to, worst.save_strategy, worst.logging_strategy = [], "no", "no"
    worst.disable_tqdm, worst.log_completions, worst.push_to_hub = True, False, False
    worst.mask_truncated_completions = False  # every completion is cut off here
    worst.reward_weights = None
    at_least = {"min_tokens": config.L} if config.use_vllm else {"min_new_tokens": config.L}
    worst.generation_kwargs = {**(config.generation_kwargs or {}), **at_least}
    return worst


def correctness(completions, **kwargs) -> list[float]:
    """Right for every other completion, so that every group learns and no bonus is idle."""
    return [float(index % 2) for index in range(len(completions))]


class _StepClock(TrainerCallback):
    """Seconds of every optimiser step, generation included."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self._last = now()

    def on_step_end(self, args, state, control, **kwargs):
        end = now()
        self.seconds.append(end - self._last)
        self._last = end


def now() -> float:
    """Seconds, once the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
