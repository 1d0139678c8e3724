"""Traces of GSM8K's own solutions for a supervised start: the steps as reasoning, then the answer, in tags or a box.

The start that Memory-R's repository lists as 'Baseline SFT'. The notes of the data set's calculator (``<<3*4=12>>``)
are left out. Questions that run_gsm8k.py sets aside for validation are taken last:

python -m tasks.math.traces --n 640 --max_lines 4 --output outputs/gsm8k/traces.jsonl
"""

from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError, run_cli
from common.files import write_jsonl
from common.flags import OutputLines, check_least, flag, parse_one
from tasks.load import refuse_test_sets
from tasks.math.problems import GSM8K, load_gsm8k_solutions
from tasks.math.prompts import Exemplar, check_prompt, prompt, solution
from tasks.validation_split import for_traces


@dataclass
class TraceOptions:
    """Which solutions, in which shape, and where the traces go."""

    output: OutputLines = flag("", "File to write, .jsonl. Needed.")
    data: str = flag(GSM8K, "Questions with worked solutions that end in #### NUMBER: hub name, folder or file.")
    split: str = flag("train", "Split of a hub data set or folder; not test.")
    prompt_type: str = flag(
        "reasoning", "How is asked and answered: reasoning or think (tags), qwen25-math-cot (a box), plain (tags)."
    )
    n: int = flag(0, "Traces, one a question; 0 takes all questions.")
    max_lines: int = flag(0, "Lines of the longest solution to take, 1 or more; 0 takes any.")

    def __post_init__(self):
        check_prompt(self.prompt_type, 0)
        refuse_test_sets(self)
        check_least(self, n=0, max_lines=0)


def trace(row: dict, prompt_type: str) -> dict:
    """The columns prompt and completion, both conversations or both texts, of a question with steps and gold_text."""
    asked = prompt(row["question"], prompt_type)
    answered = solution(Exemplar(row["question"], row["steps"], row["gold_text"]), prompt_type)
    if isinstance(asked, str):
        return {"prompt": asked, "completion": f" {answered}"}
    return {"prompt": asked, "completion": [{"role": "assistant", "content": answered}]}


def main() -> None:
    options = parse_one(TraceOptions)
    rows = load_gsm8k_solutions(options.data, options.split)
    kept = rows.filter(lambda row: not options.max_lines or len(row["steps"].splitlines()) <= options.max_lines)
    if not len(kept):
        raise UserError(f"--max_lines={options.max_lines}: all solutions of {options.data!r} are longer; raise it.")
    if options.n > len(kept):
        fitting = f" of at most {options.max_lines} lines" * bool(options.max_lines)
        raise UserError(f"--n={options.n} is more than the {len(kept)} solutions{fitting} of {options.data!r}.")
    chosen = for_traces(kept, options.n)
    write_jsonl(Path(options.output), (trace(row, options.prompt_type) for row in chosen))
    print(f"{len(chosen)} traces: {options.output}")


if __name__ == "__main__":
    run_cli(main)
