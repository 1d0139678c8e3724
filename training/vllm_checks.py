"""Can vLLM sample under these flags and in this environment? Said before a model is loaded."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from common.errors import UserError, check_number
from common.flags import check_choices

REQUIREMENTS = Path(__file__).parent.parent / "requirements-vllm.txt"
BUILT_FOR = ("torch", "transformers")  # packages of which vLLM takes some versions alone
CHOICES = {
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}


def check_vllm(config) -> None:
    """Raise `UserError` where ``--use_vllm`` cannot work: package, its version, or the flags that go with it.

    Args:
        config: `training.run_options.RunConfig`.
    """
    check_installed()
    check_choices(config, **CHOICES)
    corrected, mode = config.vllm_importance_sampling_correction, config.vllm_importance_sampling_mode
    if config.loss_type == "vespo" and corrected and mode.startswith("sequence"):
        raise UserError(
            f"--vllm_importance_sampling_mode={mode} corrects whole completions, and --loss_type vespo takes a ratio "
            "per token; use token_truncate or token_mask."
        )
    if config.vllm_mode == "colocate":
        _check_colocate(config)


def _check_colocate(config) -> None:
    share, engines = config.vllm_gpu_memory_utilization, config.vllm_tensor_parallel_size
    check_number("vllm_gpu_memory_utilization", share, above=0, below=1)
    if engines < 1 or config.world_size % engines:
        raise UserError(
            f"--vllm_tensor_parallel_size={engines} does not divide the {config.world_size} processes of this run, "
            "whose GPUs an engine shares; use a divisor of it."
        )


def check_installed() -> None:
    """Raise `UserError`, with what to install, unless a vLLM is there that works with the packages beside it."""
    pinned = _pinned()
    fix = f"pip install -r {REQUIREMENTS.name} takes vllm {pinned}, which works here"
    try:
        found = version("vllm")
    except PackageNotFoundError as error:
        raise UserError(f"--use_vllm needs the package vllm, which is not installed; {fix}.") from error
    for wants, requirement, other in _requirements():
        if Version(Version(other).base_version) not in requirement.specifier:
            raise UserError(
                f"--use_vllm: vllm {found} is installed, {wants} needs {requirement.name}{requirement.specifier}, and "
                f"{requirement.name} is {other}; {fix}."
            )


def _requirements() -> Iterator[tuple[str, Requirement, str]]:
    """(who asks, for what, what is there): TRL's range of vLLM, then vLLM's of what it is built for."""
    for package, name in (("trl", "vllm"), *(("vllm", name) for name in BUILT_FOR)):
        for requirement in map(Requirement, requires(package) or ()):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": "vllm"})
            if requirement.name == name and applies:
                yield f"{package} {version(package)}", requirement, version(name)


def _pinned() -> str:
    """The version of vLLM that `REQUIREMENTS` names."""
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines())
    return next(line.partition("==")[2] for line in lines if line.startswith("vllm=="))
