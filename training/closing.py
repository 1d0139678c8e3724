"""What a run does after its last step: the policy is kept while it is evaluated, made final, and shown to others."""

from collections.abc import Sequence
from pathlib import Path

from transformers import Trainer

from common.files import read_json, write_text
from evaluation.table import closing_table
from intrinsic.base import Bonus
from policy.load import save_merged
from policy.options import PolicyOptions
from training.folder_swap import put_in_place, replacing
from training.publish import CARD, model_card, push_final
from training.run_folder import RUN_FILE, UNEVALUATED
from training.run_options import RunConfig


def keep_unevaluated(trainer: Trainer, folder: Path) -> Path:
    """Save the policy to `UNEVALUATED` in the run's ``folder``; returns where it is. To be called by every process.

    ``final/`` means a run that is done, but an evaluation that fails must not lose a policy without a checkpoint.
    """
    accelerator = trainer.accelerator
    with replacing(folder / UNEVALUATED, accelerator.is_main_process, accelerator.wait_for_everyone) as new:
        trainer.save_model(str(new))
    return folder / UNEVALUATED


def make_final(folder: Path, options: PolicyOptions) -> None:
    """Move what `keep_unevaluated` saved to ``final/``, or with LoRA to ``adapter/``, and ``final/`` gets it merged."""
    place = folder / ("adapter" if options.lora else "final")
    put_in_place(folder / UNEVALUATED, place)
    if options.lora:
        with replacing(folder / "final") as new:
            save_merged(str(place), new, options)


def publish(
    folder: Path,
    config: RunConfig,
    task: str,
    bonuses: Sequence[Bonus],
    before: dict | None,
    after: dict | None,
    pushes: bool,
) -> None:
    """Write the card of the final policy in the run's ``folder``, and upload both where the run ``pushes``.

    ``before``, ``after``: reports of the held-out evaluations; None where there are none.
    """
    record = read_json(folder / RUN_FILE, "restore it")
    write_text(folder / "final" / CARD, model_card(config.run_name, task, record, bonuses, before, after))
    if pushes:
        push_final(folder / "final", config)


def print_closing(folder: Path, report: Path, before: dict | None, after: dict | None, commands: Sequence[str]) -> None:
    """Print the table of both evaluations, where the run and its ``report`` are, and ``commands`` to go on with."""
    if after is None:
        print("not evaluated (--do_eval 0)")
    else:
        print("held-out problems, final policy (run_eval.py reports the test split):")
        print(closing_table(before, after))
    print(f"run folder: {folder} (report: {report})")
    print("next:", *commands, sep="\n  ")
