"""Where and on which code a benchmark ran; every committed result holds it."""

import platform

import torch

from training.run_folder import describe_run

VERSIONS = ("python", "torch", "transformers", "trl")


def describe() -> dict[str, str | int | None]:
    """Commit ("+ changes" where tracked files differ from it, None outside git), start (UTC), versions and machine."""
    run = describe_run({})
    git, machine = run["git"], run["machine"]
    return {
        "commit": git and git["commit"] + " + changes" * git["dirty"],
        "date": run["started"],
        **{name: run["versions"].get(name) for name in VERSIONS},
        "cpu": torch.cpu.get_capabilities().get("cpu_name") or platform.processor(),
        "cores": machine["cores"],
        "threads": machine["torch_threads"],
        "gpu": ", ".join(machine["gpus"]) or None,
    }


def caption(machine: dict[str, str | int | None]) -> str:
    """What `describe` returns as one sentence, to stand under a table."""
    versions = ", ".join(f"{name} {machine[name]}" for name in VERSIONS)
    device = f"{machine['gpu']}, " if machine["gpu"] else ""
    return (
        f"{device}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} torch thread(s); {versions}; "
        f"commit {machine['commit'] or 'unknown'}, {machine['date']}."
    )
