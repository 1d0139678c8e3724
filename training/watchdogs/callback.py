"""Watchdogs: `WatchdogCallback` runs the checks of `training.watchdogs.checks` on what a run logs, and warns.

Also the two metrics of texts that the checks need and TRL does not log: repetition and identical completions.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

from tqdm import tqdm
from transformers import TrainerCallback

from common.errors import UserError
from common.files import read_json
from intrinsic import bonus_class
from intrinsic.base import Bonus
from intrinsic.rollout import Rollout
from training.run_folder import MetricsFile
from training.watchdogs.checks import IDENTICAL, REPETITION, Check, held_out_fall, training_checks
from training.watchdogs.collapse_step import collapse_step
from training.watchdogs.history import History
from training.watchdogs.thresholds import Thresholds, TrainingWarning

WARNINGS_FILE = "warnings.jsonl"
REPEATED_NGRAM = 4
# Words, punctuation, line breaks and indentation. Long runs of letters or spaces are cut into pieces, so that one
# character repeated without end counts as repetition too.
_UNIT = re.compile(r"\w{1,8}|[^\w ]| {2,8}")


def repetition_rate(text: str) -> float:
    """Share of the 4-grams of a text that repeat an earlier one: 1 - distinct / all, in [0, 1); 0 below 4 words.

    Welleck et al., arXiv:1908.04319, section 6.1 (seq-rep-n), over words and punctuation in place of tokens.
    """
    units = _UNIT.findall(text)
    ngrams = list(zip(*(islice(units, start, None) for start in range(REPEATED_NGRAM)), strict=False))
    return 1.0 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def identical_share(texts: Sequence[str], num_generations: int) -> float:
    """Share of the completions whose exact text another completion of their group has too.

    ``texts``: groups of ``num_generations`` side by side.
    """
    counts = Counter((index // num_generations, text) for index, text in enumerate(texts))
    return sum(count for count in counts.values() if count > 1) / len(texts)


def text_metrics(rollout: Rollout) -> dict[str, float]:
    """What to log of the texts of a rollout: mean `repetition_rate` and `identical_share`."""
    rates = [repetition_rate(text) for text in rollout.completions]
    return {
        REPETITION: sum(rates) / len(rates),
        IDENTICAL: identical_share(rollout.completions, rollout.num_generations),
    }


def judged(bonuses: Iterable[Bonus]) -> list[str]:
    """Names of the bonuses that a policy could climb at the cost of accuracy: not those that multiply the advantages,
    whose factor rises by itself where accuracy falls."""
    return [bonus.name for bonus in bonuses if not bonus.multiplies]


def print_line(line: str) -> None:
    """Print a line to stdout without breaking progress bars."""
    tqdm.write(line)
    sys.stdout.flush()


def _read_evaluation(path: Path) -> dict:
    """The report of an evaluation of the run; raises `UserError` where it lacks its step or its accuracy."""
    report = read_json(path, "move it away")
    metrics = report.get("metrics")
    accuracy = metrics.get("accuracy") if isinstance(metrics, dict) else None
    bounds = [accuracy.get(name) for name in ("mean", "low", "high")] if isinstance(accuracy, dict) else [None]
    if type(report.get("step")) is not int or not all(isinstance(bound, int | float) for bound in bounds):
        raise UserError(f"{path} holds no step, or no accuracy with its interval; move it away.")
    return report


class Watchdog:
    """One check with its episodes: it barks once, and again only after ``patience`` silent checks in a row."""

    def __init__(self, check: Check, patience: int):
        self._check, self._patience = check, patience
        self._is_barking, self._silent = False, 0

    def look(self, history: History) -> TrainingWarning | None:
        """The warning that begins an episode, else None."""
        warning = self._check(history)
        if warning is not None:
            begins = not self._is_barking
            self._is_barking, self._silent = True, 0
            return warning if begins else None
        self._silent += 1
        self._is_barking = self._is_barking and self._silent < self._patience
        return None


class WatchdogCallback(TrainerCallback):
    """Prints a line and appends to ``warnings.jsonl`` when a watchdog begins to warn; on the main process only.

    When training begins, the run folder's own ``metrics.jsonl`` and ``eval/`` up to the step it begins at are looked
    through again, so that a resumed run warns as an uninterrupted one does; warnings beyond that step are dropped.

    Args:
        folder: the run folder.
        bonuses: names of the bonuses.
        is_main: whether this is the main process; the others do nothing.
        thresholds: when to warn.
        out: where a line goes.

    Attributes:
        history: what the run has logged and evaluated so far; empty on other processes. A new one when training begins.
    """

    def __init__(
        self,
        folder: Path,
        bonuses: Iterable[str] = (),
        is_main: bool = True,
        thresholds: Thresholds | None = None,
        out: Callable[[str], object] = print_line,
    ):
        self.folder, self.bonuses, self.is_main = Path(folder), tuple(bonuses), is_main
        self.thresholds = thresholds or Thresholds()
        self.file = MetricsFile(self.folder / WARNINGS_FILE, needed=("watchdog",))
        self._out = out
        self._told: set[tuple[int, str]] = set()
        self._reset()

    def on_train_begin(self, args, state, control, **kwargs):
        if self.is_main:
            self._told = {
                (record["step"], str(record["watchdog"])) for record in self.file.truncate_after(state.global_step)
            }
            self.file.path.parent.mkdir(parents=True, exist_ok=True)
            # An empty file tells a run without warnings from one that nobody watched.
            self.file.path.touch()
            self._look_back(state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.is_main and "train_runtime" not in (logs or {}):
            self._add_record({**(logs or {}), "step": state.global_step})

    def add_evaluation(self, report: dict) -> None:
        """Take in the report of an evaluation on held-out problems (see `evaluation.evaluate.HeldOut.evaluate`)."""
        if self.is_main:
            accuracy = report["metrics"]["accuracy"]
            self.history.evaluations.append({"step": report["step"], **accuracy})
            self._look(self._on_evaluations)

    def _reset(self) -> None:
        limits = self.thresholds
        self.history = History()
        self._on_logs = [Watchdog(check, limits.window) for check in training_checks(limits, self.bonuses)]
        steps = [partial(collapse_step, bonus=bonus) for bonus in self.bonuses if bonus_class(bonus).label_free]
        checks = [held_out_fall, *steps]
        self._on_evaluations = [Watchdog(partial(check, limits=limits), patience=1) for check in checks]

    def _look_back(self, last_step: int) -> None:
        self._reset()
        records = [item for item in MetricsFile(self.folder / "metrics.jsonl").read() if "train_runtime" not in item]
        # Not after.json: it is made anew when training ends.
        files = [*self.folder.glob("eval/before.json"), *self.folder.glob("eval/step_*.json")]
        reports = [_read_evaluation(path) for path in files]
        # The evaluation at a step comes before the log of that step.
        for item in sorted([*reports, *records], key=lambda item: (item["step"], "metrics" not in item)):
            if item["step"] > last_step:
                break
            if "metrics" in item:
                self.add_evaluation(item)
            else:
                self._add_record(item)

    def _add_record(self, record: dict) -> None:
        self.history.add(record)
        self._look(self._on_logs)

    def _look(self, watchdogs: Iterable[Watchdog]) -> None:
        for watchdog in watchdogs:
            warning = watchdog.look(self.history)
            if warning is not None and (warning.step, warning.watchdog) not in self._told:
                self._told.add((warning.step, warning.watchdog))
                self._out(warning.line)
                self.file.write(asdict(warning))
                self.file.close()
