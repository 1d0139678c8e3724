"""Traces of the small world for a supervised warm start: questions of the training split with right and wrong queries.

With probability ``--right_share`` a trace is the gold, else the gold with one or two parts changed. So the policy
learns to write queries that run and answer nearly the question, and reinforcement learning has to find which are right.
Equal queries are written in several ways.

python -m tasks.sql.tiny.traces --output outputs/sql_tiny/traces.jsonl
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from common.errors import run_cli
from common.files import write_jsonl
from common.flags import OutputLines, check_least, check_shares, flag, parse_one
from tasks.sql.tiny.problems import draw_queries, short_prompt
from tasks.sql.tiny.query import Query, changed

TWO_SLIPS = 0.3  # share of the wrong traces with two changed parts


@dataclass
class TraceOptions:
    """How many traces, of which kind, and where they go."""

    output: OutputLines = flag("", "File to write, .jsonl. Needed.")
    n: int = flag(40_000, "Traces, 1 or more; questions may repeat.")
    right_share: float = flag(0.4, "Share of traces with the gold query, in [0, 1].")
    seed: int = flag(0, "Seed of questions and slips.")

    def __post_init__(self):
        check_least(self, n=1)
        check_shares(self, "right_share")


def traces(right_share: float, seed: int) -> Iterator[dict]:
    """Endless rows with the columns prompt and completion over questions of the training split."""
    rng = Random(f"{seed}-traces")
    for query in draw_queries("train", rng):
        yield {"prompt": short_prompt(query.words()), "completion": f" {_written(query, right_share, rng).sql(rng)}"}


def _written(query: Query, right_share: float, rng: Random) -> Query:
    if rng.random() < right_share:
        return query
    written = changed(query, rng)
    return changed(written, rng) if rng.random() < TWO_SLIPS else written


def main() -> None:
    options = parse_one(TraceOptions)
    write_jsonl(Path(options.output), islice(traces(options.right_share, options.seed), options.n))
    print(f"{options.n} traces: {options.output}")


if __name__ == "__main__":
    run_cli(main)
