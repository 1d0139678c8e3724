"""Completions that a run left behind, with the prompts they were given, read back from its files."""

import json
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from common.errors import UserError
from common.files import read_json
from evaluation.tasks import GENERATED_PROMPTS
from policy.chat import read_template_kwargs
from tasks.countdown import problems as countdown
from tasks.math import prompts as math_prompts


@dataclass(frozen=True)
class Completion:
    """A completion with its prompt (a conversation, or a text) and verdict.

    ``ended``: whether its end token was sampled, or the token limit cut it off; None where the file does not say.
    """

    question: str
    prompt: list[dict] | str
    text: str
    correct: bool
    ended: bool | None


@dataclass(frozen=True)
class CompletionFile:
    """Completions of one file of a run.

    Attributes:
        label: what they are, printable.
        completions: in the order of the file.
        options: the flags of the run by group, empty where its run.json is not there.
        model_name: the policy they are of: that which run_eval.py evaluated, else the one the run ended with.
        template_kwargs: names that its chat template was given, by the run or by run_eval.py.
    """

    label: str
    completions: list[Completion]
    options: dict[str, dict[str, Any]]
    model_name: str
    template_kwargs: dict[str, Any]

    def pick(self, count: int) -> list[Completion]:
        """Up to ``count`` completions, right and wrong ones in turn as far as there are both."""
        right = [completion for completion in self.completions if completion.correct]
        wrong = [completion for completion in self.completions if not completion.correct]
        turns = chain.from_iterable(zip_longest(right, wrong))
        return [completion for completion in turns if completion is not None][:count]


def read_completions(path: str | Path) -> CompletionFile:
    """The completions of a run folder (its last training batch), of a completions/*.parquet, or of an eval/*.json.

    Raises:
        UserError: there is no such file, it holds no completions, or their prompts cannot be made again.
    """
    path = Path(path)
    if path.is_dir():
        path = _last_batch(path)
    if not path.is_file():
        raise UserError(f"--run={str(path)!r} is not there; give a run folder, a completions/*.parquet or eval/*.json.")
    folder = path.parent.parent
    record = folder / "run.json"
    options = read_json(record, "restore it")["options"] if record.is_file() else {}
    template_kwargs = options.get("grpo", {}).get("chat_template_kwargs") or {}
    if path.suffix == ".parquet":
        completions, model_name = _from_batch(path, options), None
    elif path.suffix == ".json":
        report = read_json(path, "restore it")
        completions, model_name = _from_evaluation(path, report, options), report.get("model")
        if "settings" in report:
            template_kwargs = read_template_kwargs(report["settings"].get("chat_template_kwargs", ""))
    else:
        raise UserError(f"--run={str(path)!r} is neither a run folder nor a .parquet or .json file; give one of them.")
    if not completions:
        raise UserError(f"{path} holds no completions; give another file.")
    label = f"{path.stem} of {folder.resolve().name}"
    return CompletionFile(label, completions, options, model_name or str(folder / "final"), template_kwargs)


def _last_batch(folder: Path) -> Path:
    files = folder.glob("completions/step_*.parquet")
    batches = sorted(files, key=lambda file: [int(number) for number in file.stem.split("_")[1:]])
    if not batches:
        raise UserError(f"--run={str(folder)!r} holds no completions/*.parquet; give a run folder, or an eval/*.json.")
    return batches[-1]


def _from_batch(path: Path, options: dict) -> list[Completion]:
    frame = pd.read_parquet(path)
    return [
        Completion(question, prompt, text, bool(correct), ended=None)
        for question, prompt, text, correct in zip(
            frame["question"], _prompts(path, frame, options), frame["completion"], frame["correct"], strict=True
        )
    ]


def _prompts(path: Path, frame: pd.DataFrame, options: dict) -> list[list[dict] | str]:
    """What the policy was shown, as it was written; files without it have prompts that their question determines."""
    if "prompt" in frame:
        return [json.loads(prompt) for prompt in frame["prompt"]]
    asked = options.get("task", {})
    if asked.get("num_shots"):
        raise UserError(
            f"{path} does not say which worked examples each prompt had (--num_shots={asked['num_shots']}); "
            "give an eval/*.json of the run."
        )
    return [_prompt(question, asked) for question in frame["question"]]


def _from_evaluation(path: Path, report: dict, options: dict) -> list[Completion]:
    records = report.get("records")
    if not isinstance(records, list):
        raise UserError(f'{path} holds no "records"; give an evaluation with per-item records.')
    if any("completion" not in record for record in records):
        raise UserError(f"{path} has records without a completion, as rankings of options (--rank) do; give samples.")
    asked = options.get("task", {}) | {"seed": options.get("grpo", {}).get("seed", 0)}
    if "settings" in report:  # by run_eval.py, whose flags are its own
        asked = report["settings"] | {"seed": report["seed"]}
        if report["task"] == "countdown":
            asked = {"prompt_style": GENERATED_PROMPTS[asked["prompt_type"]]}
    first_pass = records[0].get("pass") if records else None
    return [
        Completion(
            record["prompt"],
            _prompt(record["prompt"], asked, record["id"]),
            record["completion"],
            bool(record["correct"]),
            ended=None if "truncated" not in record else not record["truncated"],
        )
        for record in records
        if record.get("pass") == first_pass
    ]


def _prompt(text: str, asked: dict, index: int = 0) -> list[dict] | str:
    """The prompt whose last user turn, or whole text, is ``text``; ``asked``: the flags that shaped it."""
    if asked.get("prompt_style", "base") == "base" and asked.get("prompt_type", "plain") == "plain":
        return text
    if "prompt_style" in asked:
        return [{"role": "system", "content": countdown.SYSTEM_PROMPT}, {"role": "user", "content": text}]
    shots = math_prompts.draw_shots(asked["num_shots"], asked["seed"], index)
    return math_prompts.prompt(text, asked["prompt_type"], shots)
