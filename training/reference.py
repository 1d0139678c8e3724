"""What --sync_ref_model, which moves the reference model during training, does not go with."""

from collections.abc import Iterable

from common.errors import UserError
from intrinsic.base import Bonus
from policy.features import FROZEN_FEATURES


def check_reference(bonuses: Iterable[Bonus], options, config) -> None:
    """Raise `UserError` for ``--sync_ref_model`` where there is no reference model, or where bonuses need it frozen.

    Args:
        options: `training.run_options.RunOptions`.
        config: `training.run_options.RunConfig`.
    """
    if not config.sync_ref_model:
        return
    if not config.beta:
        raise UserError("--sync_ref_model moves the reference of the KL penalty, and --beta=0 has none; set --beta.")
    if options.lora:
        raise UserError(
            "--sync_ref_model moves the reference model, which with --lora is the policy without its adapter; leave "
            "one of them out."
        )
    names = [bonus.name for bonus in bonuses if bonus.needs & FROZEN_FEATURES.keys()]
    if names:
        raise UserError(
            f"--sync_ref_model moves the reference model, on which --use_ir={','.join(names)} reads features of the "
            "policy before training; leave --sync_ref_model out."
        )
