"""What the machine at hand does natively."""

import torch

GIB = 2**30  # bytes


def default_device() -> torch.device:
    """Where a policy runs outside a trainer: the accelerator that torch sees, else the CPU."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in units made for that (Intel's AMX).

    AVX-512's instructions for bfloat16 are not enough: on a Xeon whose AMX the virtual machine hides they reach half
    the rate of float32, and a training step takes 1.7 times as long.
    """
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


def has_bfloat16() -> bool:
    """Whether training in bfloat16 autocast pays off on the device that a run takes: the accelerator, else the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.accelerator.is_available() or cpu_has_bfloat16()
