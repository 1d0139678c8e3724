"""What every benchmark leaves: its table and its numbers, with the machine and the code they were measured on."""

import json
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from common.files import write_text
from policy.setup_line import Setup
from training.run_folder import describe_run

Machine = dict[str, str | int | None]  # what `describe` returns
VERSIONS = ("python", "torch", "transformers", "trl")


def describe() -> Machine:
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


def caption(machine: Machine) -> str:
    """What `describe` returns as one sentence, to stand under a table."""
    versions = ", ".join(f"{name} {machine[name]}" for name in VERSIONS)
    device = f"{machine['gpu']}, " if machine["gpu"] else ""
    return (
        f"{device}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} torch thread(s); {versions}; "
        f"commit {machine['commit'] or 'unknown'}, {machine['date']}."
    )


def captions(machines: Iterable[Machine]) -> str:
    """A line with the `caption` of each distinct machine and code, with the first and the last of its dates."""
    dates: dict[tuple, list[str]] = {}
    for machine in machines:
        dates.setdefault(tuple({**machine, "date": None}.items()), []).append(str(machine["date"]))
    return "\n".join(
        caption({**dict(of), "date": " to ".join(dict.fromkeys([min(found), max(found)]))})
        for of, found in dates.items()
    )


def note_of_reports(reports: Iterable[dict]) -> str:
    """Two sentences to stand above the caption of a table of reports, which hold a `Setup` and neither machine nor code
    that they were measured on."""
    unknown = "a setup that is not on record"
    setups = dict.fromkeys(str(Setup(**report["setup"])) if "setup" in report else unknown for report in reports)
    return f"Measured with {'; with '.join(setups)}. The reports name no machine and no code; this table was made on:"


def publish_report(output: str, text: str, plot: Callable[[Path], None]) -> None:
    """Write ``text`` to <output>.md and what ``plot`` draws to <output>.png, then print ``text``."""
    write_text(Path(f"{output}.md"), text)
    plot(Path(f"{output}.png"))
    print(text, end="")


def publish(output: str, table: str, numbers: dict, machines: Sequence[Machine] | None = None) -> None:
    """Print ``table`` with its caption; write both to <output>.md and ``numbers`` to <output>.json.

    The caption is of ``machines``, which the numbers were measured on, or where that is None of this process, which
    then has measured them itself.
    """
    measured_on = [describe()] if machines is None else list(machines)
    where = {"machine": measured_on[0]} if machines is None else {"machines": measured_on}
    text = f"{table.rstrip()}\n\n{captions(measured_on)}\n"
    write_text(Path(f"{output}.md"), text)
    write_text(Path(f"{output}.json"), json.dumps({**where, **numbers}, indent=1) + "\n")
    print(text)
