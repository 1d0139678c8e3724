"""Evaluate any checkpoint under strict, medium and loose graders: flags -> rows -> one generation pass -> table, JSON.

python run_eval.py --task=gsm8k --model_name=path/to/model/
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from analysis.table import format_metric, interval_note
from evaluation.compare import compare, compare_table, read_report, regrade
from evaluation.evaluate import save_report
from evaluation.tasks import eval_task
from training.errors import UserError, run_cli
from training.policy import DTYPES, EMBEDDED_NAME, resolve


def _flag(default, help):
    return field(default=default, metadata={"help": help})


@dataclass
class EvalOptions:
    """What is evaluated, how it is asked, and what to do with finished evaluations."""

    task: str = _flag("gsm8k", "gsm8k, math500, svamp or countdown.")
    model_name: str = _flag(EMBEDDED_NAME, "Hub name, folder of a model or LoRA adapter, or tiny (embedded policy).")
    data: str = _flag("", "Other rows for the task: hub name, folder, jsonl or parquet file. Unset: the task's own.")
    split: str = _flag("", "Split of a hub dataset or folder. Unset: the task's own.")
    limit: int = _flag(0, "Evaluate the first this many problems; 0 evaluates all.")
    num_shots: int = _flag(0, "Worked examples before each question, 0 to 9.")
    prompt_type: str = _flag(
        "reasoning", "reasoning or think (tags), qwen25-math-cot (boxed), plain (for a policy without chat template)."
    )
    n: int = _flag(1, "Samples per problem; pass@k and maj@k need several and a temperature above 0.")
    temperature: float = _flag(0.0, "Sampling temperature; 0 is greedy.")
    top_p: float = _flag(1.0, "Nucleus sampling: share of probability to sample from, in (0, 1].")
    max_new_tokens: int = _flag(0, "Most tokens of a completion; 0 takes the task's own.")
    batch_size: int = _flag(64, "Completions generated at once.")
    seed: int = _flag(0, "Seed of samples and worked examples.")
    dtype: str = _flag("auto", f"Precision of the weights: {', '.join(DTYPES)}, or auto (bfloat16; float32 on a CPU).")
    output: str = _flag("", "JSON file to write. Unset: outputs/eval/<task>/<model>/<settings>.json.")
    tier: str = _flag("", "Print this tier alone: strict, medium or loose. Unset: all, side by side.")
    backend: str = _flag("native", "native, or lighteval: LightEval's pipeline, our task and its own gsm8k.")
    regrade: str = _flag("", "Judge the records of this JSON file again, without a model.")
    compare: list[str] = field(
        default_factory=list, metadata={"help": "Two JSON files A B: paired difference B - A with its interval."}
    )

    def __post_init__(self):
        choices = {
            "tier": ("", "strict", "medium", "loose"),
            "backend": ("native", "lighteval"),
            "dtype": ("auto", *DTYPES),
        }
        for flag, known in choices.items():
            if getattr(self, flag) not in known:
                raise UserError(
                    f"--{flag}={getattr(self, flag)!r} is unknown; use one of {', '.join(filter(None, known))}."
                )
        for flag, least in (("n", 1), ("batch_size", 1), ("limit", 0), ("max_new_tokens", 0), ("temperature", 0)):
            if getattr(self, flag) < least:
                raise UserError(f"--{flag}={getattr(self, flag)} must be at least {least}.")
        if self.n > 1 and not self.temperature:
            raise UserError(f"--n={self.n} greedy completions would all be the same; add --temperature=1.0.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top_p={self.top_p} must lie in (0, 1].")
        if self.compare and len(self.compare) != 2:
            raise UserError(f"--compare takes two files, got {len(self.compare)}.")

    def output_path(self) -> Path:
        """The file that the evaluation is written to."""
        if self.output:
            return Path(self.output)
        model = re.sub(r"[^A-Za-z0-9.+_-]+", "-", self.model_name.strip("/")).strip("-")
        decoding = f"n{self.n}_t{self.temperature:g}" if self.temperature else "greedy"
        parts = [decoding, self.prompt_type, f"{self.num_shots}shot", *([f"first{self.limit}"] if self.limit else [])]
        return Path("outputs") / "eval" / self.task / model / f"{'_'.join(parts)}.json"


def print_report(report: dict, path: Path, tier: str) -> None:
    """The metrics of a report, one line each; ``tier`` alone if given."""
    metrics = {tier: report["metrics"][tier]} if tier else report["metrics"]
    for name, value in metrics.items():
        if name not in ("accuracy", "pass@1"):
            print(f"{name:20}{format_metric(name, value)}")
    print(f"{interval_note(None, metrics)}; task {report['task']}; records: {path}")


def main() -> None:
    # ---- flags
    (options,) = HfArgumentParser(EvalOptions, allow_abbrev=False).parse_args_into_dataclasses()

    # ---- finished evaluations
    if options.compare:
        print(compare_table(compare(*map(read_report, options.compare))))
        return
    if options.regrade:
        report, changed = regrade(read_report(options.regrade))
        path = Path(options.output or Path(options.regrade).with_suffix(".regraded.json"))
        save_report(report, path)
        print(f"{changed} of {len(report['records'])} verdicts changed")
        print_report(report, path, options.tier)
        return

    # ---- rows
    task = eval_task(options.task)
    task.check_prompts(options.prompt_type, options.num_shots)
    resolve(options.model_name)
    max_new_tokens = options.max_new_tokens or task.max_new_tokens
    if options.backend == "lighteval":
        run_backend(options, max_new_tokens)
        return
    rows = task.load(options.data or task.source, options.split or task.split)
    rows = rows.select(range(min(options.limit or len(rows), len(rows))))
    rows = task.add_prompts(rows, options.prompt_type, options.num_shots, options.seed)

    # ---- generate, grade, save, print
    from evaluation.checkpoint import evaluate_checkpoint
    from evaluation.generate import Decoding

    path = options.output_path()
    decoding = Decoding(options.n, options.temperature, max_new_tokens, options.top_p)
    settings = {name: getattr(options, name) for name in ("data", "split", "limit", "num_shots", "prompt_type")}
    report = evaluate_checkpoint(
        options.model_name,
        options.task,
        rows,
        task.grade,
        decoding,
        path,
        settings,
        options.batch_size,
        options.seed,
        options.dtype,
    )
    print_report(report, path, options.tier)


def run_backend(options: EvalOptions, max_new_tokens: int) -> None:
    """Evaluate through LightEval and print its metrics."""
    from evaluation.lighteval_backend import run_lighteval

    folder = options.output_path().with_suffix("") / "lighteval"
    metrics = run_lighteval(
        options.model_name,
        options.task,
        folder,
        max_samples=options.limit or None,
        max_new_tokens=max_new_tokens,
        batch_size=options.batch_size,
        data=options.data or None,
        num_shots=options.num_shots,
        prompt_type=options.prompt_type,
        seed=options.seed,
    )
    for name, value in metrics.items():
        print(f"{name:40}{value:.4g}")
    print(f"records: {folder}")


if __name__ == "__main__":
    run_cli(main)
