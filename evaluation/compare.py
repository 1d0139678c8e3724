"""Two evaluations of the same problems: the paired difference of their accuracies, and judging records again."""

import json
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import read_json
from evaluation.against_base import first_pass
from evaluation.evaluate import record_summary, summarize_records
from evaluation.metrics import by_problem, paired_difference
from evaluation.tasks import eval_task
from rewards.grade import TIERS

_IDENTITY = ("question", "db", "gold", "numbers", "target")  # columns of a row, whichever its task has
RANKS = ("rank", "rank_per_byte")  # what a record of --rank holds in the place of tiers
_JUDGED_BY = ("hidden_databases", "test_seconds")  # settings that decide what is right
# What the fields of a record hold, where it has them, and those of a report.
_TEXT, _WHOLE, _TRUTH = (str, "a text"), (int, "a whole number"), (bool, "true or false")
_FIELDS = {
    **dict.fromkeys(("completion", "prefill", "gold", "verdict", "pass"), _TEXT),
    **dict.fromkeys(("length", "target"), _WHOLE),
    **dict.fromkeys((*TIERS, "truncated"), _TRUTH),
    **dict.fromkeys(("numbers", "choices"), (list, "a list")),
    **dict.fromkeys(("answer", "approach"), (str | None, "a text or null")),
    "id": (int | str, "a whole number or a text"),
}
_REPORT = {"task": _TEXT, "settings": (dict, "an object"), "passes": (list, "a list")}
COMPLETION = ("id", "completion", "length", "truncated")


def read_report(path: str | Path, needed: Sequence[str] = COMPLETION) -> dict:
    """A report that run_eval.py or a training run wrote; raises `UserError` on anything else.

    Args:
        needed: what every record must hold.
    """
    path = Path(path)
    try:
        report = read_json(path, "give an evaluation's JSON file")
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error.strerror}); give an evaluation's JSON file.") from error
    records = report.get("records")
    if not isinstance(records, list) or not records or "task" not in report:
        raise UserError(
            f"{str(path)!r} holds no task and records; give a file that run_eval.py or a run's eval/ wrote."
        )
    if not all(isinstance(record, dict) for record in records):
        raise UserError(f"{str(path)!r} has a record that is no object; give an evaluation's JSON file.")
    _check_fields(path, "the report", report, _REPORT)
    if not all(isinstance(way, dict) for way in report.get("passes", [])) or report.get("passes") == []:
        raise UserError(f"{str(path)!r} has passes that are no objects, or none; give an evaluation's JSON file.")
    for place, record in enumerate(records):
        _check_fields(path, f"record {place}, counted from 0,", record, _FIELDS)
    _check_records(path, records, needed)
    return report


def _check_fields(path: Path, where: str, values: dict, fields: dict[str, tuple]) -> None:
    for name, (kind, called) in fields.items():
        value = values.get(name)
        if name in values and (not isinstance(value, kind) or (isinstance(value, bool) and kind is int)):
            raise UserError(
                f"{str(path)!r}: {name} of {where} holds {str(value)[:80]!r}, but must be {called}; give an "
                "evaluation's JSON file."
            )


def _check_records(path: Path, records: list[dict], needed: Sequence[str]) -> None:
    missing = next((name for record in records for name in needed if name not in record), None)
    if missing:
        raise UserError(
            f"{str(path)!r} has a record without {missing!r}; give a file with whole records, or --regrade it first "
            "where only tiers are missing."
        )


def read_comparable(path: str | Path) -> dict:
    """A report for `compare`, of samples or of a ranking (--rank); raises as `read_report` does."""
    report = read_report(path, needed=())
    _check_records(Path(path), report["records"], measures(report))
    return report


def measures(report: dict) -> tuple[str, ...]:
    """What says of each record whether it is right: `RANKS` of a ranking, else `TIERS`."""
    return RANKS if RANKS[0] in report["records"][0] else TIERS


def problem_of(record: dict) -> str:
    """What problem a record is of, whatever its prompt; its prompt where its row keeps neither question nor numbers."""
    names = _IDENTITY if record.keys() & {"question", "numbers"} else ("prompt", *_IDENTITY)
    return json.dumps([record[name] for name in names if name in record])


def sign_test_name(samples: int) -> str:
    """What the exact binomial test on the problems that only one of two did better on is called."""
    return "McNemar's exact test" if samples == 1 else "exact sign test on the share of right samples of each problem"


def compare(first: dict, second: dict) -> dict[str, dict[str, float | str]]:
    """Each of `measures` -> `paired_difference` of two reports, and the name of its "test".

    Raises `UserError` unless both hold the same problems of one task, as samples or as rankings.
    """
    if first["task"] != second["task"]:
        raise UserError(f"these are different tasks, {first['task']} and {second['task']}; compare two of one task.")
    names = measures(first)
    if names != measures(second):
        raise UserError("one ranks options (--rank) and the other has samples; compare two of a kind.")
    one, other = (report.get("settings", {}) for report in (first, second))
    for name in (name for name in _JUDGED_BY if name in one and name in other):
        if one[name] != other[name]:
            raise UserError(
                f"the two were judged differently, with --{name}={one[name]} and --{name}={other[name]}; evaluate both "
                "with the same."
            )
    found = {}
    for tier in names:
        one, other = (by_problem(first_pass(report), itemgetter(tier), problem_of) for report in (first, second))
        if one.keys() != other.keys():
            raise UserError(
                f"the two hold different problems ({len(one)} and {len(other)}, {len(one.keys() & other.keys())} in "
                "common); evaluate both with the same --data, --split and --limit."
            )
        scores = [[float(np.mean(side[problem])) for problem in one] for side in (one, other)]
        samples = max(len(right) for side in (one, other) for right in side.values())
        found[tier] = paired_difference(*scores) | {"test": sign_test_name(samples)}
    return found


def compare_table(differences: dict[str, dict[str, float | str]]) -> str:
    """The result of `compare` as text."""
    width = max(map(len, ("tier", *differences))) + 2
    lines = [f"{'tier':{width}}{'difference':>12}{'95 % interval':>20}{'only A':>9}{'only B':>9}{'p':>9}"]
    for tier, found in differences.items():
        interval = f"[{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
        lines.append(
            f"{tier:{width}}{100 * found['difference']:>+10.1f} %{interval:>20}{found['only_first']:>9}"
            f"{found['only_second']:>9}{found['p']:>9.3f}"
        )
    found = next(iter(differences.values()))
    return "\n".join([*lines, f"B minus A in percentage points over {found['n']} problems; p: {found['test']}"])


def regrade(report: dict) -> tuple[dict, int]:
    """(the report with every record judged again, number of records whose verdict or tier changed)."""
    grade = eval_task(report["task"]).grade
    if not {"gold", "target"} & report["records"][0].keys():
        raise UserError("the records hold neither gold nor target, so nothing can be judged; give a whole evaluation.")
    records, changed = [], 0
    for place, record in enumerate(report["records"]):
        try:
            judged = record_summary(grade(record.get("prefill", "") + record["completion"], record))
        except (KeyError, TypeError) as error:
            raise UserError(
                f"record {place}, counted from 0, cannot be judged ({type(error).__name__}: {error}); give a whole "
                "evaluation."
            ) from error
        changed += any(record.get(key) != value for key, value in judged.items())
        records.append(record | judged)
    names = list(dict.fromkeys(record.get("pass") for record in records))
    metrics = {}
    for index, name in enumerate(names):
        summary = summarize_records([record for record in records if record.get("pass") == name])
        metrics |= {(f"{name}/" if index else "") + key: value for key, value in summary.items()}
    return report | {"metrics": metrics, "records": records}, changed
