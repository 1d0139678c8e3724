"""Keeping the policy that did best on validation problems."""

from collections.abc import Callable
from pathlib import Path

from common.errors import UserError
from common.files import read_json, write_json

RECORD = "held_out.json"


class BestPolicy:
    """Saves the policy to ``folder`` whenever an evaluation beats the best accuracy so far, ties going to the earlier.

    Args:
        folder: gets the policy and `RECORD`, which says step and accuracy; a resumed run goes on from that.
        save: saves the policy of the moment to a folder; called on every process.
        is_main: whether this process writes the record.
    """

    def __init__(self, folder: Path, save: Callable[[str], None], is_main: bool = True):
        self.folder, self._save, self._is_main = folder, save, is_main
        record = folder / RECORD
        self.accuracy = _recorded_accuracy(record) if record.exists() else None

    def offer(self, report: dict) -> bool:
        """Consider the evaluation ``report`` of the policy as it is now; returns whether it was saved."""
        accuracy = report["metrics"]["accuracy"]["mean"]
        if self.accuracy is not None and accuracy <= self.accuracy:
            return False
        self.accuracy = accuracy
        self._save(str(self.folder))
        if self._is_main:
            write_json(self.folder / RECORD, {"step": report["step"], "accuracy": accuracy, "name": report["name"]})
        return True


def _recorded_accuracy(record: Path) -> float:
    fix = f"move {record.parent} away to begin with the next evaluation"
    accuracy = read_json(record, fix).get("accuracy")
    if not isinstance(accuracy, int | float):
        raise UserError(f"{record} has accuracy={accuracy!r}, which is no number; {fix}.")
    return accuracy
