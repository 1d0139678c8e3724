"""What a script computes on, in one line at its start; and a warning about a GPU that torch does not see."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from common.devices import GIB

GENERATE = "Hugging Face generate"
DRIVER = Path("/proc/driver/nvidia")  # exists where the kernel has loaded NVIDIA's driver
SMI_SECONDS = 20  # after which nvidia-smi counts as hung


@dataclass(frozen=True)
class Setup:
    """What the policy is run with.

    Attributes:
        device: as torch names it.
        name: of the GPU, with its memory, or the CPU's threads.
        precision: of matrix products, and of the weights where that is another.
        attention: implementation of transformers that the policy has taken.
        sampler: what samples completions, or "none".
        prompts: how passes over the policy read prompts; "" where none has several completions.
    """

    device: str
    name: str
    precision: str
    attention: str
    sampler: str
    prompts: str = ""

    def __str__(self) -> str:
        return (
            f"device: {self.device} ({self.name}), precision: {self.precision}, attention: {self.attention}, "
            f"sampler: {self.sampler}" + (f", prompts: {self.prompts}" if self.prompts else "")
        )


def setup_of(model: PreTrainedModel, device: torch.device, computes_in: str, sampler: str, prompts: str = "") -> Setup:
    """The setup of a loaded policy that runs on ``device`` with matrix products in ``computes_in``."""
    weights = "4 bits" if getattr(model, "is_loaded_in_4bit", False) else str(model.dtype).removeprefix("torch.")
    precision = computes_in if computes_in == weights else f"{computes_in}, weights in {weights}"
    attention = getattr(model.config, "_attn_implementation", None) or "as the architecture has it"
    return Setup(str(device), device_name(device), precision, attention, sampler, prompts)


def announced_setup(model: PreTrainedModel, computes_in: str, sampler: str) -> Setup:
    """The setup of a loaded policy where it is, once it is printed."""
    setup = setup_of(model, model.device, computes_in, sampler)
    print(setup, flush=True)
    return setup


def device_name(device: torch.device) -> str:
    """Name and memory of a GPU, or the number of the CPU's threads."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / GIB:.0f} GiB"
    return f"threads: {torch.get_num_threads()}" if device.type == "cpu" else device.type


def unseen_gpu() -> str | None:
    """A warning with cause and fix where the machine has an NVIDIA GPU and torch has none; None elsewhere.

    A user who hides the GPUs by CUDA_VISIBLE_DEVICES needs no warning.
    """
    if torch.accelerator.is_available() or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    shown = _nvidia_smi()
    if shown is None and not DRIVER.exists():
        return None
    found = "warning: this machine has an NVIDIA GPU, and torch does not see it"
    return f"{found}: {_cause(shown)} What follows runs on the CPU."


def _cause(shown: str | None) -> str:
    """Why torch has no GPU, and the fix, from what nvidia-smi has ``shown``, None where it does not answer."""
    build = torch.version.cuda
    if build is None:
        return (
            f"torch {torch.__version__} is built without CUDA. Install a build with CUDA, as "
            "https://pytorch.org/get-started/locally says."
        )
    driver, newest = (_found(name, shown or "") for name in ("Driver", "CUDA"))
    # Builds run on every driver that knows their major version of CUDA.
    if newest and int(newest.split(".")[0]) < int(build.split(".")[0]):
        return (
            f"its driver {driver} goes up to CUDA {newest} and torch {torch.__version__} is built for CUDA {build}. "
            f"Update the driver, or install torch for CUDA {newest} or older."
        )
    if shown is None:
        return (
            f"the driver is loaded and nvidia-smi does not answer (torch: {_complaint()}). Start a container with its "
            "GPUs (docker run --gpus all), or install the driver's programs again."
        )
    return f"torch says: {_complaint()}. Restart the machine if the driver is new, and look at CUDA_VISIBLE_DEVICES."


def _found(name: str, shown: str) -> str | None:
    """The version that nvidia-smi shows under ``name``."""
    match = re.search(rf"{name}(?: \w+)? Version\s*:\s*([\d.]+)", shown)
    return match.group(1) if match else None


def _complaint() -> str:
    """The first sentence of torch's own error about CUDA."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).split(". ")[0].strip().rstrip(".") or type(error).__name__
    return "no error"


def _nvidia_smi() -> str | None:
    """What nvidia-smi prints; None where it is missing, fails or hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        answer = subprocess.run([program], capture_output=True, text=True, errors="replace", timeout=SMI_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout if answer.returncode == 0 else None
