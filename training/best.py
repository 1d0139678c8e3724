"""Keeping the policy that did best on validation problems."""

from collections.abc import Callable
from pathlib import Path

from common.errors import UserError
from common.files import read_json, write_json
from training.folder_swap import replacing, settle

RECORD = "held_out.json"


class BestPolicy:
    """Saves the policy to ``folder`` whenever an evaluation beats the best accuracy so far, ties going to the earlier.

    Policy and record change together: a save that is cut off leaves those of before.

    Args:
        folder: gets the policy and `RECORD`, which says step and accuracy; a resumed run goes on from that.
        save: saves the policy of the moment to a folder; called on every process.
        is_main: whether this process writes the record and moves folders.
        wait_for_everyone: returns once every process has called it.
    """

    def __init__(
        self,
        folder: Path,
        save: Callable[[str], None],
        is_main: bool = True,
        wait_for_everyone: Callable[[], None] = lambda: None,
    ):
        self.folder, self._save = folder, save
        self._is_main, self._wait_for_everyone = is_main, wait_for_everyone
        if is_main:
            settle(folder)
        wait_for_everyone()
        record = folder / RECORD
        self.accuracy = _recorded_accuracy(record) if record.exists() else None

    def offer(self, report: dict) -> bool:
        """Consider the evaluation ``report`` of the policy as it is now; returns whether it was saved."""
        accuracy = report["metrics"]["accuracy"]["mean"]
        if self.accuracy is not None and accuracy <= self.accuracy:
            return False
        with replacing(self.folder, self._is_main, self._wait_for_everyone) as new:
            self._save(str(new))
            if self._is_main:
                write_json(new / RECORD, {"step": report["step"], "accuracy": accuracy, "name": report["name"]})
        self.accuracy = accuracy
        return True


def _recorded_accuracy(record: Path) -> float:
    fix = f"move {record.parent} away to begin with the next evaluation"
    accuracy = read_json(record, fix).get("accuracy")
    if not isinstance(accuracy, int | float):
        raise UserError(f"{record} has accuracy={accuracy!r}, which is no number; {fix}.")
    return accuracy
