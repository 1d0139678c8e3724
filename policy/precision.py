"""The compute type of a run, decided in one place: the precision of its matrix products, in training and evaluation.

A run computes in float32, in bfloat16 under autocast, or in float16 under autocast with scaled gradients. Weights that
are trained stay in float32 in all three. Every pass over the policy is under the same autocast: sampling, training,
features, the frozen copy, the policy as text encoder, and evaluations before, during and after training, so that a run
that learns nothing changes no figure.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from transformers import TrainingArguments

from common.devices import cpu_has_bfloat16, has_bfloat16
from common.errors import UserError, check_choice

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Precision:
    """How passes over the policy compute.

    Attributes:
        compute: type of the matrix products: float32, bfloat16 or float16.
        device: type of the device, such as "cuda" or "cpu".
        engine_casts: whether an engine (DeepSpeed) keeps its own weights in the compute type, so that no autocast runs.
    """

    compute: torch.dtype
    device: str
    engine_casts: bool = False

    @classmethod
    def of(cls, config: TrainingArguments) -> "Precision":
        """That of a trainer with these arguments; the same autocast as its accelerator's."""
        compute = torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else torch.float32
        return cls(compute, config.device.type, getattr(config, "deepspeed_plugin", None) is not None)

    @property
    def cast(self) -> torch.dtype:
        """The type that a linear layer's float32 weights are cast to in a pass; float32 for none."""
        return torch.float32 if self.engine_casts else self.compute

    def autocast(self) -> AbstractContextManager:
        """The context under which the policy runs."""
        return torch.autocast(self.device, self.compute, enabled=self.cast is not torch.float32)

    def __str__(self) -> str:
        """For the line that a run prints at its start."""
        if self.compute is torch.float32:
            return "float32"
        if self.compute is torch.bfloat16:
            return "bfloat16 autocast"
        reason = "" if self.device != "cuda" or has_bfloat16() else ", as this GPU has no bfloat16"
        return f"float16 autocast with scaled gradients{reason}"


def compute_type(bf16: bool | None, fp16: bool, device: str) -> torch.dtype:
    """The compute type that ``--bf16`` (None where unset) and ``--fp16`` mean on a device of that type.

    Unset, it is what the device is fast in: bfloat16, on a GPU without it float16, on a CPU without it float32. Raises
    `UserError` for a type that the device does not have; no model needs to be loaded.
    """
    if bf16 and fp16:
        raise UserError("--bf16 true and --fp16 true exclude each other; leave one out.")
    if fp16 and device == "cpu":
        raise UserError("--fp16 true: a CPU does not train in float16; leave it out, or use --bf16 true.")
    if fp16:
        return torch.float16
    if bf16:
        if device == "cuda":
            check_bfloat16("--bf16 true", "leave it out (float16 with scaled gradients), or use --bf16 false (float32)")
        return torch.bfloat16
    if bf16 is not None:
        return torch.float32
    if cpu_has_bfloat16() if device == "cpu" else has_bfloat16():
        return torch.bfloat16
    return torch.float16 if device == "cuda" else torch.float32


def choose_compute_type(config: TrainingArguments) -> None:
    """Set ``bf16`` and ``fp16`` of ``config`` by `compute_type`, to be called before its base class looks at them."""
    device = "cpu" if config.use_cpu else "cuda" if torch.cuda.is_available() else accelerator_type()
    chosen = compute_type(config.bf16, config.fp16, device)
    config.bf16, config.fp16 = chosen is torch.bfloat16, chosen is torch.float16


def choose_activation_checkpointing(config: TrainingArguments) -> None:
    """Set ``activation_checkpointing`` of ``config`` to what ``gradient_checkpointing``, its former name, asks for.

    Where neither is set, activations are kept on a CPU and recomputed on an accelerator. To be called before the base
    class of ``config`` looks at them, with ``use_cpu`` set.
    """
    if config.activation_checkpointing is None:
        asked = config.gradient_checkpointing
        config.activation_checkpointing = not config.use_cpu if asked is None else asked
    config.gradient_checkpointing = None  # transformers warns where both are set


def accelerator_type() -> str:
    """Type of the accelerator that torch was built for; "cpu" for none."""
    found = torch.accelerator.current_accelerator()
    return "cpu" if found is None else found.type


def half_type() -> torch.dtype:
    """The type of weights that nothing trains on an accelerator: bfloat16, or float16 on a GPU without it."""
    return torch.float16 if torch.cuda.is_available() and not has_bfloat16() else torch.bfloat16


def compute_dtype(of) -> torch.dtype:
    """The type in which a pass computes ``of``, a model or states of one: that of autocast where it is on."""
    kind = of.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else of.dtype


def check_bfloat16(flag: str, fix: str) -> None:
    """Raise `UserError` where ``flag`` asks for bfloat16 on a GPU that has none, or emulates it slowly."""
    if torch.cuda.is_available() and not has_bfloat16():
        raise UserError(f"{flag}: {torch.cuda.get_device_name()} has no bfloat16; {fix}.")


def check_dtype(dtype: str, trained: bool) -> None:
    """Raise `UserError` for an unknown ``--dtype``, one that this machine lacks, or that weights cannot train in."""
    check_choice("dtype", dtype, ("auto", *DTYPES))
    if dtype == "bfloat16":
        check_bfloat16("--dtype bfloat16", "use --dtype float16, or leave it out")
    if trained and dtype == "float16":
        raise UserError(
            "--dtype float16 would train weights in float16, where usual updates vanish and gradients cannot be "
            "scaled; leave it out (float32 weights, half precision by autocast), or add --lora."
        )


def adapters_in_float32(model) -> None:
    """Put the trained weights of a policy in 4 or 8 bits back into float32, to be called before the optimiser is made.

    TRL 1.16 turns them into bfloat16, where the usual updates of an adapter are rounded away.
    """
    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
