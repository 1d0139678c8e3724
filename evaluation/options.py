"""Flags of run_eval.py."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError, check_number
from common.flags import check_choices, check_least, flag
from rewards.grade import TIERS
from rewards.sandbox.pool import MODES, MOST_SECONDS
from tasks.sql import SCHEMA_VALUES

HIDDEN_DATABASES = 8
TEST_SECONDS = 5
LARGEST_K = 64  # of pass@k, of which an unbiased estimate wants twice as many samples
# By what tasks of a grader ask and judge, beside `SETTINGS`.
OF_GRADER = {
    "sql": ("databases", "hidden_databases", "skip_bad_golds", "schema_values"),
    "code": ("sandbox", "test_seconds", "show_tests"),
}
# That make a task's rows and prompts.
SETTINGS = ("data", "split", "limit", "num_shots", "prompt_type", "circular", "chat_template_kwargs")


@dataclass
class EvalOptions:
    """What is evaluated, how it is asked, and what to do with finished evaluations."""

    task: str = flag(
        "gsm8k",
        "gsm8k, math500, svamp, countdown, igsm, arc_challenge, arc_easy, mmlu, humaneval, mbpp, spider, bird, "
        "sql_tiny, or math (NuminaMath-TIR, or any questions and answers).",
    )
    model_name: str = flag(
        "tiny",
        "Hub name, folder of a model or LoRA adapter, smollm2 (from a package without the hub), tiny or "
        "tiny_igsm (embedded).",
    )
    data: str = flag(
        "", "Other rows for the task: hub name, folder, jsonl, parquet, csv or tsv file. Unset: the task's own."
    )
    split: str = flag(
        "",
        "Split of a hub dataset or folder; of igsm a range of operations, such as 21-25, or tiny (short problems of 3 "
        "and 4, as tiny_igsm is trained on) or tiny:5-6 (such ones of 5 and 6); of countdown tiny (3 numbers up to 15, "
        "as the policy tiny is trained on), full (3 or 4 up to 99, as others are) or how many numbers, such "
        "as 2 or 3-4; of sql_tiny train, validation or test, which share no template. Unset: the task's own; "
        "of countdown tiny, and of a file of --data the test part, which run_countdown.py does not see.",
    )
    limit: int = flag(0, "Evaluate the first this many problems; 0 evaluates all.")
    num_shots: int = flag(
        0,
        "Worked examples before each question, 0 to 9; of multiple choice solved questions of the same subject, with "
        "--prompt_type=plain or --rank.",
    )
    prompt_type: str = flag(
        "reasoning",
        "Where the answer is asked for and looked for: reasoning or think (tags), qwen25-math-cot (a box), plain (for "
        "a policy without chat template), fenced (code alone, in one Python block).",
    )
    chat_template_kwargs: str = flag(
        "",
        "Names for the policy's chat template, as a JSON object, such as '{\"enable_thinking\": false}'; they win over "
        "those that a trained policy was trained with, which its own template holds. Unset: those.",
    )
    circular: bool = flag(
        False,
        "Multiple choice: ask every question in all rotations of its options; circular counts those right in all.",
    )
    rank: bool = flag(
        False,
        "Multiple choice, for base models: rank the options by their log-probability behind Answer:, plain and per "
        "byte, instead of generating; --prompt_type, --chat_template_kwargs and decoding flags have no effect.",
    )
    sandbox: str = flag(
        "auto", "Isolation of the code of humaneval and mbpp: auto, strict or process, as in run_code.py."
    )
    test_seconds: int = flag(
        TEST_SECONDS, f"Seconds of processor time for an answer in code and its tests, 1 to {MOST_SECONDS}."
    )
    databases: str = flag(
        "",
        "SQL: folder of the SQLite files, <db>.sqlite or <db>/<db>.sqlite. Unset: a folder called databases, database "
        "or dev_databases beside the questions.",
    )
    hidden_databases: int = flag(
        HIDDEN_DATABASES,
        "SQL: hidden databases made per database, on which a query has to be right too, 0 or more; where there is "
        "suite/<db>/ beside the databases, those are used.",
    )
    skip_bad_golds: bool = flag(
        False,
        "SQL: leave questions out whose gold query fails, exceeds a limit or reads the clock; else they are errors.",
    )
    schema_values: int = flag(SCHEMA_VALUES, "SQL: example texts per column that the prompt shows, 0 or more.")
    show_tests: int = flag(1, "mbpp: asserts that the prompt shows, 0 or more.")
    n: int = flag(
        0,
        f"Samples per problem; pass@k needs several. 0: 1 where greedy, else {2 * LARGEST_K}, for k up to {LARGEST_K}.",
    )
    temperature: float = flag(0.0, "Sampling temperature; 0 is greedy.")
    top_p: float = flag(1.0, "Nucleus sampling: share of probability to sample from, in (0, 1].")
    max_new_tokens: int = flag(0, "Most tokens of a completion; 0 takes the task's own.")
    batch_size: int = flag(64, "Completions generated at once.")
    seed: int = flag(0, "Seed of samples and worked examples.")
    dtype: str = flag(
        "auto",
        "Precision of weights and products: float32, bfloat16, float16, or auto: bfloat16 on a GPU, float16 on one "
        "without it, float32 on a CPU.",
    )
    output: str = flag(
        "", "JSON file to write, or folder for <settings>.json. Unset: outputs/eval/<task>/<model>/<settings>.json."
    )
    tier: str = flag("", "Print this tier alone: strict, medium or loose. Unset: all, side by side.")
    backend: str = flag("native", "native, or lighteval: LightEval's pipeline, our task and its own gsm8k.")
    regrade: str = flag("", "Judge the records of this JSON file again, without a model.")
    compare: list[str] = flag([], "Two JSON files A B: paired difference B - A with its interval.")

    def __post_init__(self):
        from policy.chat import read_template_kwargs
        from policy.precision import check_dtype  # imports torch, which --help does without

        check_choices(
            self,
            tier=("", *TIERS),
            backend=("native", "lighteval"),
            sandbox=MODES,
        )
        check_dtype(self.dtype, trained=False)
        read_template_kwargs(self.chat_template_kwargs)
        check_least(self, n=0, batch_size=1, limit=0, max_new_tokens=0, temperature=0)
        check_least(self, hidden_databases=0, schema_values=0, show_tests=0)
        check_number("seed", self.seed, least=0, most=2**32 - 1)
        check_number("test_seconds", self.test_seconds, least=1, most=MOST_SECONDS)
        self.n = self.n or (2 * LARGEST_K if self.temperature else 1)
        if self.n > 1 and not self.temperature:
            raise UserError(f"--n={self.n} greedy completions would all be the same; add --temperature=1.0.")
        check_number("top_p", self.top_p, above=0, most=1)
        if self.circular and self.rank:
            raise UserError("--circular rotates the options of a generated answer, --rank generates none; use one.")
        if self.compare and len(self.compare) != 2:
            raise UserError(f"--compare takes two files, got {len(self.compare)}.")

    def asked(self, grader: str) -> dict[str, Any]:
        """The flags that make rows and prompts, and by which tasks of ``grader`` judge."""
        return {name: getattr(self, name) for name in (*SETTINGS, *OF_GRADER.get(grader, ()))}

    def output_path(self) -> Path:
        """The file that the evaluation is written to; by default its name tells every flag that is not the default."""
        default = Path("outputs") / "eval" / self.task / _file_name(self.model_name) / f"{self._settings_name()}.json"
        return self.in_output(default)

    def in_output(self, default: Path) -> Path:
        """``--output`` if it is a file, the name of ``default`` in it if it is a folder, ``default`` if it is unset."""
        if not self.output:
            return default
        is_folder = self.output.endswith("/") or Path(self.output).is_dir()
        return Path(self.output) / default.name if is_folder else Path(self.output)

    def _settings_name(self) -> str:
        if self.rank:
            return "_".join(["rank", *([f"first{self.limit}"] if self.limit else []), *self._others()])
        parts = [f"n{self.n}_t{self.temperature:g}" if self.temperature else "greedy", self.prompt_type]
        parts += [f"{self.num_shots}shot", *([f"first{self.limit}"] if self.limit else [])]
        return "_".join([*parts, *(["circular"] if self.circular else []), *self._others()])

    def _others(self) -> list[str]:
        """The settings that are named with their value where they are not the default."""
        others = {
            "p": f"{self.top_p:g}" if self.top_p < 1 else "",
            "max": self.max_new_tokens,
            "seed": self.seed,
            "hidden": str(self.hidden_databases) if self.hidden_databases != HIDDEN_DATABASES else "",
            "split-": self.split,
            "data-": "-".join(Path(self.data).parts[-2:]),
            "databases-": "-".join(Path(self.databases).parts[-2:]),
            "skip_bad_golds": "-" if self.skip_bad_golds else "",
            "sandbox-": self.sandbox if self.sandbox != "auto" else "",
            "values": str(self.schema_values) if self.schema_values != SCHEMA_VALUES else "",
            "tests": str(self.show_tests) if self.show_tests != 1 else "",
            "template-": self.chat_template_kwargs,
            "seconds": str(self.test_seconds) if self.test_seconds != TEST_SECONDS else "",
        }
        return [_file_name(f"{name}{value}") for name, value in others.items() if value]


def _file_name(text: str) -> str:
    """``text`` with everything but letters, digits and .+_- made a hyphen."""
    return re.sub(r"[^A-Za-z0-9.+_-]+", "-", text.strip("/")).strip("-")
