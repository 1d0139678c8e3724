"""What is reported of SQL beside accuracy: execution accuracy as BIRD counts it, and what hidden databases take off."""

from collections.abc import Callable, Sequence

from evaluation.metrics import by_problem, mean_interval

DETERMINED = "determined"  # of questions: the gold gives rows, and its LIMIT cuts through no ties


def sql_metrics(records: Sequence[dict]) -> dict:
    """Metrics of records with columns id, same_set, medium, verdict, cut and rows.

    ``execution_accuracy``: the gold's set of rows on the first database, without order or duplicates, as BIRD counts.
    ``suite_accuracy``: the medium tier, the gold's result on every database. ``execution_minus_suite``: their
    difference, what a set on one database accepts too much. ``accidental``: share of completions that are right on the
    first database and wrong on a hidden one. Each again as ``<name>/determined`` for the questions whose gold
    determines an answer, where those are not all.
    """
    metrics = _of(records)
    determined = [record for record in records if not record["cut"] and record["rows"]]
    if 0 < len(determined) < len(records):
        metrics |= {f"{name}/{DETERMINED}": value for name, value in _of(determined).items()}
    return metrics


def _of(records: Sequence[dict]) -> dict:
    execution = _interval(records, lambda record: record["same_set"])
    suite = _interval(records, lambda record: record["medium"])
    return {
        "execution_accuracy": execution,
        "suite_accuracy": suite,
        "execution_minus_suite": execution["mean"] - suite["mean"],
        "accidental": _interval(records, lambda record: record["verdict"] == "accidental"),
    }


def _interval(records: Sequence[dict], read: Callable[[dict], bool]) -> dict:
    return mean_interval(list(by_problem(records, lambda record: float(read(record))).values()))
