"""One record per arm and seed of a benchmark, so that what is measured outlives the machine it was measured on."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine, describe
from common.errors import UserError
from common.files import read_json, write_json
from training.run_folder import plain

FIX = "delete it to run its arm again"
FIELDS = ("machine", "settings", "measured")  # of a record


class ArmRecords:
    """The folder of records.

    Args:
        folder: made with the first record.
        settings: flag -> value of everything that all arms share.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any]):
        self.folder, self.settings = Path(folder), plain(settings)

    def has(self, arm: str, seed: int) -> bool:
        """Whether the arm has a record of that seed."""
        return self._path(arm, seed).exists()

    def save(self, arm: str, seed: int, measured: dict) -> None:
        """Keep what was measured, with the code and the machine that it was finished on."""
        content = {"machine": describe(), "settings": self.settings, "measured": measured}
        write_json(self._path(arm, seed), content)

    def read(self, arm: str, seed: int) -> dict:
        """What was measured; raises `UserError` where the record is damaged, or was made with other settings."""
        return self._record(arm, seed)["measured"]

    def machines(self, arms: Iterable[tuple[str, int]]) -> list[Machine]:
        """What each arm and seed was measured on; raises as `read` does."""
        return [self._record(*arm)["machine"] for arm in arms]

    def check(self, arms: Iterable[tuple[str, int]]) -> None:
        """Read the records that are there; raises as `read` does."""
        for arm, seed in arms:
            if self.has(arm, seed):
                self.read(arm, seed)

    def _record(self, arm: str, seed: int) -> dict:
        path = self._path(arm, seed)
        record = read_json(path, FIX)
        if missing := [name for name in FIELDS if not isinstance(record.get(name), dict)]:
            raise UserError(f"{path} has no {missing[0]!r}; {FIX}.")
        check_settings(path, record["settings"], self.settings, "give another --records")
        return record

    def _path(self, arm: str, seed: int) -> Path:
        return self.folder / f"{arm}_seed{seed}.json"


def check_settings(path: Path, theirs: dict, ours: dict, fix: str) -> None:
    """Raise `UserError`, which names ``fix``, where what ``path`` holds was made with other settings."""
    for name in sorted({*theirs, *ours}):
        if theirs.get(name) != ours.get(name):
            raise UserError(
                f"{path} was made with {name}={theirs.get(name)!r}, not {ours.get(name)!r}; set --{name} so, or {fix}."
            )
