"""How many changed gold queries that agree on the database asked about do hidden databases tell from the gold?

python -m benchmarks.sql_mutants --data ../shared/data/spider [--output outputs/sql_mutants]

Every gold of a split is changed in one place (a comparison, an aggregate, DISTINCT, a sort order, a limit, a number, a
condition). Of the changed ones whose result is the gold's on the first database, a table says how many the published
databases of other rows reject, and how many the made ones. Not every mutant is wrong: some conditions are redundant.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.machine import publish
from common.errors import UserError, run_cli
from common.flags import OutputStem, check_least, flag, parse_one
from common.markdown import markdown_table
from rewards.sql.grader import is_right
from tasks.sql.problems import load_sql

# Name of a change -> what it replaces, once per place, by what.
CHANGES = {
    "comparison": [
        (r"(?<![<>!])>(?!=)", ">="),
        (r"<(?![=>])", "<="),
        (r">=", ">"),
        (r"<=", "<"),
        (r"(?<![<>!])=", ">="),
    ],
    "aggregate": [(r"\bmax\b", "min"), (r"\bmin\b", "max"), (r"\bavg\b", "max"), (r"\bsum\b", "max")],
    "count": [(r"count\s*\(\s*\*\s*\)", "count(DISTINCT 1)"), (r"count\s*\(\s*DISTINCT\b", "count(")],
    "distinct": [(r"\bSELECT\s+DISTINCT\b", "SELECT"), (r"^\s*SELECT\s+(?!DISTINCT)", "SELECT DISTINCT ")],
    "order": [(r"\bDESC\b", "ASC"), (r"\bASC\b", "DESC"), (r"\bORDER\s+BY\s+[\w.]+\s*(?:ASC|DESC)?\s*$", "")],
    "limit": [(r"\bLIMIT\s+1\b", "LIMIT 2")],
    "number": [(r"(?<=[\s=<>])(\d+)\b", lambda match: str(int(match[1]) + 1))],
    "condition": [(r"\bAND\s+[^\s()]+\s*[=<>!]+\s*(?:'[^']*'|\"[^\"]*\"|[\w.]+)", ""), (r"\bAND\b", "OR")],
    "set": [(r"\bUNION\b", "UNION ALL"), (r"\bINTERSECT\b", "UNION"), (r"\bEXCEPT\b\s.*$", "")],
    "join": [(r"\bJOIN\b", "LEFT JOIN")],
}


@dataclass
class Options:
    """Which golds, and where the table goes."""

    data: str = flag("", "Folder of questions and databases.")
    split: str = flag("test", "Split; its databases need a suite to compare with.")
    hidden_databases: int = flag(8, "Hidden databases made per database, 1 or more.")
    output: OutputStem = flag("outputs/sql_mutants", "Path of the results, without extension.")

    def __post_init__(self):
        check_least(self, hidden_databases=1)


def mutants(sql: str) -> Iterator[tuple[str, str]]:
    """(name of the change, changed query) for each place of ``sql`` that one applies to."""
    for name, changes in CHANGES.items():
        for pattern, instead in changes:
            for match in re.finditer(pattern, sql, re.IGNORECASE | re.DOTALL):
                text = match.expand(instead) if isinstance(instead, str) else instead(match)
                yield name, sql[: match.start()] + text + sql[match.end() :]


def told_apart(sql: str, row: dict) -> bool:
    """Whether ``sql`` differs from the gold of ``row`` on one of its hidden databases."""
    hidden = zip(row["databases"][1:], row["tie_groups"][1:], strict=True)
    return not all(is_right(path, sql, row["gold"], groups) for path, groups in hidden)


def main() -> None:
    options = parse_one(Options)
    if not options.data:
        raise UserError("--data is needed: the folder of questions and databases.")
    published = load_sql(options.data, options.split, num_hidden=0, use_suite=True)
    made = load_sql(options.data, options.split, num_hidden=options.hidden_databases)
    seen, counts = set(), {name: Counter() for name in (*CHANGES, "all")}
    for row, other in zip(published, made, strict=True):
        for name, sql in mutants(row["gold"]):
            if (row["db"], sql) in seen or row["cut"]:
                continue
            seen.add((row["db"], sql))
            if not is_right(row["databases"][0], sql, row["gold"], row["tie_groups"][0]):
                continue
            by_suite, by_made = told_apart(sql, row), told_apart(sql, other)
            for key in (name, "all"):
                counts[key].update(agree=1, published=by_suite, made=by_made, both=by_suite and by_made)
    heads = ["change", "agree on the first", "published reject", "made reject", "both"]
    shown = ([name, *(found[of] for of in ("agree", "published", "made", "both"))] for name, found in counts.items())
    publish(options.output, markdown_table(heads, shown), {"mutants": len(seen), "counts": counts})


if __name__ == "__main__":
    run_cli(main)
