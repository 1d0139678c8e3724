"""LightEval's judgement of a checkpoint: its pipeline runs in a process of its own, on rows written for it here.

LightEval 0.13 pins an old LaTeX parser, so it is installed in a folder apart (requirements-lighteval.txt) that only
that process sees. What the process does is in `evaluation.lighteval_task`.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from common.errors import RunError, UserError
from common.files import write_jsonl, write_text
from policy.chat import render
from policy.chat_checks import check_chat_template
from policy.end_tokens import reply_end_id
from policy.load import adapter_base, context_length, load_policy, load_tokenizer, resolve
from rewards.format import PLACE
from tasks.load import load_rows, local_path
from tasks.math.problems import GSM8K, load_gsm8k
from tasks.math.prompts import add_prompts, check_prompt

ROOT = Path(__file__).resolve().parents[1]
OVERLAY = Path(sys.prefix) / "lighteval"
REPORT = "lighteval.json"
TASKS = ("gsm8k",)
_CHILD = "evaluation.lighteval_task"
_HUB_CONFIG = "main"
_COLUMNS = ["question", "answer"]
_POLICY = "policy"
_TAIL = 1_500  # characters of the process's output that a failure reports


class Request(NamedTuple):
    """What the process is asked to do.

    Attributes:
        model: hub name, or name of a folder in the working directory; never an absolute path (see `_place_policy`).
        context: longest prompt and completion of the model, in tokens; None when its config does not say.
        rows: folder of ours/test.jsonl (prompt, gold, answer_place), builtin/test.jsonl and, for shots,
            builtin/train.jsonl (question, answer); apart, because all files of one folder must have the same columns.
        num_shots: solved problems before each question of the built-in task.
        batch_size: completions generated at once.
        max_new_tokens: longest completion, in tokens.
        cache: folder for what LightEval caches.
        result: file that the process writes its answer to.
    """

    model: str
    context: int | None
    rows: str
    num_shots: int
    batch_size: int
    max_new_tokens: int
    cache: str
    result: str


def run_lighteval(
    model_path: str,
    task: str,
    output_dir: Path,
    max_samples: int | None = None,
    max_new_tokens: int = 256,
    batch_size: int = 16,
    data: str | None = None,
    num_shots: int = 0,
    prompt_type: str = "reasoning",
    seed: int = 0,
    chat_template_kwargs: dict | None = None,
) -> dict[str, float]:
    """Greedy accuracy of a checkpoint by LightEval's pipeline, on our task and on its built-in gsm8k, in one call.

    Our task, ``gsm8k_tiers``, gives the policy the prompts that run_gsm8k.py trains with, and judges by
    `rewards.answer.grade_number`. The built-in ``gsm8k`` has LightEval's own prompt, few-shot draw and metric. That
    metric reads the gold from the worked solution and misreads it in some rows; ``gsm8k/ceiling`` is the share of the
    evaluated rows in which a right answer can score at all (1315/1319 on GSM8K's test split).

    Args:
        model_path: hub name, folder of a model or of a LoRA adapter (merged into its base first), or ``tiny``.
        task: "gsm8k".
        output_dir: folder that gets ``lighteval.json``: settings, metrics, and every completion with its verdicts.
        max_samples: evaluate the first so many rows; None evaluates all.
        data: hub name, folder with a test split, or file, with columns question and answer (which ends in
            ``#### <number>``); None is GSM8K's test split from the hub.
        num_shots: worked examples before each question: our own exemplars in our task, rows of the train split in the
            built-in one.
        prompt_type, seed: prompt of our task and draw of its exemplars, as in `tasks.math.prompts`.
        chat_template_kwargs: names for the chat template in both tasks, see `policy.chat.take_template_kwargs`.

    Returns:
        "<task>/<metric>" -> share of rows in [0, 1], with "<task>/<metric>_stderr" for two rows or more.

    Raises `UserError` on bad input and where LightEval is not installed, `RunError` when its process fails.
    """
    if task not in TASKS:
        raise UserError(
            f"--task={task!r} is not among those of --backend=lighteval ({', '.join(TASKS)}); leave --backend out."
        )
    check_prompt(prompt_type, num_shots)
    _check_overlay()
    model = resolve(model_path)
    source = data or GSM8K
    rows = add_prompts(_load_test(source, max_samples), prompt_type, num_shots, seed)
    tokenizer = load_tokenizer(model, chat_template_kwargs)
    prompts = _render(rows["prompt"], tokenizer, model)
    _check_lengths(prompts, tokenizer, model, max_new_tokens)
    shots = _load_shots(source) if num_shots else None
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lighteval-") as folder:
        workspace = Path(folder)
        _write_rows(workspace / "rows", rows, prompts, shots)
        placed = _place_policy(model, tokenizer, workspace, rows["prompt"][0], bool(chat_template_kwargs))
        limits = {"num_shots": num_shots, "batch_size": batch_size, "max_new_tokens": max_new_tokens}
        answer = _judged(placed, context_length(model), workspace, **limits)
    settings = {
        "task": task,
        "model": model_path,
        "data": source,
        "num_shots": num_shots,
        "prompt_type": prompt_type,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
        "chat_template_kwargs": chat_template_kwargs,
    }
    write_text(output_dir / REPORT, json.dumps(settings | answer, indent=1) + "\n")
    return answer["metrics"]


def _check_overlay() -> None:
    if not (OVERLAY / "lighteval").is_dir():
        raise UserError(
            f"LightEval is not in {str(OVERLAY)!r}; make lighteval installs it, or: {sys.executable} -m pip install "
            f"--no-deps --target {str(OVERLAY)!r} -r requirements-lighteval.txt"
        )


def _load_test(source: str, max_samples: int | None) -> Dataset:
    """Columns question, answer (the worked solution) and gold (a number) of the first ``max_samples`` test rows."""
    split = None if _is_file(source) else "test"
    golds = load_gsm8k(source, split)
    rows = load_rows(source, split, _config(source)).select_columns(_COLUMNS)
    rows = rows.add_column("gold", golds["gold"])
    return rows.select(range(min(max_samples or len(rows), len(rows))))


def _load_shots(source: str) -> Dataset:
    if _is_file(source):
        raise UserError(
            f"--num_shots needs a train split, from which LightEval's gsm8k draws its shots, and the file {source!r} "
            "has none; give a folder with train.jsonl and test.jsonl, or --num_shots=0."
        )
    return load_rows(source, "train", _config(source)).select_columns(_COLUMNS)


def _is_file(source: str) -> bool:
    return local_path(source).is_file()


def _config(source: str) -> str | None:
    return _HUB_CONFIG if source == GSM8K else None


def _render(prompts: list, tokenizer: PreTrainedTokenizerBase, model: str) -> list[str]:
    """``prompts`` as the policy reads them, the chat template applied."""
    check_chat_template(prompts[0], tokenizer, model)
    return [render(one, tokenizer) for one in prompts]


def _check_lengths(prompts: list[str], tokenizer: PreTrainedTokenizerBase, model: str, max_new_tokens: int) -> None:
    """Raise `UserError` where prompt and completion exceed the context: LightEval would cut the prompt silently."""
    context = context_length(model)
    if context is None:
        return
    for index, text in enumerate(prompts):
        length = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        if length + max_new_tokens > context:
            raise UserError(
                f"row {index} has a prompt of {length} tokens, which with max_new_tokens={max_new_tokens} exceeds the "
                f"policy's context of {context}; lower --max_new_tokens or --num_shots."
            )


def _write_rows(folder: Path, rows: Dataset, prompts: list[str], shots: Dataset | None) -> None:
    """Write the files of `Request.rows`: those of our task with ``prompts``, of the built-in one as loaded."""
    columns = {"prompt": prompts, "gold": rows["gold"], PLACE: rows[PLACE]}
    ours = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    write_jsonl(folder / "ours" / "test.jsonl", ours)
    write_jsonl(folder / "builtin" / "test.jsonl", rows.select_columns(_COLUMNS))
    if shots is not None:
        write_jsonl(folder / "builtin" / "train.jsonl", shots)


def _place_policy(
    model: str, tokenizer: PreTrainedTokenizerBase, workspace: Path, prompt: str | list[dict], is_changed: bool
) -> str:
    """The name by which the process, whose working directory is ``workspace``, loads ``model``.

    A folder gets a name there, because LightEval caches under ``<cache>/<model name>``: an absolute path would put the
    cache inside the checkpoint. An adapter is merged there, because LightEval's own adapter loader reads a setting that
    its 0.13 configuration no longer has. LightEval stops at the tokenizer's end token alone, so a policy whose chat
    template ends turns with another one, and which is asked in turns, gets that one there. One whose chat
    template ``is_changed`` has that there, as the built-in task renders its prompts itself.
    """
    place = workspace / _POLICY
    end = reply_end_id(prompt, tokenizer)
    if adapter_base(model) is not None or end != tokenizer.eos_token_id or is_changed:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
        load_policy(model).save_pretrained(place)
        tokenizer.save_pretrained(place)
    elif Path(model).is_dir():
        place.symlink_to(Path(model).resolve(), target_is_directory=True)
    else:
        return model
    return _POLICY


def _judged(model: str, context: int | None, workspace: Path, **limits: int) -> dict:
    """What the process answers, metrics and records, on the rows and the ``model`` in ``workspace``."""
    files = {"rows": "rows", "cache": "cache", "result": "result.json"}
    places = {name: str(workspace / file) for name, file in files.items()}
    request = Request(model=model, context=context, **places, **limits)
    _run_child(request, workspace)
    return json.loads(Path(request.result).read_text(encoding="utf-8"))


def _environment(request: Request, workspace: Path) -> dict[str, str]:
    """The process's environment: LightEval's folder before everything else that can be imported."""
    paths = [str(OVERLAY), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_DATASETS_CACHE": str(workspace / "datasets"),
        # LightEval imports GitPython to log a commit; without a git program that import fails.
        "GIT_PYTHON_REFRESH": "quiet",
    }
    return environment | {"HF_HUB_OFFLINE": "1"} if request.model == _POLICY else environment


def _run_child(request: Request, workspace: Path) -> None:
    """Run the process, passing on what it prints; raise `RunError` with the end of that when it fails."""
    path = workspace / "request.json"
    path.write_text(json.dumps(request._asdict()), encoding="utf-8")
    tail = b""
    with subprocess.Popen(
        [sys.executable, "-m", _CHILD, str(path)],
        cwd=workspace,
        env=_environment(request, workspace),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        # Read in chunks, not lines: a progress bar has no line ends.
        while chunk := process.stdout.read1():
            sys.stderr.write(chunk.decode("utf-8", "replace"))
            sys.stderr.flush()
            tail = (tail + chunk)[-_TAIL:]
    if process.returncode:
        raise RunError(
            f"LightEval ended with exit code {process.returncode}; the end of what it printed is:\n"
            f"{tail.decode('utf-8', 'replace').strip()}"
        )
