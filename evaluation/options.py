"""Flags of run_eval.py."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from training.errors import UserError
from training.policy import DTYPES, EMBEDDED_NAME


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
