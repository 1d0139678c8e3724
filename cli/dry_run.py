"""``--dry_run``: what a run needs is checked, every setting printed, two steps tried on the worst batch."""

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset
from packaging.requirements import Requirement
from transformers import AutoModelForCausalLM

from cli.help import OTHER, shown
from cli.help_flags import grouped
from cli.parse import SHADOWED
from common.devices import GIB
from policy.end_tokens import described_end_tokens
from policy.load import architecture_of, generation_config_of, load_tokenizer
from policy.precision import Precision
from policy.setup_line import device_name
from training.fit.report import report
from training.problems import check_batch, fitting_rows, longest_prompt
from training.run import Run
from training.run_options import RunConfig, RunOptions
from training.self_check import Scoring, check_scoring

REQUIREMENTS = Path(__file__).parent.parent / "requirements.txt"
CORE = ("torch", "transformers", "trl", "accelerate", "peft", "datasets")
ADAMW_COPIES = 4  # weights, gradients and the two moments, all in the precision of the weights


def dry_run(
    task: str, flags: tuple, load_problems: Callable[[], tuple[Dataset, Dataset | None]], scoring: Scoring
) -> None:
    """Print every setting, then check what the run would use, in its order, with one OK line per check.

    Args:
        task: name of the task, as for `Run`.
        flags: what `cli.parse.parse_options` returned.
        load_problems: loads the (training, validation) rows as the run does.
        scoring: the run's rewards.

    Raises `UserError` at the first check that fails. Writes no file.
    """
    is_main = flags[-1].process_index == 0
    for line in (*settings(flags), ""):
        if is_main:
            print(line)
    for check, found in _checks(task, *flags, load_problems, scoring):
        if is_main:
            print(f"OK  {check}: {found}", flush=True)


def settings(flags: tuple) -> list[str]:
    """One line per flag, grouped as in ``--help``; of TRL's other flags those that are not as they usually are."""
    values, usual = {type(options): options for options in flags}, RunConfig()
    hidden = {flag.removeprefix("--") for flag in SHADOWED}
    lines = []
    for group, items in grouped(tuple(values), hidden).items():
        pairs = [(field, getattr(values[kind], field.name)) for field, kind in items]
        if group == OTHER:
            pairs = [(field, value) for field, value in pairs if value != getattr(usual, field.name)]
        if pairs:
            lines += [f"{group}:", *(f"  {field.name:<28} {shown(value)}" for field, value in pairs)]
    return lines


def _checks(
    task, task_options, intrinsic, options: RunOptions, config: RunConfig, load, scoring: Scoring
) -> Iterator[tuple[str, str]]:
    yield "flags", f"valid, over {options.config_file}" if options.config_file else "valid"
    yield "packages", packages()
    yield "device", device(config)
    yield "model", model(options, config)
    rows, validation = load()
    tokenizer = load_tokenizer(options.model_name, config.chat_template_kwargs)
    rows = fitting_rows(rows, tokenizer, options, config)
    check_batch(rows, config)
    yield "data", f"{len(rows)} training problems, {len(validation or [])} held-out problems"
    check_scoring(scoring, tokenizer, config)
    yield "rewards", f"an ideal answer under {scoring.asked} is paid in full"
    yield "end", described_end_tokens(tokenizer, generation_config_of(options.model_name))
    run = Run(task, task_options, intrinsic, options, config, rows)
    weighted = zip(run.bonuses, intrinsic.weights, strict=True)
    described = (f"{bonus.name} ({bonus.placement}, weight {weight:g})" for bonus, weight in weighted)
    yield "bonuses", ", ".join(described) or "none"
    yield "run folder", f"{run.path}, {f'resuming from {run.checkpoint}' if run.checkpoint else 'new'}"
    yield "memory", "".join(f"\n  {line}" for line in report(run, rows, tokenizer))


def packages() -> str:
    """Versions of the core packages, with what ``requirements.txt`` pins where that is another one."""
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    pins = {pin.name: pin.specifier for pin in map(Requirement, filter(None, lines))}
    return ", ".join(
        f"{name} {version(name)}" + ("" if version(name) in pins[name] else f" (tested with {pins[name]})")
        for name in CORE
    )


def device(config: RunConfig) -> str:
    """What the run computes on, in which precision, and on how many processes."""
    name = f"{config.device.type}, {device_name(config.device)}"
    return f"{name}, {Precision.of(config)}, processes: {config.world_size}"


def model(options: RunOptions, config: RunConfig) -> str:
    """Type and size of the policy, the longest prompt that fits, and the memory its training state takes.

    Raises `UserError` when the policy cannot be found, or its context is too short for ``--L``.
    """
    architecture = architecture_of(options.model_name)
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(architecture).num_parameters()
    copies = 1 if options.lora else ADAMW_COPIES + (config.beta > 0)
    gib = parameters * copies * options.weight_dtype().itemsize / GIB
    held = "weights" if options.lora else "weights, gradients, AdamW" + (", reference" if config.beta else "")
    return (
        f"{options.model_name}, {architecture.model_type}, {parameters / 1e6:,.1f} million parameters, "
        f"{gib:.2f} GiB ({held}), prompts of up to {longest_prompt(options, config)} tokens"
    )
