"""Evaluate one checkpoint on one task, batch by batch, so that an interrupted evaluation goes on where it stopped."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from common.devices import default_device
from common.errors import UserError
from common.files import parse_json
from evaluation.evaluate import record_of, save_report, summarize_records
from evaluation.generate import Decoding, sample_batches
from policy.chat import render
from policy.chat_checks import check_chat_template
from policy.end_tokens import described_end_tokens, end_tokens_differ
from policy.load import context_length, load_policy, load_tokenizer, resolve
from policy.options import PolicyOptions
from policy.precision import DTYPES, NAMES, Precision, half_type
from policy.setup_line import GENERATE, announced_setup
from rewards.grade import Grade

PASS = "main"


def weights_digest(model_name: str) -> str:
    """SHA-256 over the weight files of a local folder; the name itself for a model of the hub."""
    folder = Path(resolve(model_name))
    if not folder.is_dir():
        return model_name
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def count_beyond_context(prompts: Sequence, tokenizer: PreTrainedTokenizerBase, longest: int, context: int) -> int:
    """How many prompts leave less than ``longest`` tokens in a context of ``context`` tokens."""
    return sum(len(tokenizer(render(prompt, tokenizer))["input_ids"]) + longest > context for prompt in prompts)


def warn_beyond_context(
    prompts: Sequence, tokenizer: PreTrainedTokenizerBase, longest: int, context: int | None
) -> None:
    """Print how many prompts leave less than ``longest`` tokens in a ``context`` of known size, if any does."""
    beyond = count_beyond_context(prompts, tokenizer, longest, context) if context else 0
    if beyond:
        print(
            f"{beyond} of {len(prompts)} prompts leave less than {longest} tokens in the policy's context of "
            f"{context}; what it writes beyond that is not to be trusted",
            flush=True,
        )


class PartialRecords:
    """Records of finished batches beside the output: one line that says of what, then one line per batch.

    A file made with other settings is not touched: it is refused with a sentence that names it.
    """

    def __init__(self, path: Path, identity: dict):
        self.path = path
        self.batches: list[list[dict]] = []
        lines = [line for line in self._lines() if line.endswith(b"\n")]
        if not lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(identity) + "\n", encoding="utf-8")
            return
        fix = "delete it to evaluate anew"
        if parse_json(lines[0], f"line 1 of {path}", fix) != identity:
            raise UserError(
                f"{str(path)!r} holds a begun evaluation with other settings or weights; delete it, or give another "
                "--output."
            )
        # A line without its end is a batch that was cut off while it was written.
        path.write_bytes(b"".join(lines))
        self.batches = [
            parse_json(line, f"line {number} of {path}", fix, list) for number, line in enumerate(lines[1:], start=2)
        ]

    def _lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []

    def add(self, records: list[dict]) -> None:
        """Append the records of one more batch."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(records, ensure_ascii=True) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.batches.append(records)


def device_and_precision(dtype: str) -> tuple[torch.device, str]:
    """The device of an evaluation, and the precision that ``--dtype`` means on it."""
    device = default_device()
    return device, dtype if dtype != "auto" else "float32" if device.type == "cpu" else NAMES[half_type()]


def rows_digest(rows: Dataset) -> str:
    """SHA-256 of all that ``rows`` hold."""
    return hashlib.sha256(json.dumps(rows.to_list(), default=str).encode()).hexdigest()


def evaluate_checkpoint(
    model_name: str,
    task: str,
    rows: Dataset,
    grade: Callable[[str, dict], Grade],
    decoding: Decoding,
    output: Path,
    settings: dict,
    batch_size: int,
    seed: int,
    dtype: str = "auto",
    chat_template_kwargs: dict | None = None,
) -> dict:
    """Generate, grade and save; returns the report that is now in ``output``.

    Args:
        rows: with a column prompt and what ``grade`` reads.
        settings: what else makes this evaluation what it is (data, prompt, shots), for the report and for resuming.
        chat_template_kwargs: names for the chat template, see `policy.chat.take_template_kwargs`.
    """
    tokenizer = load_tokenizer(model_name, chat_template_kwargs)
    check_chat_template(rows[0]["prompt"], tokenizer, model_name)
    device, precision = device_and_precision(dtype)
    identity = {
        "task": task,
        "model": model_name,
        "weights": weights_digest(model_name),
        "dtype": precision,
        "decoding": asdict(decoding),
        "settings": settings,
        "batch_size": batch_size,
        "seed": seed,
        "rows": rows_digest(rows),
    }
    partial = PartialRecords(output.with_suffix(".partial.jsonl"), identity)
    if partial.batches:
        print(f"going on after {len(partial.batches)} finished batches in {partial.path}", flush=True)
    warn_beyond_context(rows["prompt"], tokenizer, decoding.max_new_tokens, context_length(model_name))
    model = load_policy(model_name, PolicyOptions(dtype=precision)).to(device)
    setup = announced_setup(model, precision, GENERATE)
    if end_tokens_differ(tokenizer, model.generation_config):
        print(described_end_tokens(tokenizer, model.generation_config), flush=True)
    batches = sample_batches(
        model,
        tokenizer,
        rows["prompt"],
        decoding,
        batch_size,
        seed,
        skip_batches=len(partial.batches),
        progress=True,
        autocast=Precision(DTYPES[precision], device.type).autocast,
    )
    for indices, samples in batches:
        partial.add(_records(rows, grade, indices, samples))
    records = [record for batch in partial.batches for record in batch]
    records.sort(key=lambda record: (record["id"], record["sample"]))
    about = {"name": output.stem, "step": 0, "problems": len(rows), **identity, "setup": asdict(setup)}
    report = about | {"metrics": summarize_records(records)}
    save_report(report | {"records": records}, output)
    partial.path.unlink()
    return report | {"records": records}


def _records(
    rows: Dataset, grade: Callable[[str, dict], Grade], indices: Sequence[int], samples: Sequence[Sequence]
) -> list[dict]:
    """The records of one batch: of each row among ``indices`` its ``samples``, graded."""
    return [
        record_of(rows[index], grade, sample, {"id": index, "pass": PASS, "sample": number})
        for index, found in zip(indices, samples, strict=True)
        for number, sample in enumerate(found)
    ]
