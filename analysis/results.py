"""Tables and pictures of the pages, drawn from the records under results/ so that no figure can go stale: make results.

A page holds blocks ``<!-- results: SWEEP KIND [ARM] -->`` ... ``<!-- end of results -->``. SWEEP is a
folder of results/; KIND is "table" (every arm against plain GRPO), "notes" (what the table rests on), "arm" (one
sentence on ARM) or "metrics" (means over seeds of the metrics of an evaluation that stand in the place of ARM).

python -m analysis.results [--check]
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from analysis.results_figure import draw_sweep
from analysis.sweep import Sweep, read_sweep, short
from common.errors import UserError, run_cli
from common.files import write_atomically
from evaluation.table import MISSING, format_metric

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/*.md", "docs/methods/*.md")
_BLOCK = re.compile(r"(<!-- results: (?P<what>[^\n]*?) -->\n).*?(<!-- end of results -->)", re.DOTALL)
_COLUMNS = (
    "arm",
    "seeds",
    *("right, %", "difference to `no`", "Holm p"),
    *("false claims, %", "difference to `no`", "Holm p"),
)


def table(sweep: Sweep) -> str:
    """Every arm: accuracy and false claims after training, paired differences to plain GRPO, Holm's p of a family."""
    outcomes = sweep.result["outcomes"]
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for label in sweep.result["runs"]:
        right, claims = outcomes["accuracy"][label], outcomes["false_claims"][label]
        cells = [_name(label), str(len(right["by_seed"]))]
        for row in (right, claims):
            cells += [f"{100 * row['mean']:.1f}", *(_difference(row) if "paired_seeds" in row else ("", ""))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _name(label: str) -> str:
    bonus, *others = short(label).split(", ")
    return ", ".join([f"`{bonus}`", *others])


def _difference(row: dict) -> tuple[str, str]:
    if row["low"] is None:
        return "", ""
    interval = f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    return interval, "" if row["p_holm"] is None else f"{row['p_holm']:.3f}"


def notes(sweep: Sweep) -> str:
    """What the table rests on: problems, samples, steps, code, machine, and what limits it."""
    result, facts = sweep.result, sweep.facts
    detectable = [row["mde"] for row in result["outcomes"]["accuracy"].values() if row.get("mde")]
    steps, samples, minutes = (_range([fact[name] for fact in facts]) for name in ("steps", "samples", "minutes"))
    before = 100 * sum(run.scores["accuracy"].mean() for run in sweep.before) / len(sweep.before)
    sentences = [
        f"{len(facts)} runs of {steps} steps; {result['problems']} validation problems with {samples} samples each. "
        f"Before training {before:.1f} % were right. Differences are paired by seed and problem, with "
        "95 % intervals by a two-way bootstrap over both; Holm's adjustment counts the arms of a column."
    ]
    if detectable:
        shown = _range([round(100 * value, 1) for value in detectable])
        sentences.append(f"A difference in accuracy would be found with 80 % power from {shown} points on.")
    sentences += map(short, result["notes"])
    machines = sorted({f"{fact['machine']['system']}, {fact['machine']['cores']} cores" for fact in facts})
    sentences.append(f"Machine: {'; '.join(machines)}; {minutes} minutes a run.")
    return " ".join(sentences)


def _range(values: list) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def arm_sentence(sweep: Sweep, arm: str) -> str:
    """One sentence on the accuracy and false claims of an arm; raises `UserError` where there is no such arm."""
    outcomes = sweep.result["outcomes"]
    if arm not in outcomes["accuracy"] or "paired_seeds" not in outcomes["accuracy"][arm]:
        known = ", ".join(repr(label) for label in outcomes["accuracy"])
        raise UserError(f"no arm {arm!r} beside the baseline; the records have {known}.")
    right, claims = outcomes["accuracy"][arm], outcomes["false_claims"][arm]
    plain = outcomes["accuracy"][sweep.result["baseline"]]["by_seed"]
    seeds = right["paired_seeds"]
    base = 100 * sum(plain[seed] for seed in seeds) / len(seeds) if seeds else float("nan")
    level, changes = 100 * right["mean"], []
    for row in (right, claims):
        difference, p = _difference(row)
        changes.append(f"{difference} points" + (f", Holm p {p}" if p else ""))
    return (
        f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}: {level:.1f} % right after training, plain GRPO "
        f"{base:.1f} %; difference {changes[0]}. False claims {100 * claims['mean']:.1f} %, difference {changes[1]}."
    )


def metrics_table(sweep: Sweep, names: str) -> str:
    """Means over seeds of the metrics ``names``, before training and of every arm after it.

    Raises `UserError` where no record has such a metric.
    """
    columns = names.split()
    found = {str(run.path): fact["metrics"] for run, fact in zip(sweep.before, sweep.facts, strict=True)}
    known = {name for metrics in found.values() for name in metrics.get("after", ())}
    if unknown := [name for name in columns if name not in known]:
        raise UserError(f"no record has the metric {unknown[0]!r}; they have {', '.join(sorted(known)) or 'none'}.")

    def line(label: str, paths: list[str], which: str) -> str:
        cells = [label, str(len(paths))]
        for name in columns:
            values = [found[path][which][name] for path in paths if name in found[path].get(which, ())]
            cells.append(format_metric(name, sum(values) / len(values)) if values else MISSING)
        return f"| {' | '.join(cells)} |"

    lines = [f"| arm | seeds | {' | '.join(f'`{name}`' for name in columns)} |", "|---" * (2 + len(columns)) + "|"]
    lines.append(line("before training", list(found), "before"))
    lines += [line(_name(label), list(runs.values()), "after") for label, runs in sweep.result["runs"].items()]
    return "\n".join(lines)


KINDS: dict[str, Callable[..., str]] = {
    "table": table,
    "notes": notes,
    "arm": arm_sentence,
    "metrics": metrics_table,
}


def pages(root: Path, sweeps: dict[str, Sweep]) -> dict[Path, str]:
    """The text that every page with blocks should have.

    Args:
        sweeps: those read already, by the name of their folder; the others that blocks ask for are added.

    Raises `UserError` where a block asks for what there is not.
    """

    def block(found: re.Match) -> str:
        name, kind, *arm = found["what"].split(maxsplit=2)
        if kind not in KINDS:
            raise UserError(f"a block of results asks for {kind!r}; use one of {', '.join(KINDS)}.")
        if name not in sweeps:
            sweeps[name] = read_sweep(root / "results" / name)
        return f"{found[1]}{KINDS[kind](sweeps[name], *arm)}\n{found[3]}"

    texts = {}
    for path in sorted(path for pattern in PAGES for path in root.glob(pattern)):
        text = path.read_text(encoding="utf-8")
        if _BLOCK.search(text):
            texts[path] = _BLOCK.sub(block, text)
    return texts


def stale(texts: dict[Path, str]) -> list[Path]:
    """The pages that say something else than the records."""
    return [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]


def main() -> None:
    """Command line: writes blocks and pictures, or with ``--check`` only says which pages are stale."""
    parser = argparse.ArgumentParser(description="Write the figures of the pages from results/.", allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 2 where a page is stale")
    check = parser.parse_args().check
    sweeps: dict[str, Sweep] = {}
    texts = pages(ROOT, sweeps)
    changed = stale(texts)
    if check and changed:
        names = ", ".join(str(path.relative_to(ROOT)) for path in changed)
        raise UserError(f"{names}: not what the records in results/ say; run make results.")
    if check:
        return
    for path in changed:
        write_atomically(path, lambda temporary, path=path: temporary.write_text(texts[path], encoding="utf-8"))
        print(f"written: {path.relative_to(ROOT)}")
    for folder in sorted(path for path in (ROOT / "results").iterdir() if path.is_dir()):
        sweep = sweeps.get(folder.name) or read_sweep(folder)
        print(f"drawn: {draw_sweep(sweep, ROOT / 'docs' / 'figures' / f'{folder.name}.png').relative_to(ROOT)}")


if __name__ == "__main__":
    run_cli(main)
