"""The numbers of a run in the order they were logged, and how a metric changed between two windows of them."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


class History:
    """The numbers a run logged so far, by column, and its evaluations.

    Args:
        records: logged records as in metrics.jsonl, each a dict with "step", in ascending order of steps.
    """

    def __init__(self, records: Iterable[dict] = ()):
        self._steps = array("d")
        self._columns: dict[str, array] = {}
        self.evaluations: list[dict] = []
        for record in records:
            self.add(record)

    @property
    def step(self) -> int:
        """Step of the last record; 0 where there is none."""
        return int(self._steps[-1]) if self._steps else 0

    def add(self, record: dict) -> None:
        """Append a logged record; what is no number in it counts as not logged."""
        for key, value in record.items():
            if isinstance(value, int | float):
                self._columns.setdefault(key, array("d", [np.nan] * len(self._steps))).append(value)
        self._steps.append(record["step"])
        for column in self._columns.values():
            if len(column) < len(self._steps):
                column.append(np.nan)

    def columns(self, *keys: str) -> list[np.ndarray]:
        """One array per key over the steps at which all of them were logged and finite."""
        nothing = array("d", [np.nan] * len(self._steps))
        table = np.array([self._columns.get(key, nothing) for key in keys])
        return list(table[:, np.isfinite(table).all(axis=0)])


@dataclass(frozen=True)
class Change:
    """Means of an earlier and a later window of a metric, and the standard error of their difference."""

    before: float
    after: float
    error: float

    @property
    def difference(self) -> float:
        return self.after - self.before

    def rose(self, least: float, errors: float) -> bool:
        """Whether it rose by more than ``least`` and more than ``errors`` standard errors."""
        return self.difference > max(least, errors * self.error)

    def fell(self, least: float, errors: float) -> bool:
        """Whether it fell by more than ``least`` and more than ``errors`` standard errors."""
        return -self.difference > max(least, errors * self.error)


def change(values: np.ndarray, window: int, start: int = 0) -> Change | None:
    """From the window that begins at ``start`` to the last one; None while the two would overlap.

    The error is the larger of two estimates: from the spread inside the two windows, and from the steps between
    neighbours all along, because a few values often look calmer than they are.
    """
    if len(values) < start + 2 * window:
        return None
    earlier, later = values[start : start + window], values[-window:]
    inside, all_along = earlier.var(ddof=1) + later.var(ddof=1), np.diff(values).var(ddof=1)
    error = np.sqrt(max(inside, all_along) / window)
    return Change(float(earlier.mean()), float(later.mean()), float(error))


def highest_window(values: np.ndarray, window: int) -> int:
    """Start of the window with the highest mean, among windows side by side that end before the last one."""
    count = (len(values) - window) // window
    return window * int(values[: count * window].reshape(count, window).mean(axis=1).argmax()) if count > 0 else 0
