"""Reference models that would not be what they stand for: the policy that the run begins with."""

from collections.abc import Iterable

from trl import GRPOConfig

from common.errors import UserError
from intrinsic.base import Bonus
from policy.features import FROZEN_FEATURES
from policy.load import adapter_base, resolve


def check_adapter(model_name: str, config: GRPOConfig, uses_adapter: bool) -> None:
    """Raise `UserError` where ``model_name`` is an adapter that is merged and trained whole beside a KL penalty.

    TRL makes the reference of the penalty from the base that the merged policy still names.
    """
    if adapter_base(resolve(model_name)) and config.beta and not uses_adapter:
        raise UserError(
            f"--model_name={model_name!r} is an adapter; the KL penalty (--beta={config.beta}) would pull "
            "towards its base; train from the merged model, or with --lora or --beta=0."
        )


def check_reference(bonuses: Iterable[Bonus], config: GRPOConfig, uses_adapter: bool) -> None:
    """Raise `UserError` for ``--sync_ref_model`` where there is no reference model, or where bonuses need it frozen.

    ``uses_adapter``: whether an adapter is trained.
    """
    if not config.sync_ref_model:
        return
    if not config.beta:
        raise UserError("--sync_ref_model moves the reference of the KL penalty, and --beta=0 has none; set --beta.")
    if uses_adapter:
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
