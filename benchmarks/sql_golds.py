"""Gold queries of text-to-SQL judged against themselves, as a completion that gives the gold would be.

python -m benchmarks.sql_golds --data ../shared/data/spider [--output outputs/sql_golds]

Per split: verdicts of golds that determine an answer and of those that do not, how many are judged on how many
databases, and the seconds that loading and judging take. Every gold that determines an answer must be right.
"""

import time
from collections import Counter
from dataclasses import dataclass

from benchmarks.machine import publish
from common.errors import UserError, run_cli
from common.flags import OutputStem, check_least, flag, parse_one
from common.markdown import markdown_table
from rewards.grade import TIERS
from rewards.sql.grader import grade_sql
from tasks.sql.problems import load_sql, split_file

REPORTED = "test"  # the split that run_eval.py judges on the published databases


@dataclass
class Options:
    """Which golds, and where the table goes."""

    data: str = flag("", "Folder of questions and databases, in Spider's or BIRD's layout or with <split>.jsonl.")
    splits: str = flag("train,validation,test", "Splits, joined by commas.")
    hidden_databases: int = flag(3, "Hidden databases made per database, 0 or more.")
    output: OutputStem = flag("outputs/sql_golds", "Path of the results, without extension.")

    def __post_init__(self):
        check_least(self, hidden_databases=0)


def judge_split(options: Options, split: str) -> dict:
    """What became of the golds of one split."""
    begin = time.perf_counter()
    rows = load_sql(options.data, split, num_hidden=options.hidden_databases, use_suite=split == REPORTED)
    loaded = time.perf_counter()
    verdicts: dict[bool, Counter] = {False: Counter(), True: Counter()}
    for row in rows:
        grade = grade_sql(f"<think>\n\n</think>\n<answer>\n{row['gold']}\n</answer>", row)
        tiers = "".join(tier[0] for tier in TIERS if getattr(grade, tier))
        verdicts[row["cut"]][f"{grade.verdict} {tiers}"] += 1
    return {
        "split": split,
        "golds": len(rows),
        "determined": dict(verdicts[False]),
        "cut": dict(verdicts[True]),
        "empty": sum(not count for count in rows["rows"]),
        "databases per gold": dict(sorted(Counter(map(len, rows["databases"])).items())),
        "seconds to load": round(loaded - begin, 1),
        "seconds to judge": round(time.perf_counter() - loaded, 1),
    }


def main() -> None:
    options = parse_one(Options)
    if not options.data:
        raise UserError("--data is needed: the folder of questions and databases.")
    splits = options.splits.split(",")
    for split in splits:
        split_file(options.data, split)  # raises where there is none, before any is judged
    found = [judge_split(options, split) for split in splits]
    publish(options.output, markdown_table(list(found[0]), (row.values() for row in found)), {"splits": found})


if __name__ == "__main__":
    run_cli(main)
