"""Evaluate a policy on held-out rows: one generation pass, verdicts, metrics with intervals, per-item records."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from evaluation.generate import Sample, sample_completions
from evaluation.metrics import summarize
from training.rollout import message_text


class HeldOut:
    """A fixed held-out set with the settings of its evaluation.

    Args:
        task: name of the task, recorded in the report.
        rows: columns ``prompt`` and whatever ``judge`` reads.
        judge: (completion text, row) -> verdict; the verdict ``correct_verdict`` counts as right.
        folder: where reports are saved as ``<name>.json``.
        samples, temperature, max_new_tokens, seed: see `evaluation.generate.sample_completions`.
    """

    def __init__(
        self,
        task: str,
        rows: Dataset,
        judge: Callable[[str, dict], str],
        correct_verdict: str,
        folder: Path,
        samples: int,
        temperature: float,
        max_new_tokens: int,
        seed: int,
    ):
        self.task, self.rows, self.judge, self.correct_verdict = task, rows, judge, correct_verdict
        self.folder = folder
        self.sampling = {
            "samples": samples,
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
            "seed": seed,
        }

    def evaluate(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, step: int = 0) -> dict:
        """Sample, judge, summarise and save; returns the report that was saved as ``<name>.json``."""
        rows = list(self.rows)
        samples = sample_completions(model, tokenizer, [row["prompt"] for row in rows], **self.sampling)
        records = [
            self._record(index, number, row, sample)
            for index, row in enumerate(rows)
            for number, sample in enumerate(samples[index])
        ]
        correct = np.array([record["correct"] for record in records]).reshape(len(rows), -1)
        report = {
            "name": name,
            "step": step,
            "task": self.task,
            "problems": len(rows),
            "samples_per_problem": self.sampling["samples"],
            "temperature": self.sampling["temperature"],
            "metrics": summarize(correct)
            | {
                "mean_length": float(np.mean([record["length"] for record in records])),
                "truncated": float(np.mean([record["truncated"] for record in records])),
            },
            "records": records,
        }
        self._save(report)
        return report

    def _record(self, index: int, number: int, row: dict, sample: Sample) -> dict:
        """Everything that is needed to judge a completion again without the model."""
        verdict = self.judge(sample.text, row)
        return {
            "id": index,
            "sample": number,
            **row,
            "prompt": message_text(row["prompt"], "user"),
            "completion": sample.text,
            "length": sample.length,
            "truncated": sample.truncated,
            "verdict": str(verdict),
            "correct": verdict == self.correct_verdict,
        }

    def load(self, name: str) -> dict | None:
        """The report saved as ``<name>.json``, or None."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def _save(self, report: dict) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{report['name']}.json"
        temporary = path.with_suffix(".json.tmp")
        temporary.write_text(json.dumps(report, ensure_ascii=True) + "\n", encoding="utf-8")
        os.replace(temporary, path)


class HeldOutCallback(TrainerCallback):
    """Evaluates on the held-out set every ``every`` optimiser steps, outside training's random state."""

    def __init__(self, held_out: HeldOut, tokenizer: PreTrainedTokenizerBase, every: int):
        self.held_out, self.tokenizer, self.every = held_out, tokenizer, every

    def on_step_end(self, args, state, control, model=None, **kwargs):
        due = self.every and state.global_step % self.every == 0 and state.global_step < state.max_steps
        if due and state.is_world_process_zero:
            self.held_out.evaluate(model, self.tokenizer, f"step_{state.global_step:06d}", state.global_step)
