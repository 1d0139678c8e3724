"""What a run does after its last step: the policy is kept while it is evaluated, and is final after that."""

from pathlib import Path

from transformers import Trainer

from policy.load import save_merged
from policy.options import PolicyOptions
from training.folder_swap import put_in_place, replacing
from training.run_folder import UNEVALUATED


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
