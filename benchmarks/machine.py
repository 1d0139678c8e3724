"""What every benchmark leaves: its table and its numbers, with the machine and the code they were measured on."""

import json
import platform
from pathlib import Path

import torch

from common.files import write_text
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


def publish(output: str, table: str, numbers: dict) -> None:
    """Print ``table`` with the caption of this machine; write both to <output>.md and ``numbers`` to <output>.json."""
    machine = describe()
    text = f"{table.rstrip()}\n\n{caption(machine)}\n"
    write_text(Path(f"{output}.md"), text)
    write_text(Path(f"{output}.json"), json.dumps({"machine": machine, **numbers}, indent=1) + "\n")
    print(text)
