"""Per-step influence of queries on each other under a checkpoint: rollout accuracy and data co-influence (BRIDGE).

python -m analysis.influence --model_name tiny --task countdown --queries 32 --samples 8 --output outputs/influence/tiny
"""

import json
import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm

from analysis.completions import Completion
from analysis.influence.gradients import (
    CompletionGradient,
    CountSketch,
    contrast,
    inner_products,
    last_layers_pattern,
    outline,
    select_names,
)
from analysis.influence.plot import save_plot
from analysis.influence.statistics import accuracy_statistics, cosines, influence_statistics, influences
from analysis.token_map.values import tokenize
from common.devices import GIB, default_device
from common.errors import UserError
from common.flags import OutputFolder, check_choices, check_least, flag, parse_one
from evaluation.checkpoint import weights_digest
from evaluation.evaluate import record_of, save_report
from evaluation.generate import Decoding, sample_completions
from evaluation.tasks import EvalTask, eval_task
from policy.chat import read_template_kwargs
from policy.chat_checks import check_chat_template
from policy.load import load_policy, load_tokenizer
from policy.options import EMBEDDED_NAME, PolicyOptions
from policy.precision import DTYPES, NAMES, check_dtype
from policy.setup_line import GENERATE, announced_setup, unseen_gpu
from rewards.grade import TIERS

ROWS_LIMIT = 8 << 30  # bytes of gradients kept at once without a sketch
BYTES = 4  # of a float32


@dataclass
class InfluenceOptions:
    """Which queries of which policy are compared, and on which parameters."""

    output: OutputFolder = flag(MISSING, "Folder that gets influence.json and influence.png.")
    model_name: str = flag(
        EMBEDDED_NAME,
        "Hub name, folder of a model or LoRA adapter, smollm2 (from a package without the hub), tiny or "
        "tiny_igsm (embedded).",
    )
    task: str = flag("countdown", "Task of run_eval.py.")
    data: str = flag("", "Other rows for the task: hub name, folder, jsonl or parquet file. Unset: the task's own.")
    split: str = flag("", "Split of a hub dataset or folder. Unset: the task's own.")
    num_shots: int = flag(0, "Worked examples before each question, 0 to 9.")
    prompt_type: str = flag("reasoning", "Prompt of the task, as in run_eval.py.")
    chat_template_kwargs: str = flag("", "Names for the chat template, a JSON object, as in run_eval.py.")
    tier: str = flag("medium", "Verdict that counts as right: strict, medium (what training rewards) or loose.")
    queries: int = flag(32, "Problems to compare, drawn from the rows by --seed; 2 or more.")
    samples: int = flag(
        8, "Completions per problem, 2 or more; problems without right or wrong ones have no influence."
    )
    temperature: float = flag(1.0, "Sampling temperature, above 0; the gradients are those of the same distribution.")
    max_new_tokens: int = flag(0, "Most tokens of a completion; 0 takes the task's own.")
    batch_size: int = flag(64, "Completions generated at once, 1 or more.")
    backward_batch_size: int = flag(16, "Completions per backward, 1 or more; fewer than --samples saves memory.")
    parameters: str = flag(
        "", "Regex searched in parameter names. Unset: attention output and MLP down projection of the last two layers."
    )
    length_normalized: bool = flag(
        True, "Mean log-probability per token, as in GRPO's loss; false: their sum, as the formula is written."
    )
    sketch: int = flag(0, "Dimensions of a random sketch of each gradient, 0 for none; 8192 keeps cosines to +-0.01.")
    split_halves: bool = flag(
        False, "Also estimate self-influence free of sampling noise, from two halves; twice the backwards."
    )
    seed: int = flag(0, "Seed of problems, samples, worked examples and sketch, 0 or more.")
    dtype: str = flag("auto", f"Precision of the weights: {', '.join(DTYPES)}, or auto (float32).")

    def __post_init__(self):
        check_least(self, queries=2, samples=2, batch_size=1, backward_batch_size=1, max_new_tokens=0, sketch=0, seed=0)
        if not self.temperature > 0:
            raise UserError(f"--temperature={self.temperature} must be above 0: greedy completions are all the same.")
        check_choices(self, tier=TIERS)
        read_template_kwargs(self.chat_template_kwargs)
        check_dtype(self.dtype, trained=False)
        try:
            re.compile(self.parameters)
        except re.error as error:
            raise UserError(f"--parameters={self.parameters!r} is no regular expression ({error}).") from None

    def decoding(self, task: EvalTask) -> Decoding:
        """How completions are sampled: the policy's own distribution, cut nowhere."""
        return Decoding(self.samples, self.temperature, self.max_new_tokens or task.max_new_tokens)


@dataclass(frozen=True)
class Subset:
    """The parameters whose gradients are compared: regex, names, and number of values."""

    pattern: str
    names: list[str]
    size: int

    @classmethod
    def of(cls, options: InfluenceOptions) -> "Subset":
        """Found by name alone, before weights are read.

        Raises `UserError` when the regex matches nothing, or when the gradients would not fit without a sketch.
        """
        num_layers, sizes = outline(options.model_name)
        pattern = options.parameters or last_layers_pattern(num_layers)
        names = select_names(sizes, pattern)
        size = sum(sizes[name] for name in names)
        needed = options.queries * size * BYTES
        if not options.sketch and needed > ROWS_LIMIT:
            raise UserError(
                f"--parameters={pattern!r} names {size:,} values, whose gradients for --queries={options.queries} "
                f"take {needed / GIB:.1f} GiB; add --sketch=8192, or name fewer."
            )
        return cls(pattern, names, size)


def draw_rows(rows: Dataset, count: int, seed: int) -> Dataset:
    """``count`` different rows, in the order of the data; the same ones for every policy."""
    if count > len(rows):
        raise UserError(f"--queries={count} is more than the {len(rows)} problems there are; use at most {len(rows)}.")
    return rows.select(sorted(np.random.default_rng(seed).choice(len(rows), count, replace=False).tolist()))


def halves(correct: Sequence[bool]) -> list[list[int]] | None:
    """Two disjoint index lists, each with right and wrong samples of its own; None below two of each."""
    by_verdict = [[i for i, value in enumerate(correct) if bool(value) == verdict] for verdict in (True, False)]
    if min(map(len, by_verdict)) < 2:
        return None
    return [sorted(index for members in by_verdict for index in members[start::2]) for start in (0, 1)]


def self_term(gradient: CompletionGradient, tokens: dict[str, Tensor], correct: Sequence[bool]) -> float:
    """Unbiased estimate of |D_q|^2 from two independent halves of the samples; NaN where they do not suffice."""
    parts = halves(correct)
    if parts is None:
        return float("nan")
    first, second = (
        gradient({name: values[part] for name, values in tokens.items()}, contrast([correct[i] for i in part]))
        for part in parts
    )
    return float(first.double() @ second.double())


def measure(
    gradient: CompletionGradient,
    batches: Sequence[dict[str, Tensor]],
    correct: Sequence[Sequence[bool]],
    sketch: CountSketch | None = None,
    split_halves: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """(D_q of every query, (m, P) float32 or (m, dims) sketched; estimates of |D_q|^2 (m,), or None unless asked).

    Args:
        batches: per query the tokens of its samples, as `CompletionGradient` takes them.
        correct: per query the verdicts of its samples.
    """
    rows = torch.empty(len(batches), sketch.dims if sketch else gradient.size)
    terms = []
    for index, tokens in enumerate(tqdm(batches, desc="gradients", unit="query", leave=False)):
        found = gradient(tokens, contrast(correct[index]))
        rows[index] = sketch(found) if sketch else found.cpu()
        if split_halves:
            terms.append(self_term(gradient, tokens, correct[index]))
    return rows, torch.tensor(terms, dtype=torch.float64) if split_halves else None


def analyse(options: InfluenceOptions) -> dict:
    """Sample, grade, differentiate and summarise; saves influence.json and influence.png and returns the report.

    Raises:
        UserError: bad flags, a regex that names no parameter, fewer rows than queries, gradients that do not fit.
    """
    task = eval_task(options.task)
    task.check_prompts(options.prompt_type, options.num_shots)
    subset = Subset.of(options)
    rows = draw_rows(task.load(options.data or task.source, options.split or task.split), options.queries, options.seed)
    rows = task.add_prompts(rows, options.prompt_type, options.num_shots, options.seed)
    tokenizer = load_tokenizer(options.model_name, read_template_kwargs(options.chat_template_kwargs))
    check_chat_template(rows[0]["prompt"], tokenizer, options.model_name)
    device = default_device()
    policy = load_policy(options.model_name, PolicyOptions(dtype=options.dtype)).to(device)
    setup = announced_setup(policy, NAMES[policy.dtype], GENERATE)
    samples = sample_completions(
        policy,
        tokenizer,
        rows["prompt"],
        options.decoding(task),
        batch_size=options.batch_size,
        seed=options.seed,
        progress=True,
    )
    records = [
        record_of(row, task.grade, sample, {"id": index, "pass": "main", "sample": number})
        for index, (row, found) in enumerate(zip(rows, samples, strict=True))
        for number, sample in enumerate(found)
    ]
    correct = np.array([record[options.tier] for record in records]).reshape(len(rows), -1)
    batches = [
        tokenize(
            [Completion("", prompt, item.text, False, not item.truncated) for item in found], tokenizer, None, device
        ).tensors
        for prompt, found in zip(rows["prompt"], samples, strict=True)
    ]
    gradient = CompletionGradient(
        policy, subset.names, options.temperature, options.backward_batch_size, options.length_normalized
    )
    sketch = CountSketch(gradient.size, options.sketch, options.seed) if options.sketch else None
    directions, terms = measure(gradient, batches, correct.tolist(), sketch, options.split_halves)
    lengths = np.concatenate([tokens["completion_mask"].sum(dim=1).cpu() for tokens in batches])
    report = {
        "name": "influence",
        "step": 0,
        "task": options.task,
        "model": options.model_name,
        "weights": weights_digest(options.model_name),
        "seed": options.seed,
        "settings": asdict(options),
        "subset": asdict(subset),
        "setup": asdict(setup),
        "retokenized": float(np.mean(lengths != [record["length"] for record in records])),
        **summarise(correct, inner_products(directions).numpy(), None if terms is None else terms.numpy()),
        "records": records,
    }
    save_report(report, Path(options.output) / "influence.json")
    save_plot(report, Path(options.output) / "influence.png")
    return report


def summarise(correct: np.ndarray, products: np.ndarray, self_terms: np.ndarray | None = None) -> dict:
    """Metrics and matrices of verdicts (m, N) and inner products (m, m), fit for JSON: what is undefined is None."""
    accuracy = correct.mean(axis=1)
    return {
        "metrics": accuracy_statistics(correct) | influence_statistics(products, accuracy, self_terms),
        "queries": {
            "accuracy": accuracy.tolist(),
            "self_terms": None if self_terms is None else _defined(self_terms),
            "influence": influences(products, accuracy).tolist(),
            "cosine": [_defined(row) for row in cosines(products)],
        },
    }


def _defined(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def summary(report: dict) -> str:
    """The metrics as lines of text, each with its interval."""
    shown = {name: value for name, value in report["metrics"].items() if name != "histogram"}
    lines = [f"{name:22}{_text(value)}" for name, value in shown.items()]
    counts = json.dumps(report["metrics"]["histogram"])
    subset = report["subset"]
    return "\n".join(
        [
            *lines,
            f"queries by number of right samples: {counts}",
            f"gradients on {len(subset['names'])} parameters, {subset['size']:,} values: {subset['pattern']}",
            f"records: {Path(report['settings']['output']) / 'influence.json'}",
        ]
    )


def _text(value: float | dict[str, float | None]) -> str:
    """A metric with its interval; a hyphen where it is undefined."""
    if isinstance(value, float):
        return f"{value:.4g}"
    mean, *interval = ("-" if value[key] is None else f"{value[key]:.4g}" for key in ("mean", "low", "high"))
    return f"{mean} [{', '.join(interval)}] over {value['n']} queries"


def main() -> None:
    options = parse_one(InfluenceOptions)
    if warning := unseen_gpu():
        print(warning, flush=True)
    print(summary(analyse(options)))
