"""Tables of the committed reports under benchmarks/results, for the pages that show a part of them."""

import re
from pathlib import Path

from common.errors import UserError

_HEADS = ("pass@1", "minus plain GRPO", "p", "rare strategy in 64 samples", "minus plain GRPO", "p")
_COLUMNS = ("pass@1", "rare@64")  # of the report of known truth
COSTS = {"bonus_overhead_all": "the embedded policy", "bonus_overhead_smollm2": "SmolLM2"}  # report -> policy
_HOLM = 2  # columns right of a difference


def table_of(path: Path, number: str = "1") -> str:
    """The Markdown table of this number, counted from 1, in ``path`` as it stands there.

    Raises as `tables` does, and `UserError` where there is no such table.
    """
    found = tables(path)
    if number not in map(str, range(1, len(found) + 1)):
        raise UserError(f"a page shows table {number!r} of {path}, which has {len(found)}; give 1 to {len(found)}.")
    return "\n".join(found[int(number) - 1])


def known_truth_rows(path: Path, wanted: str) -> str:
    """What a card shows of the report of `benchmarks.known_truth`: levels, differences and Holm's p.

    Args:
        path: the report.
        wanted: its rows, separated by semicolons.

    Raises as `tables` does, and `UserError` for a row that is not there.
    """
    levels, differences = (_by_row(table) for table in tables(path)[:2])
    names = [f"`{name.strip()}`" for name in wanted.split(";")]
    unknown = [name for name in names if name not in differences]
    if unknown:
        raise UserError(f"{path} has no row {unknown[0]}; it has {', '.join(differences)}.")
    lines = [f"| | {' | '.join(_HEADS)} |", "|---" * (len(_HEADS) + 1) + "|"]
    for name in names:
        cells = [name]
        for column in _COLUMNS:
            heads = list(differences[name])
            adjusted = heads[heads.index(f"{column} minus no") + _HOLM]
            cells += [levels[name][column], differences[name][f"{column} minus no"], differences[name][adjusted]]
        lines.append(f"| {' | '.join(cells)} |")
    plain, looks = levels["`no`"], re.search(r"times (\d+) looks", path.read_text(encoding="utf-8"))
    also = f" and for {looks[1]} looks at the seeds" if looks else ""
    return (
        f"Known-truth Countdown ([known_truth.md](../known_truth.md), {plain['seeds']} seeds, default weights; ± is "
        f"the 95 % interval, p is adjusted\nfor {len(differences)} comparisons by Holm{also}; plain GRPO: pass@1 "
        f"{plain['pass@1']}, rare strategy in 64 samples {plain['rare@64']}):\n\n" + "\n".join(lines)
    )


def cost_sentence(path: Path, bonus: str) -> str:
    """What the card of ``bonus`` says of its cost, from the reports `COSTS` beside ``path``, as far as they have it.

    Raises as `tables` does, and `UserError` where none has it.
    """
    found = {}
    for report, policy in COSTS.items():
        if row := _by_row(tables(path.with_name(f"{report}.md"))[0]).get(bonus):
            found[policy] = (row["bonus 3"].replace("%", " %"), row["ratio 5"])
    if not found:
        raise UserError(f"no report of {', '.join(COSTS)} has a row {bonus!r}.")
    times = " and ".join(f"{time} with {policy}" for policy, (time, _) in found.items())
    memory = " and ".join(ratio for _, ratio in found.values())
    return (
        f"`python -m benchmarks.bonus_overhead --bonuses all`, one thread of a CPU: of the rest of a step {times}; "
        f"peak memory {memory} times that of plain GRPO ([what was measured](../results.md#what-a-bonus-costs))."
    )


def tables(path: Path) -> list[list[str]]:
    """The lines of every Markdown table of ``path``; raises `UserError` where there is no file or no table in it."""
    fix = "a page shows figures of it; restore it with git"
    if not path.is_file():
        raise UserError(f"{path} is missing, and {fix}.")
    found: list[list[str]] = [[]]
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    if not found[0]:
        raise UserError(f"{path} has no table, and {fix}.")
    return [lines for lines in found if lines]


def _by_row(lines: list[str]) -> dict[str, dict[str, str]]:
    """First cell of each row -> heading -> cell; a heading that comes again is told apart by its number."""
    heads, _, *rows = ([cell.strip() for cell in line.strip().split("|")[1:-1]] for line in lines)
    heads = [head if head not in heads[:place] else f"{head} {place}" for place, head in enumerate(heads)]
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
