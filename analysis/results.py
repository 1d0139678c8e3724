"""Tables and pictures of the pages, drawn from records so that no figure can go stale: make results.

A page holds blocks ``<!-- results: NAME KIND [WHICH] -->`` ... ``<!-- end of results -->``. Of a sweep NAME, with
records in results/NAME, the kinds are "table" (right answers of every arm), "others" (false claims, pass@k and
Coverage@k), "gains" (before and after training), "notes" (what they rest on), "arm" (a sentence on the arm WHICH),
"contrast" (one family of comparisons, WHICH: outcome, baseline and arms, separated by spaces), "answer" (which arms
are told apart, in NAME and the sweeps WHICH), "metrics" (means over seeds of the metrics WHICH of an evaluation,
separated by spaces), "runs" (every run by itself, in the outcomes WHICH), "half" (what half of the rollouts reach) and
"sums" (Countdown problems that adding all numbers solves, and the others). Of a report benchmarks/results/NAME.md they
are "report" (its table number WHICH, by default 1) and "rows" (of that of known truth, those of the bonuses WHICH,
separated by semicolons); "bonus_overhead cost WHICH" is a sentence on the bonus WHICH from the reports of its cost.
"pages outside" lists what pages tell without a record.

An interval in the prose of a page has to stand in a block or report too (analysis/prose.py). A page is to be read again
where a table that it speaks of has changed (analysis/readings.py); ``--read`` keeps that it was.

python -m analysis.results [--check | --read]
"""

import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from analysis import results_tables
from analysis.half_budget import half_table
from analysis.prose import Told, unsupported
from analysis.readings import BLOCK, Tables, tables_spoken_of, to_read, told_without_record
from analysis.report_tables import cost_sentence, known_truth_rows, table_of
from analysis.results_figure import DIGEST, draw_sweep
from analysis.run_tables import runs_table
from analysis.sums import sums_table
from analysis.sweep import Sweep, arm_of, can_compare, digest_of, read_sweep
from common.errors import UserError, run_cli
from common.files import read_json, write_json, write_text
from common.flags import NamesParser

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/*.md", "docs/methods/*.md")
READ = Path("docs", "read_against.json")
SWEEP_KINDS: dict[str, Callable[..., str]] = {
    "table": results_tables.main_table,
    "others": results_tables.other_table,
    "gains": results_tables.gains_table,
    "notes": results_tables.notes,
    "arm": results_tables.arm_sentence,
    "metrics": results_tables.metrics_table,
    "contrast": results_tables.contrast_table,
    "half": half_table,
    "sums": sums_table,
}
REPORT_KINDS: dict[str, Callable[..., str]] = {"report": table_of, "rows": known_truth_rows, "cost": cost_sentence}


class Results:
    """The records and reports of the project in ``root``; each sweep is read once."""

    def __init__(self, root: Path):
        self.root = root
        self.sweeps: dict[str, Sweep] = {}
        paths = sorted(path for pattern in PAGES for path in root.glob(pattern))
        self.texts = {path: path.read_text(encoding="utf-8") for path in paths}
        reports = sorted(root.glob("benchmarks/results/*.md"))
        self.reports = {path: path.read_text(encoding="utf-8") for path in reports}

    def sweep(self, name: str) -> Sweep:
        """The sweep of results/``name``, which can be compared."""
        if name not in self.sweeps:
            self.sweeps[name] = read_sweep(self.root / "results" / name)
        return self.sweeps[name]

    def block(self, what: str) -> str:
        """The content of the block ``NAME KIND [WHICH]``; raises `UserError` where it asks for what there is not."""
        name, kind, which = [*what.split(maxsplit=2), "", ""][:3]
        arguments = [which] if which else []
        if kind in REPORT_KINDS:
            return REPORT_KINDS[kind](self.root / "benchmarks" / "results" / f"{name}.md", *arguments)
        if kind == "outside":
            return told_without_record(self.texts, self.root / "docs")
        known = (*SWEEP_KINDS, "answer", "runs", *REPORT_KINDS, "outside")
        if kind not in known:
            raise UserError(f"the block of results {what!r} asks for {kind!r}; use one of {', '.join(known)}.")
        sweeps = [name, *which.split()] if kind == "answer" else [name]
        for sweep in sweeps:
            if not (self.root / "sweeps" / f"{sweep}.sh").is_file():
                raise UserError(f"the block of results {what!r} asks for a sweep, and there is no sweeps/{sweep}.sh.")
        if kind == "answer":
            return self._answer(sweeps)
        if kind == "runs":
            folder = self.root / "results" / name
            return runs_table(folder, which) if any(folder.glob("*.json")) else _no_record(name)
        return self._of_arms(name, kind, "" if kind in ("metrics", "contrast") else which, *arguments)

    def _answer(self, names: list[str]) -> str:
        """Of those sweeps that have records."""
        found = [self.sweep(name) for name in names if can_compare(self.root / "results" / name)]
        return results_tables.answer(*found) if found else _no_record(names[0])

    def _of_arms(self, name: str, kind: str, arm: str, *arguments: str) -> str:
        """A block of one sweep, which needs records of ``arm`` where it names one."""
        folder, script = self.root / "results" / name, self.root / "sweeps" / f"{name}.sh"
        arms = {arm_of(path) for path in folder.glob("*.json")}
        if arm and arm not in {*arms, *re.findall(r"[\w:+-]+", script.read_text(encoding="utf-8"))}:
            raise UserError(
                f"the block of results '{name} {kind} {arm}' asks for the arm {arm!r}; sweeps/{script.name} has none."
            )
        if not can_compare(folder) or (arm and arm not in arms):
            said = "Too few arms run to compare" if arms and (not arm or arm in arms) else "Not run"
            return _no_record(name, *filter(None, [arm]), said=said)
        return SWEEP_KINDS[kind](self.sweep(name), *arguments)

    def pages(self) -> dict[Path, str]:
        """The text that every page with blocks should have; raises as `block` does."""
        with_blocks = {path: text for path, text in self.texts.items() if BLOCK.search(text)}
        return {
            path: BLOCK.sub(lambda found: f"{found[1]}{self.block(found['what'])}\n{found[3]}", text)
            for path, text in with_blocks.items()
        }

    def untold(self) -> list[str]:
        """Where prose tells an interval that is in no block and in no report: "page:line: interval"."""
        prose = {path: BLOCK.sub(lambda found: "\n" * found[0].count("\n"), text) for path, text in self.texts.items()}
        blocks = [found[0] for text in self.texts.values() for found in BLOCK.finditer(text)]
        found = unsupported(prose, [*self.reports.values(), *blocks])
        return [f"{path.relative_to(self.root)}:{told.line}: {told.text}" for path, told in sorted(found, key=_place)]

    def tables(self) -> dict[str, Tables]:
        """Page, from the root -> the tables that its prose speaks of."""
        found = tables_spoken_of(self.texts, self.reports)
        return {path.relative_to(self.root).as_posix(): tables for path, tables in found.items()}

    def to_read(self) -> list[str]:
        """Which pages were not read against their tables as they are: "page: table, table"."""
        read = self.root / READ
        changed = to_read(self.tables(), read_json(read, "restore it") if read.is_file() else {})
        return [f"{page}: {', '.join(names)}" for page, names in changed.items()]

    def pictures(self) -> dict[Path, str]:
        """The picture of every sweep that can be compared -> its name."""
        folders = sorted(path for path in (self.root / "results").glob("*") if can_compare(path))
        return {self.root / "docs" / "figures" / f"{folder.name}.png": folder.name for folder in folders}

    def stale(self) -> list[Path]:
        """The pages that say, and the pictures that show, something else than the records."""
        pages = [path for path, text in self.pages().items() if self.texts[path] != text]
        drawn = self.pictures().items()
        return pages + [path for path, name in drawn if drawn_from(path) != digest_of(self.root / "results" / name)]


def _place(found: tuple[Path, Told]) -> tuple[Path, int]:
    path, told = found
    return path, told.line


def _no_record(sweep: str, *arm: str, said: str = "Not run") -> str:
    return f"{said}: `{' '.join(['bash', f'sweeps/{sweep}.sh', *arm])}`."


def drawn_from(picture: Path) -> str | None:
    """The digest of the records that ``picture`` was drawn from; None where there is none."""
    if not picture.is_file():
        return None
    with Image.open(picture) as image:
        return image.info.get(DIGEST)


def main() -> None:
    """Command line: writes blocks and pictures; with ``--check`` or ``--read`` only says which are stale."""
    parser = NamesParser("Write the figures of the pages from records.")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--check", action="store_true", help="change nothing; exit code 2 where something is stale")
    modes.add_argument("--read", action="store_true", help="keep that the pages were read against their tables")
    asked, results = parser.parse_args(), Results(ROOT)
    stale = results.stale()
    if (asked.check or asked.read) and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        raise UserError(f"{names}: not what the records say; run make results.")
    if not asked.check and not asked.read:
        _write(results, stale)
    written = Results(ROOT)
    if found := written.untold():
        print(*found, sep="\n")
        fix = "write what the records say, or keep the record of what the page says"
        raise UserError(f"{len(found)} intervals of the pages, listed above, are in no record; {fix}.")
    if asked.read:
        write_json(ROOT / READ, written.tables())
    elif found := written.to_read():
        print(*found, sep="\n")
        fix = "read what they say of them, then python -m analysis.results --read"
        raise UserError(f"The tables, listed above, that {len(found)} pages speak of have changed; {fix}.")


def _write(results: Results, stale: list[Path]) -> None:
    pages = results.pages()
    for path in stale:
        if path in pages:
            write_text(path, pages[path])
            print(f"written: {path.relative_to(ROOT)}")
    for path, name in results.pictures().items():
        print(f"drawn: {draw_sweep(results.sweep(name), path).relative_to(ROOT)}")


if __name__ == "__main__":
    run_cli(main)
