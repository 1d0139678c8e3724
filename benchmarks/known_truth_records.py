"""Rows of the known-truth benchmark, and one record per row and seed, so that several processes can share the work."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.arm_records import check_settings
from benchmarks.machine import describe
from common.errors import UserError
from common.files import read_json, write_json
from intrinsic import NO_BONUS, REGISTRY, SHUFFLE, bonus_class, parse_names
from intrinsic.base import LEVELS
from training.run_folder import plain

Curve = list[dict[str, float]]
DIGITS = 6  # of a figure in a record
FIELDS = ("bonus", "level", "seed", "commit", "settings", "curve")  # of a record


@dataclass(frozen=True)
class Row:
    """A bonus, or a control, at one ``--ir_level``."""

    bonus: str
    level: str = LEVELS[0]

    @property
    def label(self) -> str:
        """Its name in tables; the level is named where it is not the default."""
        return self.bonus if self.level == LEVELS[0] else f"{self.bonus} ({self.level})"


def rows_of(bonuses: Sequence[str], levels: Sequence[str]) -> list[Row]:
    """Plain GRPO, then every bonus: once per level where its paper pays it in the reward, else once."""
    rows = [Row(NO_BONUS)]
    for name in bonuses:
        (whole,) = parse_names(name) or [NO_BONUS]
        has_levels = whole != NO_BONUS and bonus_class(whole.removeprefix(SHUFFLE)).placement == "reward"
        rows += [Row(whole, level) for level in (levels if has_levels else LEVELS[:1])]
    return list(dict.fromkeys(rows))


class Records:
    """The folder of records.

    Args:
        folder: made if missing.
        settings: flag -> value of everything that all trials share.

    Raises:
        UserError: the folder holds a record that was made with other settings, or a damaged one.
    """

    def __init__(self, folder: str | Path, settings: dict):
        self.folder, self.settings = Path(folder), plain(settings)
        self.commit = describe()["commit"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.read()

    @contextmanager
    def claim(self, seed: int) -> Iterator[bool]:
        """Whether this process is to run the trials of a seed; False while another live process has claimed it.

        Seeds are claimed whole, because fitting the policy of a seed takes longer than its trials.
        """
        lock = FileLock(self.folder / f"seed{seed}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def has(self, row: Row, seed: int) -> bool:
        """Whether the trial has a record."""
        return self._path(row, seed).exists()

    def save(self, row: Row, seed: int, curve: Curve) -> None:
        """Keep the measurements of a trial."""
        content = {"bonus": row.bonus, "level": row.level, "seed": seed, "commit": self.commit}
        write_json(self._path(row, seed), content | {"settings": self.settings, "curve": columns(curve)})

    def read(self) -> list[dict]:
        """All records, curves as points: plain GRPO, bonuses in the order of the registry, controls by lot; by level,
        then by seed."""
        places = {name: place for place, name in enumerate([NO_BONUS, *REGISTRY])}

        def order(record: dict) -> tuple:
            name = record["bonus"].removeprefix(SHUFFLE)
            return name != record["bonus"], places.get(name, len(places)), record["level"], record["seed"]

        return sorted((self._read(path) for path in self.folder.glob("*.json")), key=order)

    def _read(self, path: Path) -> dict:
        fix = "delete it to run its trial again"
        record = read_json(path, fix)
        missing = next((name for name in FIELDS if name not in record), None)
        if missing:
            raise UserError(f"{path} has no {missing!r}; {fix}.")
        if not isinstance(record["curve"], dict):
            raise UserError(f"{path} has a curve that is no table of columns; {fix}.")
        check_settings(path, record["settings"], self.settings, "give another --records")
        return record | {"curve": points(record["curve"])}

    def _path(self, row: Row, seed: int) -> Path:
        return self.folder / f"{re.sub('[^A-Za-z0-9+]+', '-', row.label).strip('-')}_seed{seed}.json"


def columns(curve: Curve) -> dict[str, list[float | None]]:
    """Name -> its value at each point, to `DIGITS` significant digits; None where a point has none, or none finite."""
    names = dict.fromkeys(name for point in curve for name in point)
    table = {name: plain([point.get(name) for point in curve]) for name in names}
    return {name: [_rounded(value) for value in values] for name, values in table.items()}


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def points(table: dict[str, list[float | None]]) -> Curve:
    """The points that `columns` has kept."""
    rows = zip(*table.values(), strict=True)
    return [{name: value for name, value in zip(table, row, strict=True) if value is not None} for row in rows]


def curves_by_row(records: Sequence[dict]) -> dict[str, dict[int, Curve]]:
    """Label -> seed -> curve, in the order of the records."""
    curves: dict[str, dict[int, Curve]] = {}
    for record in records:
        curves.setdefault(Row(record["bonus"], record["level"]).label, {})[record["seed"]] = record["curve"]
    return curves
