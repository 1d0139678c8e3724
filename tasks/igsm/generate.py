"""Write a file of iGSM problems, with or without worked traces; a killed run goes on with the same command.

python -m tasks.igsm.generate --output data/igsm_bridge.jsonl --n 2000 --seed 100 --traces injected
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from tqdm import tqdm

from common.errors import UserError, run_cli
from common.flags import check_choices, check_least, flag, parse_one
from tasks.igsm.dataset import PROMPT_STYLES, THINKING_OPENED, Item, describe, draw_items, prompt
from tasks.igsm.row_file import RowFile, read_column
from tasks.igsm.space import ProblemSpace
from tasks.igsm.splits import SPLITS, TEST, check_leak, check_split
from tasks.igsm.trace import KINDS, PLAIN, Behaviours, Trace, random_order, solve
from tasks.igsm.vocabulary import ANY

TRACES = ("none", "plain", "injected")
AUGMENTATIONS = ("none", "answer", "query")


@dataclass
class GenerateOptions:
    """Which problems are written, how they are solved, and where they go.

    Attributes:
        space: the problems that are drawn.
        behaviours: what is injected into the traces.
    """

    output: str = flag("", "File to write, .jsonl or .parquet. Needed.")
    n: int = flag(2000, "Problems, all different, 1 or more.")
    split: str = flag("train", f"Templates to take: {', '.join(SPLITS)} (all is no split).")
    seed: int = flag(100, "Seed; the same problems come with every kind of traces.")
    min_op: int = flag(15, "Fewest operations of a solution, 1 or more.")
    max_op: int = flag(20, "Most operations of a solution, at most twice --max_edges.")
    op_distribution: str = flag("uniform", "Operations: uniform, or light (small ones oftener, as in iGSM and BRIDGE).")
    max_edges: int = flag(20, "Most edges of the structure graph, 2 to 28; iGSM-med has 20, iGSM-hard 28.")
    modulus: int = flag(0, "0: exact integers, answers within 999 either way (BRIDGE); 23: modulo 23 (iGSM).")
    zero_drop: float = flag(0.0, "Share of the problems with answer 0 that is left out, in [0, 1].")
    world: str = flag(ANY, "Names: any (one of the next five), trade, music, sky, study, farm, brief (one word each).")
    traces: str = flag(
        "none", "Worked solutions: none, plain, or injected (with the behaviours below); of test problems none."
    )
    p_reflect: float = flag(0.1, "injected: chance of an attempt ahead of its turn before a step, in [0, 1].")
    analysis_level: int = flag(2, "injected: how often conditions are restated, 0 (never) to 4 (always).")
    stepwise: bool = flag(True, "injected: write the arithmetic out one operation at a time.")
    augment: str = flag("none", "Copies: none, answer (other orders and wordings), query (conditions shuffled).")
    copies: int = flag(4, "Rows per problem with --augment, 1 or more.")
    prompt_style: str = flag("chat", "Prompt: chat (conversation) or base (transcript that opens the thinking).")
    disjoint_from: str = flag("", "Files of problems, separated by commas, whose templates must not come up again.")
    overwrite: bool = flag(False, "Write the file anew, whatever there is.")

    def __post_init__(self):
        if not self.output:
            raise UserError("--output is needed: a file that ends in .jsonl or .parquet.")
        check_choices(self, traces=TRACES, augment=AUGMENTATIONS, prompt_style=PROMPT_STYLES)
        check_split(self.split)
        if self.split == TEST and self.traces != "none":
            raise UserError(
                f"--split={TEST} --traces={self.traces}: run_eval.py reports test problems, and traces are to train "
                "on; take another --split, or --traces=none."
            )
        check_least(self, n=1, copies=1)
        if self.augment == "answer" and self.traces == "none":
            raise UserError("--augment=answer varies worked solutions; give --traces=plain or injected.")
        self.space = ProblemSpace(
            self.min_op, self.max_op, self.op_distribution, self.max_edges, self.modulus, self.zero_drop, self.world
        )
        injected = Behaviours(self.p_reflect, self.analysis_level, self.stepwise)
        self.behaviours = injected if self.traces == "injected" else PLAIN

    @property
    def rows_per_problem(self) -> int:
        """Rows that come from one problem."""
        return 1 if self.augment == "none" else self.copies

    def settings(self) -> dict:
        """What decides the rows."""
        others = ("output", "disjoint_from", "overwrite")
        return {name: value for name, value in asdict(self).items() if name not in others}


def rows_of(item: Item, options: GenerateOptions) -> list[dict]:
    """The rows of one problem: prompt and, with traces, completion, counts and spans; one, or ``copies`` of them."""
    return [_row(item, copy, options) for copy in range(options.rows_per_problem)]


def _row(item: Item, copy: int, options: GenerateOptions) -> dict:
    name = f"{options.seed}-{options.split}-{item.index}"
    row = {**describe(item), "split": options.split, "copy": copy}
    if options.augment == "query":
        conditions = list(item.problem.conditions)
        Random(f"{name}-query-{copy}").shuffle(conditions)
        row["question"] = item.problem.text(tuple(conditions))
    row = {"prompt": prompt(row["question"], options.prompt_style), **row}
    if options.traces == "none":
        return row
    # Shuffled conditions keep one solution; every other copy has its own.
    rng = Random(f"{name}-trace-{0 if options.augment == 'query' else copy}")
    order = random_order(item.problem, rng) if options.augment == "answer" else None
    trace = solve(item.problem, options.behaviours, rng, order)
    return {**row, **trace_columns(trace, options.prompt_style)}


def trace_columns(trace: Trace, prompt_style: str) -> dict:
    """Completion, spans and counts of a trace; after the prompt "base" it goes on behind the opened thinking."""
    skipped = len(THINKING_OPENED) if prompt_style == "base" else 0
    text = trace.text[skipped:]
    spans = {
        name: [{**span, "start": span["start"] - skipped, "end": span["end"] - skipped} for span in found]
        for name, found in (("injected", trace.injected), ("content", trace.content))
    }
    return {
        "completion": text if prompt_style == "base" else [{"role": "assistant", "content": text}],
        "steps": trace.steps,
        "reflections": trace.reflections,
        "analyses": trace.analyses,
        **spans,
    }


def answer_floor(answers: list[int]) -> tuple[int, float]:
    """(commonest answer, its share): the accuracy of a policy that always says it."""
    answer, count = min(Counter(answers).items(), key=lambda pair: (-pair[1], abs(pair[0]), pair[0]))
    return answer, count / len(answers)


def summarize(rows: Iterator[dict]) -> dict:
    """What is worth knowing of the rows: floor, operations, and what is in the traces on average."""
    answers, ops, totals, injected = [], Counter(), Counter(), Counter()
    for row in rows:
        answers.append(row["answer"])
        ops[row["op"]] += 1
        totals.update({name: row[name] for name in ("steps", "reflections", "analyses") if name in row})
        for span in row.get("injected", ()):
            injected[span["kind"]] += span["end"] - span["start"]
    answer, share = answer_floor(answers)
    summary = {"rows": len(answers), "commonest_answer": answer, "answer_floor": share, "op": dict(sorted(ops.items()))}
    if totals:
        summary["per_trace"] = {name: total / len(answers) for name, total in totals.items()}
        summary["injected_characters_per_trace"] = {kind: injected[kind] / len(answers) for kind in KINDS}
    return summary


def write_rows(options: GenerateOptions) -> dict:
    """Write the file, or go on with it; the summary. Raises `UserError` when it would leak or has other settings."""
    for source in filter(None, options.disjoint_from.split(",")):
        check_leak(options.split, source, read_column(source, "template"))
    with RowFile(Path(options.output), options.settings(), options.rows_per_problem) as file:
        if options.overwrite:
            file.discard()
        if not file.is_complete():
            done = file.recover()
            seen = {row["key"] for row in file.rows()}
            if done:
                print(f"going on after {done} of {options.n} problems", flush=True)
            items = draw_items(options.n, options.space, options.split, options.seed, done, seen)
            progress = tqdm(items, initial=done, total=options.n, desc="problems", leave=False)
            file.append(rows_of(item, options) for item in progress)
            file.finish(summarize(file.rows()))
        return file.summary()


def main() -> None:
    options = parse_one(GenerateOptions)
    summary = write_rows(options)
    print(
        f"{summary['rows']} rows in {options.output}; always answering {summary['commonest_answer']} would be right in "
        f"{summary['answer_floor']:.1%}"
    )
    for name, value in summary.get("per_trace", {}).items():
        print(f"{name} per trace: {value:.2f}")


if __name__ == "__main__":
    run_cli(main)
